import type { TaskContext } from '../gate.ts';
import { callable, positiveInteger, readOptions, withMethods } from './assert.ts';
import { Fifo } from './fifo.ts';
import { cleansUp, isThenable } from './source.ts';
import { tick } from './tick.ts';

/** Where a callback puts the tokens of a stream. */
export interface TokenSink<T> {
  /** Aborted when the stream is over, unless it completed: what makes the tokens should stop. */
  readonly signal: AbortSignal;
  /** Hands a token over. False, and without effect, when the stream is over already. */
  readonly push: (token: T) => boolean;
  /** No more tokens: those that were pushed are still read. The first of `end` and `fail` counts. */
  readonly end: () => void;
  /** The stream fails with this when what was pushed before has been read. */
  readonly fail: (error: unknown) => void;
  /** Resolves when everything that was pushed has been read, or the stream is over. */
  readonly ready: Promise<void>;
}

/** How far a callback may run ahead of who reads. */
export interface PushOptions {
  /**
   * How many tokens may wait to be read: a positive integer. A callback that pushes more, because it
   * cannot wait for `ready`, fails the stream. Default 1024.
   */
  readonly maxBuffered?: number | undefined;
}

/** The same, and which events of the emitter make the stream. */
export interface EmitterOptions extends PushOptions {
  /** The event whose first argument is a token. Default `'data'`. */
  readonly token?: string | undefined;
  /** The event after which there are no more tokens. Default `'end'`. */
  readonly end?: string | undefined;
  /** The event whose first argument is what the stream fails with. Default `'error'`. */
  readonly error?: string | undefined;
}

/** An emitter of Node, eventemitter3, and others alike. */
export interface TokenEmitter {
  /** Adds a listener. */
  on(event: string, listener: (argument: unknown) => void): unknown;
  /** Takes one off. */
  off(event: string, listener: (argument: unknown) => void): unknown;
}

const PUSH_OPTIONS = new Set(['maxBuffered']);
const EMITTER_OPTIONS = new Set(['maxBuffered', 'token', 'end', 'error']);

const nothing = (): void => {};

/**
 * A source for what calls back with tokens: `start` is called when the stream may start, and pushes.
 * What it returns, if anything, is called once when the stream is over, however it ended. The place at
 * the gate and `finished` wait for that, and for a `start` that still runs, `teardownGraceMs` at most;
 * what it fails with is the `teardownError`. What `start` throws, or rejects with, fails the stream.
 *
 * @example
 * ```ts
 * const source = fromCallback<string>(({ push, end, fail, signal }) => {
 *   const call = model.generate(prompt, { onToken: push, onDone: end, onError: fail });
 *   return () => call.cancel();
 * });
 * for await (const token of streamer.stream(source).tokens()) show(token);
 * ```
 */
export function fromCallback<T>(
  start: (sink: TokenSink<T>) => unknown,
  options?: PushOptions,
): (context: TaskContext) => AsyncIterable<T> {
  callable('start', start);
  const { maxBuffered = 1024 } = readOptions('fromCallback', options, PUSH_OPTIONS);
  const bound = positiveInteger('maxBuffered', maxBuffered);
  return ({ signal }) => new Pushed(start, bound, signal);
}

/**
 * A source for what emits tokens. The listeners are added when the stream may start and removed when
 * it is over; that for errors, where the emitter has not ended by itself, a turn after the abort.
 * Tokens that were emitted before are lost: give a function, which is called then, for an emitter that
 * starts by itself.
 */
