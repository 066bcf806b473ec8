import vm from 'node:vm';

import { afterEach, describe, expect, it } from 'vitest';

import { InvariantError } from '../../src/errors.ts';
import {
  abortSignal,
  callable,
  countOrInfinity,
  finite,
  flag,
  integerWithin,
  invariant,
  list,
  msOrInfinity,
  oneOf,
  positiveInteger,
  positiveMs,
  readOptions,
  text,
  withMethods,
} from '../../src/internal/assert.ts';

/** What is no number at all, though much of it could be made into one. */
const NO_NUMBERS: unknown[] = [
  undefined,
  null,
  '2',
  2n,
  true,
  new Date(2),
  { valueOf: () => 2 },
  [2],
  Symbol('2'),
  () => 2,
];

const checks = {
  positiveInteger: (value: unknown) => positiveInteger('size', value),
  countOrInfinity: (value: unknown) => countOrInfinity('size', value),
  integerWithin: (value: unknown) => integerWithin('size', value, 0, 5),
  finite: (value: unknown) => finite('size', value),
  positiveMs: (value: unknown) => positiveMs('size', value),
  msOrInfinity: (value: unknown) => msOrInfinity('size', value),
};

const MAX = Number.MAX_SAFE_INTEGER;
const numbers: [keyof typeof checks, good: number[], bad: number[]][] = [
  ['positiveInteger', [1, 2, MAX], [0, -0, -1, 1.5, MAX + 1, NaN, Infinity, -Infinity]],
  ['countOrInfinity', [0, 1, MAX, Infinity], [-1, 0.5, MAX + 1, NaN, -Infinity]],
  ['integerWithin', [0, 5], [-1, 6, 2.5, NaN, Infinity, -Infinity]],
  ['finite', [0, -1, 1.5, 1e300, -MAX], [NaN, Infinity, -Infinity]],
  ['positiveMs', [Number.MIN_VALUE, 0.5, 1e300], [0, -0, -1, NaN, Infinity, -Infinity]],
  ['msOrInfinity', [0, 0.5, 1e300, Infinity], [-Number.MIN_VALUE, -1, NaN, -Infinity]],
];

describe.each(numbers)('%s()', (name, good, bad) => {
  const check = checks[name];

  it('returns what is right', () => {
    for (const value of good) expect(check(value)).toBe(value);
  });

  it('throws a RangeError for a number that is not (H001, H002, H003, H004, H005, H006, H016)', () => {
    for (const value of bad) expect(() => check(value), String(value)).toThrow(RangeError);
  });

  it('throws a TypeError for what is no number, and makes none of it (H004)', () => {
    for (const value of NO_NUMBERS) expect(() => check(value)).toThrow(TypeError);
  });
});

describe.each(['countOrInfinity', 'integerWithin', 'msOrInfinity'] as const)('%s()', (name) => {
  it('makes 0 of -0 (H007)', () => {
    expect(checks[name](-0)).toBe(0);
  });
});

describe('oneOf(), callable(), text(), flag(), list()', () => {
  it('return what is right', () => {
    const fn = (): void => undefined;
    expect(oneOf('mode', 'shed', ['reject', 'shed'])).toBe('shed');
    expect(callable('task', fn)).toBe(fn);
    expect(text('id', '')).toBe('');
    const keys = Object.freeze(['a']);
    expect(list('keys', keys)).toBe(keys);
    expect([flag('raise', true), flag('raise', false)]).toEqual([true, false]);
  });

  it('throw a TypeError for everything else, numbers too', () => {
    for (const value of [undefined, null, 0, Number.NaN, 2n, true, {}, [], Symbol('id')]) {
      expect(() => oneOf('mode', value, ['reject', 'shed'])).toThrow(TypeError);
      expect(() => callable('task', value as never)).toThrow(TypeError);
      expect(() => text('id', value)).toThrow(TypeError);
    }
    expect(() => oneOf('mode', 'reject ', ['reject', 'shed'])).toThrow(TypeError);
    expect(() => callable('task', 'task' as never)).toThrow(TypeError);
    expect(() => text('id', () => 'id')).toThrow(TypeError);
    for (const value of [undefined, null, 0, 1, '', 'true', {}]) {
      expect(() => flag('raise', value)).toThrow(TypeError);
    }
    for (const value of [undefined, null, 0, 'keys', {}, { length: 0 }, new Set(['a'])]) {
      expect(() => list('keys', value)).toThrow(TypeError);
    }
  });
});

