import { describe, expect, it } from 'vitest';

import { SourceReader } from '../../src/internal/source.ts';
import { settle } from '../../src/testing.ts';
import { catchUncaught } from '../support/uncaught.ts';

/** An iterator that records what is called and answers when it is told. */
function played(): {
  calls: string[];
  iterable: AsyncIterable<string>;
  answer: (result: IteratorResult<string> | Error) => Promise<void>;
} {
  const calls: string[] = [];
  let settleNext!: (result: IteratorResult<string> | Error) => void;
  const iterator: AsyncIterator<string> = {
    next() {
      calls.push('next');
      return new Promise((resolve, reject) => {
        settleNext = (result) => (result instanceof Error ? reject(result) : resolve(result));
      });
    },
    async return() {
      calls.push('return');
      return { done: true, value: undefined };
    },
  };
  return {
    calls,
    iterable: {
      [Symbol.asyncIterator]() {
        calls.push('iterator');
        return iterator;
      },
    },
    answer: async (result) => {
      settleNext(result);
      await settle();
    },
  };
}

const read = (reader: SourceReader<string, undefined>, taken: string[] = []): Promise<void> =>
  reader.read(undefined, (token) => void taken.push(token));

describe('SourceReader', () => {
  it('fetches the iterator once and asks for one token at a time', async () => {
    const { calls, iterable, answer } = played();
    const taken: string[] = [];
    const reading = read(new SourceReader(iterable), taken);
    await settle();
    expect(calls).toEqual(['iterator', 'next']);
    await answer({ done: false, value: 'a' });
    expect(calls).toEqual(['iterator', 'next', 'next']);
    await answer({ done: true, value: undefined });
    await reading;
    expect(taken).toEqual(['a']);
    expect(calls).toEqual(['iterator', 'next', 'next']);
  });

  it.each([5, 'a', undefined])(
    'fails where the answer is %j, which is never done',
    async (answer) => {
      for (const next of [() => answer, async () => answer]) {
        const source = { [Symbol.asyncIterator]: () => ({ next }) } as never;
        await expect(read(new SourceReader(source))).rejects.toThrow(
          new TypeError('Expected `next()` of the source to give an object.'),
        );
      }
    },
  );

  it('asks for no more while `take` is pending', async () => {
    const { calls, iterable, answer } = played();
    let go!: () => void;
    const reader = new SourceReader<string, undefined>(iterable);
    void reader.read(undefined, () => new Promise((resolve) => (go = resolve)));
    await settle();
    await answer({ done: false, value: 'a' });
    expect(calls).toEqual(['iterator', 'next']);
    go();
    await settle();
    expect(calls).toEqual(['iterator', 'next', 'next']);
  });

  it('takes nothing that is answered after it was closed, and asks for nothing', async () => {
    const { calls, iterable, answer } = played();
    const taken: string[] = [];
    const reader = new SourceReader<string, undefined>(iterable);
    const reading = read(reader, taken);
    await settle();
    await reader.close('enough');
    await answer({ done: false, value: 'late' });
    await reading;
    expect(taken).toEqual([]);
    expect(calls).toEqual(['iterator', 'next', 'return']);
  });

  it('asks for nothing when it was closed while `take` was pending', async () => {
    const { calls, iterable, answer } = played();
    let go!: () => void;
    const reader = new SourceReader<string, undefined>(iterable);
    const reading = reader.read(undefined, () => new Promise((resolve) => (go = resolve)));
    await settle();
    await answer({ done: false, value: 'a' });
    await reader.close('enough');
    go();
    await reading;
    expect(calls).toEqual(['iterator', 'next', 'return']);
  });

  it('calls return() of no source that has ended or failed, even a moment ago (H334)', async () => {
    for (const last of [{ done: true, value: undefined } as const, new Error('broken')]) {
      const { calls, iterable, answer } = played();
      const reader = new SourceReader<string, undefined>(iterable);
      const reading = read(reader).catch(() => 'failed');
      await settle();
      const answered = answer(last);
      // Two hops: the answer is read, and nobody has been told yet.
      await Promise.resolve();
      await Promise.resolve();
      await reader.close('enough');
      await answered;
      await reading;
      await reader.close('enough');
      expect(calls).toEqual(['iterator', 'next']);
    }
  });

  it('calls return() once, however often it is closed', async () => {
    const { calls, iterable } = played();
    const reader = new SourceReader<string, undefined>(iterable);
    await Promise.all([reader.close('enough'), reader.close('enough')]);
    await reader.close('enough');
    expect(calls).toEqual(['iterator', 'return']);
  });

  it('waits for the answer of an iterator that has no return()', async () => {
    let answer!: (result: IteratorResult<string>) => void;
    const reader = new SourceReader<string, undefined>({
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise<IteratorResult<string>>((resolve) => (answer = resolve)),
      }),
    });
    void read(reader);
    await settle();
    let closed = false;
    void reader.close('enough').then(() => (closed = true));
    await settle();
    expect(closed).toBe(false);
    answer({ done: false, value: 'late' });
    await settle();
    expect(closed).toBe(true);
  });

  it('waits for nothing where it has been answered, and nothing can be returned', async () => {
    const bare = (next: () => unknown): AsyncIterable<string> =>
      ({ [Symbol.asyncIterator]: () => ({ next }) }) as never;
    const full = new SourceReader<string, undefined>(bare(async () => ({ value: 'a' })));
    void full.read(undefined, () => new Promise(() => {}));
    await settle();
    expect(await full.close('enough')).toBeUndefined();
    // One that answers without a promise, which it should not.
    let closing: Promise<unknown> | undefined;
    const plain = new SourceReader<string, undefined>(
      bare(() => {
        queueMicrotask(() => void (closing = plain.close('enough')));
        return { value: 'a' };
      }),
    );
    await read(plain);
    expect(await closing).toBeUndefined();
  });

  it('lets go at once, and of what a function is still to bring when it comes', async () => {
    const open = played();
    const reading = new SourceReader<string, undefined>(open.iterable);
    void read(reading);
    await settle();
    void reading.close('enough');
    expect(open.calls).toEqual(['iterator', 'next', 'return']);
    const late = played();
    const { promise, resolve } = Promise.withResolvers<AsyncIterable<string>>();
    const opening = new SourceReader<string, undefined>(() => promise);
    void read(opening);
    const closed = opening.close('enough');
    resolve(late.iterable);
    expect(await closed).toBeUndefined();
    expect(late.calls).toEqual(['iterator', 'return']);
  });

  it('leaves no rejection unhandled of a promise that nobody has asked for', async () => {
    using uncaught = catchUncaught();
    const reader = new SourceReader<string, undefined>(Promise.reject(new Error('broken')));
    await settle();
    await settle();
    expect(uncaught.rejections).toEqual([]);
    await expect(read(reader)).rejects.toThrow(new Error('broken'));
  });

  it('takes what a generator returns for no token, be it a promise', async () => {
    const taken: string[] = [];
    const tokens = function* (): Generator<string, Promise<string>> {
      yield 'a';
      return Promise.resolve('b');
    };
    await read(new SourceReader<string, undefined>(tokens()), taken);
    expect(taken).toEqual(['a']);
  });

  it('returns a sync iterator once, though its token rejects when it was closed', async () => {
    const calls: string[] = [];
    const { promise, reject } = Promise.withResolvers<string>();
    const iterator = {
      next: () => ({ done: false, value: promise }),
      return: () => {
        calls.push('return');
        return { done: true, value: undefined };
      },
    };
    const reader = new SourceReader<string, undefined>({
      [Symbol.iterator]: () => iterator as never,
    });
    const reading = read(reader).catch(() => 'failed');
    await settle();
    await reader.close('enough');
    reject(new Error('late'));
    await reading;
    expect(calls).toEqual(['return']);
  });

  it('does not call a function only to close what it would return', async () => {
    let called = 0;
    const reader = new SourceReader<string, undefined>(() => [`${called++}`]);
    await reader.close('enough');
    expect(called).toBe(0);
  });

  it('calls `then` of a thenable once', async () => {
    let calls = 0;
    const thenable = {
      // oxlint-disable-next-line unicorn/no-thenable -- what is tested
      then(resolve: (tokens: string[]) => void) {
        calls++;
        resolve(['a']);
      },
    } as PromiseLike<string[]>;
    const taken: string[] = [];
    await read(new SourceReader<string, undefined>(thenable), taken);
    expect(taken).toEqual(['a']);
    expect(calls).toBe(1);
  });

  it.each([undefined, null, 5, 'text', {}, Symbol('a')])('refuses %o by name', (source) => {
    const refusal = new TypeError(
      'Expected `source` to be an iterable other than a string, an async iterable or a ' +
        'ReadableStream, a promise of one or a function that returns one.',
    );
    expect(() => new SourceReader(source as never)).toThrow(refusal);
  });

  it('takes a thenable function for a promise, and calls nothing else', async () => {
    const thenable = Object.assign(
      () => {
        throw new Error('called');
      },
      // oxlint-disable-next-line unicorn/no-thenable -- what is tested
      { then: (resolve: (tokens: string[]) => void) => resolve(['a']) },
    );
    const taken: string[] = [];
    await read(new SourceReader<string, undefined>(thenable as never), taken);
    expect(taken).toEqual(['a']);
  });

  it('destroys what is a Node stream, and nothing that is only like one', async () => {
    for (const [methods, destroyed] of [
      [['destroy', 'pipe'], 1],
      [['destroy'], 0],
      [['pipe'], 0],
    ] as const) {
      let calls = 0;
      const { calls: seen, iterable } = played();
      const like = Object.fromEntries(methods.map((name) => [name, () => void calls++]));
      const reader = new SourceReader<string, undefined>(Object.assign(iterable, like));
      void read(reader);
      await settle();
      expect(await reader.close('enough')).toBeUndefined();
      expect([seen, calls]).toEqual([['iterator', 'next', 'return'], destroyed]);
    }
  });

  it('closes with nothing to close: a sync iterator without return()', async () => {
    let rejected!: (error: unknown) => void;
    const bare = (): Iterable<Promise<string>> => ({
      [Symbol.iterator]: () => ({
        next: () => ({ done: false, value: new Promise((_, reject) => (rejected = reject)) }),
      }),
    });
    const failing = new SourceReader<string, undefined>(bare());
    const reading = read(failing);
    await settle();
    const failure = new Error('broken');
    rejected(failure);
    await expect(reading).rejects.toBe(failure);
    const left = new SourceReader<string, undefined>(bare());
    void read(left).catch(() => undefined);
    await settle();
    expect(await left.close('enough')).toBeUndefined();
  });

  it('cancels a ReadableStream with the reason, and tells what that fails with', async () => {
    const failure = new Error('broken');
    const reasons: unknown[] = [];
    const stream = new ReadableStream<string>({
      cancel(reason) {
        reasons.push(reason);
        throw failure;
      },
    });
    const reader = new SourceReader<string, undefined>(stream);
    void read(reader);
    await settle();
    expect(await reader.close('enough')).toBe(failure);
    expect(reasons).toEqual(['enough']);
  });

  it('has nothing to tell of a source that failed before it was opened', async () => {
    const reader = new SourceReader<string, undefined>(Promise.reject(new Error('broken')));
    expect(await reader.close('enough')).toBeUndefined();
  });

  it('calls a function with the context, and reads what it returns or resolves to', async () => {
    for (const source of [(given: string) => [given, 'b'], async (given: string) => [given, 'b']]) {
      const taken: string[] = [];
      const reader = new SourceReader<string, string>(source);
      await reader.read('context', (token) => void taken.push(token));
      expect(taken).toEqual(['context', 'b']);
      expect(await reader.close('late')).toBeUndefined();
    }
  });

  it('waits for tokens that are promises, and returns a sync iterator once', async () => {
    const failure = new Error('broken');
    const later = new Error('return');
    for (const [ending, calls] of [
      ['left', ['next', 'next', 'return']],
      ['rejected', ['next', 'next', 'return']],
      ['ended', ['next', 'next']],
    ] as const) {
      const seen: string[] = [];
      const iterator = {
        next: () => {
          seen.push('next');
          if (seen.length === 1) return { done: false, value: Promise.resolve('a') };
          if (ending === 'ended') return { done: true, value: undefined };
          if (ending === 'rejected') return { done: false, value: Promise.reject(failure) };
          return { done: false, value: new Promise<string>(() => {}) };
        },
        return: () => {
          seen.push('return');
          if (ending === 'rejected') throw later;
          return { done: true, value: undefined };
        },
      };
      const taken: string[] = [];
      const reader = new SourceReader<string, undefined>({
        [Symbol.iterator]: () => iterator as never,
      });
      const reading = read(reader, taken).catch((error: unknown) => error);
      await settle();
      expect(await reader.close('enough')).toBeUndefined();
      await reader.close('enough');
      expect([taken, seen]).toEqual([['a'], calls]);
      const failed = await Promise.race([reading, settle()]);
      expect(failed).toBe(ending === 'rejected' ? failure : undefined);
    }
  });

  it('tells what the return() of a sync iterator throws', async () => {
    const failure = new Error('return');
    const reader = new SourceReader<string, undefined>({
      [Symbol.iterator]: () => ({
        next: () => ({ done: false, value: new Promise<string>(() => {}) }) as never,
        return: () => {
          throw failure;
        },
      }),
    });
    void read(reader);
    await settle();
    expect(await reader.close('enough')).toBe(failure);
  });
});
