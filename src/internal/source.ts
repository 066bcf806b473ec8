/** Something that gives tokens one by one. */
export type Tokens<T> = Iterable<T | PromiseLike<T>> | AsyncIterable<T> | ReadableStream<T>;

/** What a stream can be made of. A function is called when the stream may start, not before. */
export type TokenSource<T, Context> =
  | Tokens<T>
  | PromiseLike<Tokens<T>>
  | ((context: Context) => Tokens<T> | PromiseLike<Tokens<T>>);

/** Under this name an iterator says that `return()` is something to wait for after its end too. */
export const cleansUp: unique symbol = Symbol('sluice.cleansUp');

/** The one way in which every kind of source is read. */
interface Cursor<T> {
  next(): PromiseLike<IteratorResult<T>> | IteratorResult<T>;
  readonly close: ((reason: unknown) => unknown) | undefined;
  readonly cleansUp?: boolean;
}

const nothing = (): void => {};

/**
 * Reads a source of any kind, and lets go of it.
 *
 * Keeps the rules of the iterator protocol that sources rely on: the iterator is fetched once; one
 * call of `next()` at a time and none after the end; `return()` once, and only where the source has
 * neither ended nor failed by itself.
 */
export class SourceReader<T, Context> {
  readonly #source: TokenSource<T, Context>;
  #opening: Promise<Cursor<T>> | undefined;
  #cursor: Cursor<T> | undefined;
  /** The call of `next()` that has not been answered. */
  #asked: PromiseLike<unknown> | undefined;
  #over = false;

  /** Throws a TypeError for what cannot be a source. */
  constructor(source: TokenSource<T, Context>) {
    if (typeof source !== 'function' && !isThenable(source)) kindOf(source);
    this.#source = source;
    if (isThenable(source)) {
      // It may fail before anybody asks, and then that is told when somebody does.
      this.#source = Promise.resolve(source);
      this.#source.then(undefined, nothing);
    }
  }

  /**
   * Hands all tokens to `take`, one by one; while what that returns is pending, the source is not
   * asked for more. Resolves at the end of the source or, some time, after `close`; rejects with
   * what the source fails with. To be called once.
   */
  async read(context: Context, take: (token: T) => Promise<void> | undefined): Promise<void> {
    try {
      const cursor = await this.#open(context);
      while (!this.#over) {
        const answer = cursor.next();
        if (isThenable(answer)) this.#asked = answer;
        const result = await answer;
        this.#asked = undefined;
        if (this.#over) return;
        // As loops do: what is no object is never done, and keeps everything else from its turn.
        if (typeof result !== 'object') {
          throw new TypeError('Expected `next()` of the source to give an object.');
        }
        if (result.done === true) {
          this.#over = true;
          return;
        }
        const full = take(result.value);
        if (full !== undefined) await full;
      }
    } catch (error) {
      this.#over = true;
      throw error;
    }
  }

  /** Whether there is nothing to let go of, since the source has ended or failed by itself. */
  get isGone(): boolean {
    return this.#over && this.#cursor?.cleansUp !== true;
  }

  /**
   * Lets go of the source. Resolves when it has: to the error that its `return()` failed with, if
   * any. Never rejects, but may never resolve: an async generator that is stuck in `next()` puts
   * `return()` behind it. Abort the source's signal before, and bound the wait.
   */
  async close(reason: unknown): Promise<unknown> {
    if (this.isGone) return undefined;
    this.#over = true;
    let cursor = this.#cursor;
    if (cursor === undefined) {
      // A function that was not called has nothing to let go of; all else may hold something.
      if (this.#opening === undefined && typeof this.#source === 'function') return undefined;
      try {
        cursor = await (this.#opening ?? this.#open(undefined as Context));
      } catch {
        return undefined;
      }
    }
    try {
      if (cursor.close === undefined) await this.#asked?.then(nothing, nothing);
      else await cursor.close(reason);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  #open(context: Context): Promise<Cursor<T>> {
    this.#opening = (async () => {
      const source = this.#source;
      const tokens = await (typeof source === 'function' ? source(context) : source);
      this.#cursor = cursorOf(tokens);
      return this.#cursor;
    })();
    return this.#opening;
  }
}

/** A promise, of whatever library. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    ((typeof value === 'object' && value !== null) || typeof value === 'function') &&
    typeof (value as { then?: unknown }).then === 'function'
  );
}

function kindOf(source: unknown): 'readable' | 'async' | 'sync' {
  if (typeof source === 'object' && source !== null) {
    if (typeof (source as ReadableStream).getReader === 'function') return 'readable';
    if (typeof (source as AsyncIterable<unknown>)[Symbol.asyncIterator] === 'function') {
      return 'async';
    }
    if (typeof (source as Iterable<unknown>)[Symbol.iterator] === 'function') return 'sync';
  }
  // A string would be read letter by letter, which nobody means.
  throw new TypeError(
    'Expected `source` to be an iterable other than a string, an async iterable or a ' +
      'ReadableStream, a promise of one or a function that returns one.',
  );
}

function cursorOf<T>(source: Tokens<T>): Cursor<T> {
  const kind = kindOf(source);
  if (kind === 'readable') return readableCursor(source as ReadableStream<T>);
  if (kind === 'async') return asyncCursor(source as AsyncIterable<T>);
  return syncCursor(source as Iterable<T | PromiseLike<T>>);
}

/**
 * A stream's own async iterator would put `return()` behind a `next()` that is pending; `cancel()`
 * of its reader ends that instead.
 */
function readableCursor<T>(stream: ReadableStream<T>): Cursor<T> {
  const reader = stream.getReader();
  return {
    next: () => reader.read() as Promise<IteratorResult<T>>,
    close: (reason) => reader.cancel(reason),
  };
}

function asyncCursor<T>(source: AsyncIterable<T>): Cursor<T> {
  const iterator = source[Symbol.asyncIterator]();
  return {
    next: () => iterator.next(),
    cleansUp: cleansUp in iterator,
    close:
      typeof iterator.return !== 'function'
        ? undefined
        : () => {
            const returned = iterator.return!();
            // The iterator of a Node stream waits for its `next()` as a generator does.
            if (isNodeStream(source)) source.destroy();
            return returned;
          },
  };
}

function isNodeStream(source: unknown): source is { destroy(): unknown } {
  const { destroy, pipe } = source as { destroy?: unknown; pipe?: unknown };
  return typeof destroy === 'function' && typeof pipe === 'function';
}

/** Waits for the tokens that are promises, and closes the iterator when one of them rejects. */
function syncCursor<T>(source: Iterable<T | PromiseLike<T>>): Cursor<T> {
  const iterator = source[Symbol.iterator]();
  let closed = typeof iterator.return !== 'function';
  const close = (): unknown => {
    if (closed) return undefined;
    closed = true;
    return iterator.return!();
  };
  return {
    next: () => {
      const result = iterator.next();
      if (result.done === true || !isThenable(result.value)) return result as IteratorResult<T>;
      return Promise.resolve(result.value).then(
        (value) => ({ done: false, value }),
        (error: unknown) => {
          try {
            close();
          } catch {
            // What it was closed for is what is told.
          }
          throw error;
        },
      );
    },
    close,
  };
}
