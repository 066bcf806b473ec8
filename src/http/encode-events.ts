import { handleOf, type StreamHandle } from '../internal/stream-handle.ts';
import type { StreamEvent, TokenStream } from '../token-streamer.ts';
import { Frames } from './frames.ts';
import { type EncodeOptions, readEncodeOptions } from './options.ts';

/**
 * A stream as text in one format, for a transport that the library does not know: chunks of whole
 * records, heartbeats included. It is the stream's reader: leaving the loop ends the stream. A
 * refusal is the `error` record here; where the format has none, the iterator throws.
 */
export function encodeEvents<T>(
  stream: TokenStream<T>,
  options?: EncodeOptions<NoInfer<T>>,
): AsyncIterableIterator<string> {
  const encoder = readEncodeOptions('encodeEvents', options);
  const handle = handleOf(stream);
  return new Chunks(handle, new Frames(handle, encoder));
}

class Chunks implements AsyncIterableIterator<string> {
  readonly #handle: StreamHandle<StreamEvent<unknown>>;
  readonly #frames: Frames;
  /** Calls are answered in their order. */
  #last: Promise<unknown> = Promise.resolve();
  #left = false;

  constructor(handle: StreamHandle<StreamEvent<unknown>>, frames: Frames) {
    this.#handle = handle;
    this.#frames = frames;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<string>> {
    const next = this.#last.then(() => this.#next());
    this.#last = next.catch(() => undefined);
    return next;
  }

  return(value?: unknown): Promise<IteratorResult<string>> {
    this.#left = true;
    this.#handle.end({
      outcome: 'cancelled',
      error: new DOMException('The stream is no longer read.', 'AbortError'),
    });
    return Promise.resolve({ done: true, value });
  }

  async throw(error?: unknown): Promise<IteratorResult<string>> {
    await this.return();
    throw error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  async #next(): Promise<IteratorResult<string>> {
    const chunk = this.#left ? undefined : await this.#frames.next();
    if (chunk !== undefined && !this.#left) return { done: false, value: chunk };
    if (this.#frames.untold !== undefined && !this.#left) {
      this.#left = true;
      throw this.#frames.untold.error;
    }
    return { done: true, value: undefined };
  }
}