describe('abortSignal()', () => {
  it('takes signals of the platform, of another realm and of a polyfill (H064)', () => {
    const { signal } = new AbortController();
    const polyfill = { aborted: false, addEventListener() {}, removeEventListener() {} };
    const foreign: unknown = vm.runInNewContext('new Controller().signal', {
      Controller: AbortController,
    });
    for (const value of [signal, AbortSignal.abort(), polyfill, foreign]) {
      expect(abortSignal('signal', value)).toBe(value);
    }
  });

  it('throws a TypeError for anything else, such as the controller (H064)', () => {
    const bad = [
      ...NO_NUMBERS,
      5,
      {},
      new AbortController(),
      new EventTarget(),
      { aborted: false },
    ];
    for (const value of bad) expect(() => abortSignal('signal', value)).toThrow(TypeError);
  });

  it('throws one for what lacks a part of a signal (H064)', () => {
    const whole = { aborted: false, addEventListener() {}, removeEventListener() {} };
    expect(abortSignal('signal', whole)).toBe(whole);
    expect(() =>
      abortSignal(
        'signal',
        Object.assign(() => {}, whole),
      ),
    ).toThrow(TypeError);
    for (const part of Object.keys(whole)) {
      expect(() => abortSignal('signal', { ...whole, [part]: undefined }), part).toThrow(TypeError);
    }
    expect(() => abortSignal('signal', null)).toThrow(
      new TypeError('Expected `signal` to be an AbortSignal, got null.'),
    );
  });

  it('lets the error of a hostile signal through (H065)', () => {
    const signal = Object.defineProperty({}, 'aborted', {
      get: () => {
        throw new Error('hostile');
      },
    });
    expect(() => abortSignal('signal', signal)).toThrow('hostile');
  });
});

describe('withMethods()', () => {
  it('takes whatever has them, and gives it back', () => {
    class Gate {
      run(): void {}
    }
    const gate = new Gate();
    expect(withMethods('gate', gate, 'run')).toBe(gate);
    expect(withMethods('gate', gate)).toBe(gate);
  });

  it.each([
    [undefined, 'run'],
    [null, 'run'],
    [5, 'run'],
    ['gate', 'run'],
    [{}, 'run'],
    [{ run: 1, on() {} }, 'run'],
    [{ run() {} }, 'on'],
  ])('names the first that is not there (%#)', (value, missing) => {
    expect(() => withMethods('gate', value, 'run', 'on')).toThrow(
      new TypeError(`Expected \`gate\` to have a method \`${missing}\`.`),
    );
  });
});

describe('messages', () => {
  const messageFor = (value: unknown): string => {
    try {
      positiveInteger('capacity', value);
    } catch (error) {
      return (error as Error).message;
    }
    throw new Error('accepted');
  };

  it('name the option, what it should be and the value (H021)', () => {
    const shown: [unknown, string][] = [
      [0, '0'],
      [-0, '-0'],
      [1.5, '1.5'],
      [Number.NaN, 'NaN'],
      [-Infinity, '-Infinity'],
      [undefined, 'undefined'],
      [null, 'null'],
      [false, 'false'],
      [12n, '12n'],
      ['2', '"2"'],
      ['', '""'],
      [Symbol('secret'), 'a value of type symbol'],
      [['secret'], 'a value of type object'],
      [() => 'secret', 'a value of type function'],
    ];
    for (const [value, as] of shown) {
      expect(messageFor(value)).toBe(`Expected \`capacity\` to be a positive integer, got ${as}.`);
    }
    expect(() => integerWithin('priority', 9, 1, 5)).toThrow(
      'Expected `priority` to be an integer from 1 to 5, got 9.',
    );
    expect(() => oneOf('overflow', 'drop', ['reject', 'shed'])).toThrow(
      'Expected `overflow` to be one of "reject", "shed", got "drop".',
    );
  });

  it('say what each check expects', () => {
    const refusals: [check: () => unknown, expected: string][] = [
      [() => positiveInteger('it', ''), 'a positive integer'],
      [() => countOrInfinity('it', ''), 'a non-negative integer or Infinity'],
      [() => integerWithin('it', '', 0, 5), 'an integer from 0 to 5'],
      [() => finite('it', ''), 'a finite number'],
      [() => positiveMs('it', ''), 'a positive number of milliseconds'],
      [() => msOrInfinity('it', ''), 'a non-negative number of milliseconds or Infinity'],
      [() => callable('it', '' as never), 'a function'],
      [() => flag('it', ''), 'true or false'],
      [() => list('it', ''), 'an array'],
      [() => abortSignal('it', ''), 'an AbortSignal'],
    ];
    for (const [check, expected] of refusals) {
      expect(check).toThrow(new TypeError(`Expected \`it\` to be ${expected}, got "".`));
    }
    expect(() => text('it', 1)).toThrow(new TypeError('Expected `it` to be a string, got 1.'));
  });

  it('never call a method of the value (H015)', () => {
    const thrower = (): never => {
      throw new Error('called');
    };
    const hostile = {
      toString: thrower,
      valueOf: thrower,
      toJSON: thrower,
      [Symbol.toPrimitive]: thrower,
    };
    const proxy = new Proxy({}, { get: thrower, ownKeys: thrower, getPrototypeOf: thrower });
    for (const value of [hostile, proxy]) {
      expect(messageFor(value)).toContain('got a value of type object');
    }
  });

  it('are one line of bounded length (H021, H157)', () => {
    expect(messageFor('a\r\nb\u001B[31m')).toContain('got "a\\r\\nb\\u001b[31m".');
    expect(messageFor('x'.repeat(1e6))).toHaveLength(messageFor('').length + 65);
    expect(messageFor(10n ** 1000n).length).toBeLessThan(200);
  });
});

