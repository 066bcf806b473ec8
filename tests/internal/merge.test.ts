import { describe, expect, it, vi } from 'vitest';

import { type Answerable, answered, tellAnswered } from '../../src/internal/answered.ts';
import { mergeContexts } from '../../src/internal/merge.ts';

const model = Object.assign((text: string) => text.length, { tokens: 5 });

class Base {
  get inherited(): string {
    return 'inherited';
  }
}

class Context extends Base {
  own = 1;
  #secret = 'secret';

  get secret(): string {
    return this.#secret;
  }

  get model(): typeof model {
    return model;
  }

  method(): string {
    return `${this.#secret} of ${this.own}`;
  }
}

describe('mergeContexts()', () => {
  it('is the only one where there is one', () => {
    const only = { a: 1 };
    expect(mergeContexts([only])).toBe(only);
  });

  it('has everything of all of them, that of later ones first', () => {
    const merged = mergeContexts([{ a: 1, b: 1 }, { b: 2, c: 2 }, { c: 3 }]) as Record<
      string,
      number
    >;
    expect([merged['a'], merged['b'], merged['c'], merged['d']]).toEqual([1, 2, 3, undefined]);
    expect(['a' in merged, 'c' in merged, 'd' in merged]).toEqual([true, true, false]);
    expect({ ...merged }).toEqual({ a: 1, b: 2, c: 3 });
    expect(Object.entries(merged)).toEqual([
      ['a', 1],
      ['b', 2],
      ['c', 3],
    ]);
  });

  it('has what a class has and inherits, without its constructor, and nothing of Object', () => {
    const merged = mergeContexts([new Context(), { last: true }]);
    expect(Object.keys(merged)).toEqual(['own', 'secret', 'model', 'method', 'inherited', 'last']);
    expect(merged).toMatchObject({ own: 1, secret: 'secret', inherited: 'inherited', last: true });
  });

  it('calls the methods of a class on what they are of, and those of Object on itself', () => {
    const merged = mergeContexts([new Context(), { own: 2 }]) as Pick<Context, 'method' | 'model'>;
    expect([merged.model, { ...merged }.model]).toEqual([model, model]);
    expect([merged.method(), { ...merged }.method()]).toEqual(['secret of 1', 'secret of 1']);
    // oxlint-disable-next-line no-prototype-builtins -- a context is asked in the ways of any object
    expect([merged.hasOwnProperty('secret'), merged.constructor]).toEqual([true, Object]);
  });

  it('hands out as they are: own functions, classes, values of a prototype, what a proxy has', () => {
    const own = (): number => 1;
    const context = Object.create({ kind: 'inherited' }) as object;
    const claims = new Proxy({}, { has: () => true, get: () => own });
    const merged = mergeContexts([context, new Context(), { own }]) as Record<string, unknown>;
    expect([merged['own'], merged['kind']]).toEqual([own, 'inherited']);
    expect(mergeContexts([{}, new Context()]).constructor).toBe(Context);
    expect(mergeContexts([{}, claims])).toHaveProperty('anything', own);
  });

  it('has what has no prototype', () => {
    const bare = Object.assign(Object.create(null) as object, { a: 1 });
    expect(Object.keys(mergeContexts([bare, {}]))).toEqual(['a']);
  });

  it('reads nothing before it is asked for, and then from its owner', () => {
    const read = vi.fn<() => number>(() => 5);
    const lazy = {
      get costly(): number {
        return read();
      },
    };
    const merged = mergeContexts([lazy, {}]) as { costly: number };
    expect('costly' in merged).toBe(true);
    expect(Object.keys(merged)).toEqual(['costly']);
    expect(read).not.toHaveBeenCalled();
    expect(merged.costly).toBe(5);
  });

  it('describes its properties as an object does, and those that it has not as none', () => {
    const merged = mergeContexts([{ a: 1 }, { b: 2 }]);
    expect(Object.getOwnPropertyDescriptor(merged, 'z')).toBeUndefined();
    expect(Object.getOwnPropertyDescriptor(merged, 'a')).toMatchObject({
      enumerable: true,
      configurable: true,
    });
    expect(Object.getOwnPropertyDescriptor(merged, 'b')!.get!()).toBe(2);
    expect(Object.hasOwn(merged, 'contexts')).toBe(false);
  });

  it('cannot be written to', () => {
    const first = { a: 1 };
    const merged = mergeContexts([first, {}]) as Record<string, number>;
    expect(() => (merged['a'] = 2)).toThrow(TypeError);
    expect(() => (merged['b'] = 2)).toThrow(TypeError);
    expect(Reflect.defineProperty(merged, 'c', { value: 1, configurable: true })).toBe(false);
    expect([first.a, 'b' in merged, 'c' in merged]).toEqual([1, false, false]);
  });

  it('passes on to all of them that the caller was answered, and shows no name for that', () => {
    const told: unknown[] = [];
    const context = (name: string): Answerable => ({
      [answered]: (ok, value) => told.push([name, ok, value]),
    });
    const merged = mergeContexts([context('a'), {}, mergeContexts([context('b'), { own: 1 }])]);
    tellAnswered([merged], true, 'value');
    expect(told).toEqual([
      ['a', true, 'value'],
      ['b', true, 'value'],
    ]);
    expect(Reflect.ownKeys(merged)).toEqual(['own']);
  });
});
