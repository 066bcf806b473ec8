import { EventEmitter } from 'node:events';

import { describe, expect, it, vi } from 'vitest';

import { fromCallback, fromEmitter, type TokenSink } from '../../src/internal/pushed.ts';
import { settle } from '../../src/testing.ts';

const context = { signal: new AbortController().signal };

/** A source that is open, and what its callback was given. */
function opened<T>(
  cleanUp?: unknown,
  maxBuffered?: number,
): { iterator: AsyncIterator<T>; sink: TokenSink<T> } {
  let sink!: TokenSink<T>;
  const source = fromCallback<T>(
    (given) => {
      sink = given;
      return cleanUp;
    },
    { maxBuffered },
  );
  return { iterator: source(context)[Symbol.asyncIterator](), sink };
}

describe('fromCallback()', () => {
  it('refuses bad arguments by name', () => {
    expect(() => fromCallback(1 as never)).toThrow(
      new TypeError('Expected `start` to be a function, got 1.'),
    );
    expect(() => fromCallback(() => {}, { maxBuffered: 0 })).toThrow(
      new RangeError('Expected `maxBuffered` to be a positive integer, got 0.'),
    );
    expect(() => fromCallback(() => {}, { max: 1 } as never)).toThrow(/max.*fromCallback/);
    expect(() => fromEmitter(new EventEmitter(), { max: 1 } as never)).toThrow(/max.*fromEmitter/);
  });

  it('holds 1024 tokens, and not one more, where nothing else is said', async () => {
    const { iterator, sink } = opened<number>();
    for (let i = 0; i < 1024; i++) expect(sink.push(i)).toBe(true);
    expect(sink.push(1024)).toBe(false);
    for (let i = 0; i < 1024; i++) expect(await iterator.next()).toEqual({ done: false, value: i });
    await expect(iterator.next()).rejects.toThrow(
      new RangeError('More than 1024 tokens were pushed ahead of their reader.'),
    );
  });

  it('does not count a token that somebody waits for', async () => {
    const { iterator, sink } = opened<string>(undefined, 1);
    const asked = iterator.next();
    expect([sink.push('a'), sink.push('b'), sink.push('c')]).toEqual([true, true, false]);
    expect(await asked).toEqual({ done: false, value: 'a' });
    expect(await iterator.next()).toEqual({ done: false, value: 'b' });
  });

  it('tells its end to whoever waits, and ever after', async () => {
    const { iterator, sink } = opened<string>();
    const asked = iterator.next();
    sink.end();
    expect(await asked).toEqual({ done: true, value: undefined });
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  it('tells its failure to whoever waits, undefined included', async () => {
    const { iterator, sink } = opened<string>();
    const asked = iterator.next();
    sink.fail(undefined);
    await expect(asked).rejects.toBeUndefined();
    await expect(iterator.next()).rejects.toBeUndefined();
  });

  it('is ready when nothing is left to read, or all is over, and not before', async () => {
    const { iterator, sink } = opened<string>();
    const seen: string[] = [];
    const wait = (name: string): void => void sink.ready.then(() => seen.push(name));
    wait('empty');
    await settle();
    expect(seen).toEqual(['empty']);
    sink.push('a');
    sink.push('b');
    wait('first');
    wait('second');
    await iterator.next();
    await settle();
    expect(seen).toEqual(['empty']);
    await iterator.next();
    await settle();
    expect(seen).toEqual(['empty', 'first', 'second']);
    sink.push('c');
    wait('end');
    sink.end();
    wait('after');
    await settle();
    expect(seen.slice(3)).toEqual(['end', 'after']);
  });

  it('ends once: what comes after its end changes nothing', async () => {
    const { iterator, sink } = opened<string>();
    sink.end();
    sink.fail(new Error('late'));
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    const failing = opened<string>();
    failing.sink.fail(new Error('broken'));
    failing.sink.end();
    await expect(failing.iterator.next()).rejects.toThrow(new Error('broken'));
  });

  it('drops what is left when it is returned, and is done', async () => {
    const cleanUp = vi.fn<() => void>();
    const { iterator, sink } = opened<string>(cleanUp);
    sink.push('a');
    expect(await iterator.return!()).toEqual({ done: true, value: undefined });
    expect(cleanUp).toHaveBeenCalledOnce();
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    expect(sink.push('b')).toBe(false);
    await iterator.return!();
    expect(cleanUp).toHaveBeenCalledOnce();
  });

  it('hands the signal of the stream on, and calls no clean-up that is none', async () => {
    const { iterator, sink } = opened<string>('not a function');
    expect(sink.signal).toBe(context.signal);
    await iterator.return!();
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });
});

describe('fromCallback(), asynchronous', () => {
  it('keeps the clean-up that comes later, and calls it at once where all is over', async () => {
    const cleanUp = vi.fn<() => void>();
    const early = opened<string>(Promise.resolve(cleanUp));
    await settle();
    early.sink.end();
    early.sink.end();
    expect(cleanUp).toHaveBeenCalledOnce();
    const late = opened<string>(settle().then(() => cleanUp));
    late.sink.end();
    expect(cleanUp).toHaveBeenCalledOnce();
    await settle();
    await settle();
    expect(cleanUp).toHaveBeenCalledTimes(2);
  });
});

describe('fromCallback(), asynchronous by a promise of another library', () => {
  it('keeps the clean-up, and fails with what it rejects with', async () => {
    const cleanUp = vi.fn<() => void>();
    const kept = opened<string>({ then: (resolve: (value: unknown) => void) => resolve(cleanUp) });
    await settle();
    kept.sink.end();
    expect(cleanUp).toHaveBeenCalledOnce();
    const failure = new Error('broken');
    const { iterator } = opened<string>({
      then: (_: unknown, reject: (error: unknown) => void) => reject(failure),
    });
    await expect(iterator.next()).rejects.toBe(failure);
  });
});

describe('fromCallback(), asynchronous, that fails', () => {
  it('fails the stream', async () => {
    const failure = new Error('broken');
    const { iterator } = opened<string>(Promise.reject(failure));
    await expect(iterator.next()).rejects.toBe(failure);
  });
});

describe('fromEmitter()', () => {
  it('asks a function for the emitter, with the signal of the stream', async () => {
    const emitter = new EventEmitter();
    const asked: unknown[] = [];
    const source = fromEmitter<string>((given) => {
      asked.push(given.signal);
      return emitter;
    });
    const iterator = source(context)[Symbol.asyncIterator]();
    emitter.emit('data', 'a');
    expect(await iterator.next()).toEqual({ done: false, value: 'a' });
    expect(asked).toEqual([context.signal]);
  });

  it('listens to data, end and error where nothing else is said', async () => {
    const emitter = new EventEmitter();
    const failure = new Error('broken');
    const iterator = fromEmitter<string>(emitter)(context)[Symbol.asyncIterator]();
    expect(emitter.eventNames()).toEqual(['data', 'end', 'error']);
    emitter.emit('data', 'a');
    emitter.emit('error', failure);
    expect(await iterator.next()).toEqual({ done: false, value: 'a' });
    await expect(iterator.next()).rejects.toBe(failure);
    expect(emitter.eventNames()).toEqual([]);
  });

  it('listens to events of any name', async () => {
    const emitter = new EventEmitter();
    const names = { token: 'line', end: 'close', error: 'oops' };
    const iterator = fromEmitter<string>(emitter, names)(context)[Symbol.asyncIterator]();
    expect(emitter.eventNames()).toEqual(['line', 'close', 'oops']);
    emitter.emit('line', 'a');
    emitter.emit('close');
    expect(await iterator.next()).toEqual({ done: false, value: 'a' });
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  it('holds no more than `maxBuffered`', async () => {
    const emitter = new EventEmitter();
    const iterator = fromEmitter<string>(emitter, { maxBuffered: 1 })(context)[
      Symbol.asyncIterator
    ]();
    emitter.emit('data', 'a');
    emitter.emit('data', 'b');
    await iterator.next();
    await expect(iterator.next()).rejects.toThrow(/More than 1 tokens/);
  });
});
