import { ClosedError, MetadataTooLargeError } from '../errors.ts';
import { text } from './assert.ts';
import { quote } from './quote.ts';
import { utf8Length } from './text.ts';

/** What JSON can say. */
export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

export interface MetadataLimits {
  readonly maxMetadataBytes: number;
  readonly maxValueBytes: number;
}

/** What a session knows about its request, by key. Bounded, and gone when the session has ended. */
export interface SessionMetadata {
  /** How many keys there are. */
  readonly size: number;
  /** The value of `key`, frozen; undefined where there is none. */
  get(key: string): JsonValue | undefined;
  /**
   * Keeps a copy of `value` as it is now. Throws, and leaves everything as it was:
   * `ERR_METADATA_TOO_LARGE` over a limit, `ERR_CLOSED` when the session has ended, a `TypeError`
   * for what JSON cannot say, or what is nested deeper than 100 levels.
   */
  set(key: string, value: JsonValue): void;
  /** Whether there was such a key. */
  delete(key: string): boolean;
}

/** The deepest that a value may be nested: going through it takes as much of the stack. */
const MAX_LEVELS = 100;

interface Entry {
  readonly value: JsonValue;
  readonly bytes: number;
}

/**
 * A map with a limit on the UTF-8 bytes of each value and of all keys and values together. A string
 * counts as itself, any other value as its JSON. Values are frozen copies: one that could be changed
 * afterwards would have no bound, and one object in two sessions would join them.
 */
export class BoundedMetadata implements SessionMetadata {
  readonly #limits: MetadataLimits;
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #closed = false;

  constructor(limits: MetadataLimits) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): JsonValue | undefined {
    return this.#entries.get(key)?.value;
  }

  set(key: string, value: JsonValue): void {
    const { maxMetadataBytes, maxValueBytes } = this.#limits;
    const json = toJson(text('key', key), value);
    const valueBytes = utf8Length(typeof value === 'string' ? value : json);
    if (valueBytes > maxValueBytes) throw new MetadataTooLargeError(key, valueBytes, maxValueBytes);
    const bytes = utf8Length(key) + valueBytes;
    const total = this.#bytes + bytes - (this.#entries.get(key)?.bytes ?? 0);
    if (total > maxMetadataBytes) throw new MetadataTooLargeError(key, total, maxMetadataBytes);
    const copy = frozen(key, JSON.parse(json) as JsonValue, MAX_LEVELS);
    if (this.#closed) throw new ClosedError('The session');
    this.#entries.set(key, { value: copy, bytes });
    this.#bytes = total;
  }

  delete(key: string): boolean {
    this.#bytes -= this.#entries.get(key)?.bytes ?? 0;
    return this.#entries.delete(key);
  }

  /** Forgets everything and takes nothing more. */
  close(): void {
    this.#closed = true;
    this.#entries.clear();
    this.#bytes = 0;
  }
}

function toJson(key: string, value: unknown): string {
  let json: string | undefined;
  let cause: unknown;
  try {
    if (typeof value !== 'number' || Number.isFinite(value)) json = JSON.stringify(value);
  } catch (error) {
    cause = error;
  }
  if (json !== undefined) return json;
  const what = `Expected metadata ${quote(key)} to be a JSON value`;
  throw new TypeError(`${what}, got a value of type ${typeof value}.`, { cause });
}

function frozen(key: string, value: JsonValue, levels: number): JsonValue {
  if (typeof value !== 'object' || value === null) return value;
  if (levels === 0) {
    const what = `Expected metadata ${quote(key)} to be nested`;
    throw new TypeError(`${what} at most ${MAX_LEVELS} levels deep.`);
  }
  for (const part of Object.values(value)) frozen(key, part, levels - 1);
  return Object.freeze(value);
}