describe('readOptions()', () => {
  const KNOWN = new Set(['size', 'signal', '__proto__']);

  afterEach(() => {
    delete (Object.prototype as Record<string, unknown>)['size'];
  });

  it('copies what is set', () => {
    const given = { size: 3, signal: null };
    const read = readOptions('Thing', given, KNOWN);
    given.size = 4;
    expect(read).toEqual({ size: 3, signal: null });
  });

  it('takes undefined for absent: all of it, and each option (H009)', () => {
    expect(Object.keys(readOptions('Thing', undefined, KNOWN))).toEqual([]);
    expect(Object.keys(readOptions('Thing', { size: undefined, signal: 1 }, KNOWN))).toEqual([
      'signal',
    ]);
  });

  it('refuses what is no object', () => {
    for (const [value, as] of [
      [null, 'null'],
      [5, '5'],
      ['size', '"size"'],
      [true, 'true'],
      [() => 1, 'a value of type function'],
    ] as const) {
      expect(() => readOptions('Thing', value as never, KNOWN)).toThrow(
        new TypeError(`Expected \`options of Thing\` to be an object, got ${as}.`),
      );
    }
  });

  it('refuses an unknown name, even if it is undefined, and tells the known ones (H010)', () => {
    for (const sise of [1, undefined]) {
      expect(() => readOptions('Thing', { sise }, new Set(['size', 'signal']))).toThrow(
        new TypeError('Unknown option "sise" of Thing; it knows `size`, `signal`.'),
      );
    }
    expect(() => readOptions('Thing', { ['x\n'.repeat(99)]: 1 }, KNOWN)).toThrow(/"(?:x\\n){32}…"/);
    expect(() => readOptions('Thing', ['a'], KNOWN)).toThrow('Unknown option "0"');
  });

  it('takes any name where the known ones are not known', () => {
    expect(readOptions('Thing', { anything: 1 }, undefined)).toEqual({ anything: 1 });
  });

  it('reads each option once (H011)', () => {
    const reads: string[] = [];
    const options = {
      get size() {
        reads.push('size');
        return reads.length;
      },
      get signal() {
        reads.push('signal');
        return undefined;
      },
    };
    const read = readOptions('Thing', options, KNOWN);
    expect([read.size, read.size, read.signal]).toEqual([1, 1, undefined]);
    expect(reads).toEqual(['size', 'signal']);
  });

  it('lets the error of a getter through', () => {
    const options = {
      get size(): number {
        throw new Error('hostile');
      },
    };
    expect(() => readOptions('Thing', options, KNOWN)).toThrow('hostile');
  });

  it('takes frozen options and those without a prototype (H014)', () => {
    expect(readOptions('Thing', Object.freeze({ size: 1 }), KNOWN).size).toBe(1);
    const bare = Object.assign(Object.create(null) as object, { size: 2 });
    expect(readOptions('Thing', bare, KNOWN).size).toBe(2);
  });

  it('sees only own properties: a polluted prototype sets nothing (H013, H166)', () => {
    (Object.prototype as Record<string, unknown>)['size'] = 9;
    expect(readOptions<{ size?: number }>('Thing', {}, KNOWN).size).toBeUndefined();
    expect(readOptions<{ size?: number }>('Thing', undefined, KNOWN).size).toBeUndefined();
    const inherited = Object.create({ size: 3, unknown: 1 }) as { size?: number };
    expect(readOptions('Thing', inherited, KNOWN).size).toBeUndefined();
  });

  it('pays no attention to symbols', () => {
    expect(Reflect.ownKeys(readOptions('Thing', { [Symbol('a')]: 1, size: 1 }, KNOWN))).toEqual([
      'size',
    ]);
  });

  it('takes `__proto__` for a name like any other (H150)', () => {
    const options = JSON.parse('{"__proto__":{"size":9}}') as { size?: number };
    const read = readOptions('Thing', options, KNOWN);
    expect(Object.keys(read)).toEqual(['__proto__']);
    expect(read.size).toBeUndefined();
    expect(() => readOptions('Thing', options, new Set(['size']))).toThrow('"__proto__"');
  });
});

describe('invariant()', () => {
  it('throws the id of the promise that does not hold', () => {
    expect(() => invariant(true, 'S1')).not.toThrow();
    expect(() => invariant(false, 'S1')).toThrow(new InvariantError('S1'));
  });
});
