import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { ClosedError } from '../../src/errors.ts';
import { BoundedMetadata, type JsonValue } from '../../src/internal/metadata.ts';

const LIMITS = { maxMetadataBytes: 32, maxValueBytes: 16 };

function bytes(text: string): number {
  return new TextEncoder().encode(text).length;
}

describe('BoundedMetadata', () => {
  it('keeps values by key', () => {
    const metadata = new BoundedMetadata(LIMITS);
    metadata.set('a', 1);
    metadata.set('b', [true, null]);
    expect(metadata.get('a')).toBe(1);
    expect(metadata.get('b')).toEqual([true, null]);
    expect(metadata.get('c')).toBeUndefined();
    expect(metadata.size).toBe(2);
    expect(metadata.delete('a')).toBe(true);
    expect(metadata.delete('a')).toBe(false);
    expect(metadata.size).toBe(1);
  });

  it('takes a value of exactly the limit, in UTF-8 bytes, and none above it', () => {
    const metadata = new BoundedMetadata(LIMITS);
    metadata.set('k', '€'.repeat(5) + 'x');
    expect(() => metadata.set('k', '€'.repeat(5) + 'xx')).toThrow(
      expect.objectContaining({
        code: 'ERR_METADATA_TOO_LARGE',
        key: 'k',
        bytes: 17,
        maxBytes: 16,
        message: 'Metadata "k" would take 17 bytes of at most 16.',
      }) as Error,
    );
    expect(metadata.get('k')).toBe('€'.repeat(5) + 'x');
  });

  it('counts keys and values together, and gives back what is overwritten or deleted', () => {
    const metadata = new BoundedMetadata(LIMITS);
    metadata.set('aaaa', 'x'.repeat(12));
    metadata.set('bbbb', 'x'.repeat(12));
    expect(() => metadata.set('c', '')).toThrow(
      expect.objectContaining({ key: 'c', bytes: 33, maxBytes: 32 }) as Error,
    );
    expect(metadata.size).toBe(2);
    metadata.set('aaaa', 'x'.repeat(11));
    metadata.set('c', '');
    metadata.delete('bbbb');
    metadata.set('d', 'x'.repeat(15));
    expect(() => metadata.set('e', '')).toThrow(/would take 33 bytes of at most 32/);
  });

  it('counts anything but a string as its JSON', () => {
    const metadata = new BoundedMetadata(LIMITS);
    metadata.set('k', { a: [1, 2, 3, 4] });
    expect(() => metadata.set('k', { abc: [1, 2, 3, 4] })).toThrow(/17 bytes of at most 16/);
  });

  it.each(['__proto__', 'constructor', 'hasOwnProperty', '', '0', '\0', '\ud800'])(
    'takes %j for a key like any other',
    (key) => {
      const metadata = new BoundedMetadata(LIMITS);
      expect(metadata.get(key)).toBeUndefined();
      metadata.set(key, 'value');
      expect(metadata.get(key)).toBe('value');
      expect(({} as Record<string, unknown>)['value']).toBeUndefined();
      expect(metadata.delete(key)).toBe(true);
    },
  );

  it('keeps keys of a value such as __proto__ as keys (H288)', () => {
    const metadata = new BoundedMetadata({ maxMetadataBytes: 100, maxValueBytes: 100 });
    metadata.set('k', JSON.parse('{"__proto__":{"polluted":1}}') as JsonValue);
    expect(Object.keys(metadata.get('k') as object)).toEqual(['__proto__']);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it('keeps a frozen copy: later changes of the original are not seen (H288)', () => {
    const metadata = new BoundedMetadata(LIMITS);
    const original = { a: { b: 1 } };
    metadata.set('k', original);
    original.a.b = 2;
    const kept = metadata.get('k') as { a: { b: number } };
    expect(kept).toEqual({ a: { b: 1 } });
    expect(() => {
      kept.a.b = 3;
    }).toThrow(TypeError);
  });

  it('refuses what JSON cannot say by a TypeError that names the key', () => {
    const metadata = new BoundedMetadata(LIMITS);
    const cycle: unknown[] = [];
    cycle.push(cycle);
    const hostile = {
      toJSON: () => {
        throw new Error('hostile');
      },
    };
    const values = [undefined, () => {}, Symbol('s'), 1n, NaN, Infinity, cycle, hostile];
    for (const value of values) {
      expect(() => metadata.set('k\n', value as never)).toThrow(
        /^Expected metadata "k\\n" to be a JSON value, got a value of type \w+\.$/,
      );
    }
    expect(() => metadata.set(1 as never, 1)).toThrow(/`key`/);
    expect(metadata.size).toBe(0);
  });

  it('takes a value of 100 levels, and refuses a deeper one by a TypeError that names the key', () => {
    const metadata = new BoundedMetadata({ maxMetadataBytes: 1e6, maxValueBytes: 1e6 });
    const nested = (levels: number): JsonValue => {
      let value: JsonValue = 1;
      for (let level = 0; level < levels; level++) value = level % 2 === 0 ? [value] : { a: value };
      return value;
    };
    metadata.set('k', nested(100));
    expect(metadata.get('k')).toEqual(nested(100));
    for (const levels of [101, 2310, 3000]) {
      expect(() => metadata.set('k\n', nested(levels))).toThrow(
        new TypeError('Expected metadata "k\\n" to be nested at most 100 levels deep.'),
      );
    }
    expect(() => metadata.set('k\n', nested(100_000))).toThrow(/^Expected metadata "k\\n" to be/);
    expect(metadata.size).toBe(1);
  });

  it('says why a value could not be written, and no more than 64 characters of the key', () => {
    const metadata = new BoundedMetadata(LIMITS);
    const cause = new Error('hostile');
    const hostile = {
      toJSON: () => {
        throw cause;
      },
    };
    expect(() => metadata.set('k'.repeat(65), hostile as never)).toThrow(
      new TypeError(
        `Expected metadata "${'k'.repeat(64)}…" to be a JSON value, got a value of type object.`,
        { cause },
      ),
    );
  });

  it('names a key in one plain line, whatever is in it (H021, H157)', () => {
    const metadata = new BoundedMetadata(LIMITS);
    expect(() => metadata.set('a\u009b31m\u202e\u2028', 1n as never)).toThrow(
      String.raw`metadata "a\u{9b}31m\u{202e}\u{2028}" to be a JSON value`,
    );
  });

  it('counts right when a value sets others while it is being written', () => {
    const metadata = new BoundedMetadata(LIMITS);
    const sly = {
      toJSON: () => {
        metadata.set('other', 'x'.repeat(16));
        return 'x'.repeat(9);
      },
    };
    // 'other' takes 21 bytes, so that 12 more are too many.
    expect(() => metadata.set('k', sly as never)).toThrow(/bytes of at most 32/);
    expect(metadata.size).toBe(1);
  });

  it('counts nothing of what it has forgotten once closed', () => {
    const metadata = new BoundedMetadata({ maxMetadataBytes: 10, maxValueBytes: 9 });
    metadata.set('a', '123456789');
    metadata.close();
    expect(() => metadata.set('b', 'x')).toThrow(ClosedError);
  });

  it('forgets everything and takes nothing more once closed', () => {
    const metadata = new BoundedMetadata(LIMITS);
    metadata.set('k', 1);
    metadata.close();
    expect(metadata.get('k')).toBeUndefined();
    expect(metadata.size).toBe(0);
    expect(() => metadata.set('k', 1)).toThrow(new ClosedError('The session'));
  });

  test.prop([
    fc.array(
      fc.record({
        key: fc.oneof(fc.constantFrom('a', 'bb', '__proto__', 'ü'), fc.string({ maxLength: 8 })),
        value: fc.option(fc.oneof(fc.string({ unit: 'binary', maxLength: 12 }), fc.jsonValue()), {
          nil: undefined,
        }),
      }),
      { maxLength: 40 },
    ),
  ])('M3 never holds more than its limits, and otherwise does what a map does', (steps) => {
    const metadata = new BoundedMetadata(LIMITS);
    const model = new Map<string, unknown>();
    const size = (key: string, value: unknown): number =>
      bytes(key) + bytes(typeof value === 'string' ? value : JSON.stringify(value));
    for (const { key, value } of steps) {
      if (value === undefined) {
        expect(metadata.delete(key)).toBe(model.delete(key));
      } else {
        const next = new Map(model).set(key, value);
        const total = [...next].reduce((sum, [k, v]) => sum + size(k, v), 0);
        if (size('', value) > 16 || total > 32) {
          expect(() => metadata.set(key, value as JsonValue)).toThrow(/bytes of at most/);
        } else {
          metadata.set(key, value as JsonValue);
          model.set(key, value);
        }
      }
      expect(metadata.size).toBe(model.size);
      for (const [k, v] of model) {
        expect(JSON.stringify(metadata.get(k))).toBe(JSON.stringify(v));
      }
    }
  });
});