export function fromEmitter<T>(
  emitter: TokenEmitter | ((context: TaskContext) => TokenEmitter),
  options?: EmitterOptions,
): (context: TaskContext) => AsyncIterable<T> {
  const given = readOptions('fromEmitter', options, EMITTER_OPTIONS);
  if (typeof emitter !== 'function') withMethods('emitter', emitter, 'on', 'off');
  const { maxBuffered, token = 'data', end = 'end', error = 'error' } = given;
  return fromCallback<T>(
    (sink) => {
      const from =
        typeof emitter === 'function'
          ? withMethods('emitter()', emitter({ signal: sink.signal }), 'on', 'off')
          : emitter;
      const push = sink.push as (argument: unknown) => void;
      let isOver = false;
      /** After it the emitter has no more to say. */
      const last = (tell: (argument: unknown) => void) => (argument: unknown) => {
        isOver = true;
        tell(argument);
      };
      const ended = last(sink.end);
      const failed = last(sink.fail);
      from.on(token, push);
      from.on(end, ended);
      from.on(error, failed);
      return async () => {
        from.off(token, push);
        from.off(end, ended);
        // What goes on, and is aborted, may fail, which would end the process if nobody heard it.
        if (!isOver) {
          await aborted(sink.signal);
          await tick();
        }
        from.off(error, failed);
      };
    },
    { maxBuffered },
  );
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

interface Asked<T> {
  resolve(result: IteratorResult<T>): void;
  reject(error: unknown): void;
}

/** What a callback pushes, for a reader that asks for one token at a time. */
class Pushed<T> implements AsyncIterableIterator<T> {
  readonly [cleansUp] = true;
  readonly #maxBuffered: number;
  readonly #tokens = new Fifo<T>();
  #asked: Asked<T> | undefined;
  #ending: { readonly error?: unknown } | undefined;
  #whenReady: (() => void)[] = [];
  /** When an asynchronous start has come to its end. */
  #started: Promise<void> | undefined;
  #cleanUp: unknown;
  /** When the clean-up has, if it was called. */
  #cleaned: Promise<void> | undefined;

  constructor(start: (sink: TokenSink<T>) => unknown, maxBuffered: number, signal: AbortSignal) {
    this.#maxBuffered = maxBuffered;
    const ready = (): Promise<void> => this.#ready();
    // Methods without a `this`, since they are passed on as callbacks.
    const cleanUp = start({
      signal,
      push: (token) => this.#push(token),
      end: () => this.#end({}),
      fail: (error) => this.#end({ error }),
      get ready() {
        return ready();
      },
    });
    if (isThenable(cleanUp)) {
      this.#started = Promise.resolve(cleanUp).then(
        (later) => this.#keep(later),
        (error: unknown) => this.#end({ error }),
      );
    } else {
      this.#keep(cleanUp);
    }
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<T>> {
    return new Promise((resolve, reject) => {
      const asked = { resolve, reject };
      if (this.#tokens.length > 0) {
        resolve({ done: false, value: this.#tokens.shift()! });
        if (this.#tokens.length === 0) this.#wake();
      } else if (this.#ending === undefined) {
        this.#asked = asked;
      } else {
        this.#tellEnd(asked);
      }
    });
  }

  async return(): Promise<IteratorResult<T>> {
    this.#tokens.clear();
    this.#end({});
    await this.#started;
    await this.#cleaned;
    return { done: true, value: undefined };
  }

  #push(token: T): boolean {
    if (this.#ending !== undefined) return false;
    const asked = this.#asked;
    if (asked !== undefined) {
      this.#asked = undefined;
      asked.resolve({ done: false, value: token });
      return true;
    }
    if (this.#tokens.length < this.#maxBuffered) {
      this.#tokens.push(token);
      return true;
    }
    const message = `More than ${this.#maxBuffered} tokens were pushed ahead of their reader.`;
    this.#end({ error: new RangeError(message) });
    return false;
  }

  #end(ending: { readonly error?: unknown }): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    const asked = this.#asked;
    this.#asked = undefined;
    if (asked !== undefined) this.#tellEnd(asked);
    this.#wake();
    this.#keep(this.#cleanUp);
  }

  #tellEnd(asked: Asked<T>): void {
    if ('error' in this.#ending!) asked.reject(this.#ending.error);
    else asked.resolve({ done: true, value: undefined });
  }

  #ready(): Promise<void> {
    if (this.#tokens.length === 0 || this.#ending !== undefined) return Promise.resolve();
    return new Promise((resolve) => this.#whenReady.push(resolve));
  }

  #wake(): void {
    const waiting = this.#whenReady;
    this.#whenReady = [];
    for (const resolve of waiting) resolve();
  }

  /** Keeps what is to be called at the end, or calls it where that has come. */
  #keep(cleanUp: unknown): void {
    this.#cleanUp = this.#ending === undefined ? cleanUp : undefined;
    if (this.#ending === undefined || typeof cleanUp !== 'function') return;
    // Neither who ends the stream nor the process is to blame for what it throws.
    this.#cleaned = (async () => void (await cleanUp()))();
    this.#cleaned.catch(nothing);
  }
}
