import { InvariantError } from '../errors.ts';
import { quote } from './quote.ts';

/**
 * Checks of what callers hand in. Each throws a `RangeError` (a number that is out of range) or a
 * `TypeError` (anything else) that names the option and shows the value, escaped and cut, whatever
 * that value is.
 */

/** The value as it may stand in a message: one line, bounded, and never the caller's `toString`. */
function show(value: unknown): string {
  switch (typeof value) {
    case 'string': {
      return quote(value);
    }
    case 'number': {
      return Object.is(value, -0) ? '-0' : String(value);
    }
    case 'bigint': {
      return `${String(value).slice(0, 64)}n`;
    }
    case 'boolean':
    case 'undefined': {
      return String(value);
    }
    default: {
      return value === null ? 'null' : `a value of type ${typeof value}`;
    }
  }
}

function mismatch(name: string, expected: string, value: unknown): string {
  return `Expected \`${name}\` to be ${expected}, got ${show(value)}.`;
}

function wrongKind(name: string, expected: string, value: unknown): TypeError {
  return new TypeError(mismatch(name, expected, value));
}

function badNumber(name: string, expected: string, value: unknown): TypeError | RangeError {
  const message = mismatch(name, expected, value);
  return typeof value === 'number' ? new RangeError(message) : new TypeError(message);
}

export function positiveInteger(name: string, value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
  throw badNumber(name, 'a positive integer', value);
}

/** For counts that may be 0 or have no bound at all, such as `maxWaiting`. */
export function countOrInfinity(name: string, value: unknown): number {
  if (value === Infinity) return value;
  // `+ 0` turns -0 into 0.
  if (Number.isSafeInteger(value) && (value as number) >= 0) return (value as number) + 0;
  throw badNumber(name, 'a non-negative integer or Infinity', value);
}

export function integerWithin(name: string, value: unknown, min: number, max: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max) {
    return (value as number) + 0;
  }
  throw badNumber(name, `an integer from ${min} to ${max}`, value);
}

/** A reading of a clock. */
export function finite(name: string, value: unknown): number {
  if (Number.isFinite(value)) return value as number;
  throw badNumber(name, 'a finite number', value);
}

/** A span of time that must end: a finite number of milliseconds above 0. */
export function positiveMs(name: string, value: unknown): number {
  if (typeof value === 'number' && value > 0 && value < Infinity) return value;
  throw badNumber(name, 'a positive number of milliseconds', value);
}

/** A limit on time: 0 is "not at all", Infinity is "no limit". */
export function msOrInfinity(name: string, value: unknown): number {
  if (typeof value === 'number' && value >= 0) return value + 0;
  throw badNumber(name, 'a non-negative number of milliseconds or Infinity', value);
}

export function oneOf<T extends string>(name: string, value: unknown, allowed: readonly T[]): T {
  if (allowed.includes(value as T)) return value as T;
  throw wrongKind(name, `one of ${allowed.map((word) => JSON.stringify(word)).join(', ')}`, value);
}

export function callable<T extends (...args: never[]) => unknown>(name: string, value: T): T {
  if (typeof value === 'function') return value;
  throw wrongKind(name, 'a function', value);
}

/** An object of which nothing counts but these methods. */
export function withMethods<T>(name: string, value: T, ...methods: readonly string[]): T {
  for (const method of methods) {
    if (typeof (value as Record<string, unknown> | null | undefined)?.[method] !== 'function') {
      throw new TypeError(`Expected \`${name}\` to have a method \`${method}\`.`);
    }
  }
  return value;
}

export function flag(name: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw wrongKind(name, 'true or false', value);
}

export function text(name: string, value: unknown): string {
  if (typeof value === 'string') return value;
  throw wrongKind(name, 'a string', value);
}

export function list(name: string, value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw wrongKind(name, 'an array', value);
}

/** Signals of another realm or a polyfill are as good as the platform's: only the shape counts. */
export function abortSignal(name: string, value: unknown): AbortSignal {
  if (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as AbortSignal).aborted === 'boolean' &&
    typeof (value as AbortSignal).addEventListener === 'function' &&
    typeof (value as AbortSignal).removeEventListener === 'function'
  ) {
    return value as AbortSignal;
  }
  throw wrongKind(name, 'an AbortSignal', value);
}

/**
 * The prototype of what `readOptions` makes: nothing is inherited from it. An object made with
 * `Object.create(null)` would be a hash table, and twenty times slower to read from.
 */
class Bag extends null {}

/**
 * Takes an options object apart once: a copy of its own enumerable properties without those that
 * are `undefined`. A name that is not among the `known` ones, where these are known, is a TypeError,
 * since a misspelt limit is no limit. A polluted `Object.prototype` sets no
 * option: the copy does not inherit from it.
 */
export function readOptions<T extends object>(
  where: string,
  options: T | undefined,
  known: ReadonlySet<string> | undefined,
): T {
  const copy = Object.create(Bag.prototype) as Record<string, unknown>;
  if (options === undefined) return copy as T;
  if (typeof options !== 'object' || options === null) {
    throw wrongKind(`options of ${where}`, 'an object', options);
  }
  for (const name of Object.keys(options)) {
    if (known !== undefined && !known.has(name)) throw unknownOption(where, name, known);
    const value = (options as Record<string, unknown>)[name];
    if (value !== undefined) copy[name] = value;
  }
  return copy as T;
}

/** The error for an option whose name is not among the `known` ones. */
export function unknownOption(where: string, name: string, known: ReadonlySet<string>): TypeError {
  const names = [...known].map((word) => `\`${word}\``).join(', ');
  return new TypeError(`Unknown option ${show(name)} of ${where}; it knows ${names}.`);
}

/** Throws when a numbered promise of the library does not hold: always on, so O(1) checks only. */
export function invariant(condition: boolean, id: string): asserts condition {
  if (!condition) throw new InvariantError(id);
}
