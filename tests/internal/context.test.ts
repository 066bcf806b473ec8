import { AsyncLocalStorage } from 'node:async_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { fc, test } from '@fast-check/vitest';
import { describe, expect, it, vi } from 'vitest';

import { captureContext, ContextValue, type InContext } from '../../src/internal/context.ts';

describe('captureContext()', () => {
  it('is not changed by what is run within it', () => {
    const storage = new AsyncLocalStorage<string>();
    const inContext = storage.run('mine', captureContext);
    const seen = inContext(() =>
      storage.run('theirs', () => [inContext(() => storage.getStore()), storage.getStore()]),
    );
    expect(seen).toEqual(['mine', 'theirs']);
  });
});

describe('ContextValue', () => {
  it('keeps nothing of the one before, be that under what others have put there', async () => {
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    const [mine, others] = [new ContextValue<object>(), new ContextValue<object>()];
    let before: WeakRef<object> | undefined;
    const enter = (): InContext => {
      const old = {};
      before = new WeakRef(old);
      return mine.run(old, () => others.run({}, () => mine.run({ new: true }, captureContext)));
    };
    const inside = enter();
    await new Promise((resolve) => void setImmediate(resolve));
    gc();
    expect(before!.deref()).toBeUndefined();
    expect(inside(() => [mine.get(), others.get()])).toEqual([{ new: true }, {}]);
  });

  it('takes the place of the one before, however often it is put there', () => {
    const values = [new ContextValue<number>(), new ContextValue<number>()];
    let inside = captureContext();
    for (let i = 0; i < 20_000; i++) {
      inside = inside(() => values[i % 2]!.run(i, captureContext));
    }
    expect(inside(() => values.map((value) => value.get()))).toEqual([19_998, 19_999]);
  });

  it('is there in what is called, and in what that goes on with', async () => {
    const value = new ContextValue<string>();
    expect(value.get()).toBeUndefined();
    const later = value.run('a', async () => {
      const now = value.get();
      await new Promise((resolve) => void setImmediate(resolve));
      return [now, value.get()];
    });
    expect(value.get()).toBeUndefined();
    expect(await later).toEqual(['a', 'a']);
  });

  test.prop([fc.array(fc.nat({ max: 3 }), { maxLength: 20 })])(
    'is what its owner put there last, whatever others did before and after',
    async (owners) => {
      const values = Array.from({ length: 4 }, () => new ContextValue<number>());
      const expected: (number | undefined)[] = values.map(() => undefined);
      const look = (): (number | undefined)[] => values.map((value) => value.get());
      async function enter(depth: number): Promise<void> {
        expect(look()).toEqual(expected);
        const owner = owners[depth];
        if (owner === undefined) return;
        const before = expected[owner];
        expected[owner] = depth;
        await values[owner]!.run(depth, async () => {
          await Promise.resolve();
          await enter(depth + 1);
        });
        expected[owner] = before;
        expect(look()).toEqual(expected);
      }
      await enter(0);
    },
  );

  it('is undefined where nobody has put a value into any context', async () => {
    vi.resetModules();
    const context = await import('../../src/internal/context.ts');
    expect(new context.ContextValue<string>().get()).toBeUndefined();
  });
});
