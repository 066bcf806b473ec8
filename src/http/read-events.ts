/**
 * Reads in browsers and Node what `sluice/http` sends.
 *
 * @module sluice/read-events
 */

import { createParser, type EventSourceMessage } from 'eventsource-parser';

import type { StreamEvent } from '../token-streamer.ts';
import { parseRetryAfter } from './retry-after.ts';

/** What a client reads: the events of the stream, but for `error`, which is thrown. */
export type ReadEvent<T> = Exclude<StreamEvent<T>, { readonly type: 'error' }>;

/** A refusal is a few hundred bytes; what is longer than this is none of ours. */
const MAX_REFUSAL_LENGTH = 64 * 1024;

/** The answer was refused, failed, or was cut off: what there is of it is not the whole. */
export class ReadError extends Error {
  override readonly name = 'ReadError';
  /**
   * What the server says: the code of its refusal or of its `error` event. `ERR_STREAM_CUT` where the
   * events end, or the connection breaks, before the last one; `ERR_NOT_EVENTS` where the answer is
   * something else, such as the error page of a proxy.
   */
  readonly code: string;
  /** The status of the response. */
  readonly status: number;
  /** After how many ms it makes sense to ask again, where the server says so. */
  readonly retryAfterMs: number | undefined;
  /** How long the line was that had no room, in ms, where the server says so. */
  readonly estimatedWaitMs: number | undefined;

  constructor(
    message: string,
    data: {
      readonly code: string;
      readonly status: number;
      readonly retryAfterMs?: number | undefined;
      readonly estimatedWaitMs?: number | undefined;
    },
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = data.code;
    this.status = data.status;
    this.retryAfterMs = data.retryAfterMs;
    this.estimatedWaitMs = data.estimatedWaitMs;
  }
}

/**
 * The events of a stream that `pipeToResponse` or `toResponse` sends in the format `events`, for
 * browsers and Node: `position`, `start`, `token`, and `done` as the last. A loop that ends by itself
 * has seen the whole answer; everything else is thrown: a refusal, an `error` event and an answer that
 * was cut off as a `ReadError`, an abort of the request as what the platform makes of it: the reason of
 * the signal, or an `AbortError` in Chromium. Events of other names and signs of life are left out.
 *
 * Nothing is read before the first `next()`. Leaving the loop cancels the body, which ends the stream
 * on the server. Throws a TypeError for what is no response, or is being read already.
 *
 * Needs `eventsource-parser`, an optional peer dependency.
 *
 * @example
 * ```ts
 * for await (const event of readEvents(await fetch('/answer', { method: 'POST', body, signal }))) {
 *   if (event.type === 'position') showPlace(event.position);
 *   if (event.type === 'token') append(event.value);
 * }
 * ```
 */
export function readEvents<T = string>(response: Response): AsyncIterableIterator<ReadEvent<T>> {
  if (typeof (response as Partial<Response> | undefined)?.headers?.get !== 'function') {
    throw new TypeError('Expected `response` to be a Response, such as fetch resolves to.');
  }
  return new EventReader(response);
}

class EventReader<T> implements AsyncIterableIterator<ReadEvent<T>> {
  readonly #response: Response;
  readonly #body: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #utf8 = new TextDecoder();
  readonly #parser = createParser({ onEvent: (message) => this.#take(message) });
  /** What has come and was not asked for yet, the latest first: a chunk may be all of it at once. */
  readonly #events: (StreamEvent<T> | ReadError)[] = [];
  #isOpen = false;
  #isOver = false;
  /** Calls are answered in their order. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(response: Response) {
    this.#response = response;
    this.#body = response.body?.getReader();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<ReadEvent<T>>> {
    const next = this.#last.then(() => this.#next());
    this.#last = next.catch(() => undefined);
    return next;
  }

  /** Cancels the body at once, also while a `next()` waits for it. */
  return(value?: unknown): Promise<IteratorResult<ReadEvent<T>>> {
    this.#cancel();
    return Promise.resolve({ done: true, value });
  }

  async throw(error?: unknown): Promise<IteratorResult<ReadEvent<T>>> {
    await this.return();
    throw error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  async #next(): Promise<IteratorResult<ReadEvent<T>>> {
    try {
      if (!this.#isOpen && !this.#isOver) await this.#open();
      while (!this.#isOver) {
        const event = this.#events.pop();
        if (event === undefined) {
          const text = await this.#read();
          if (text !== undefined) {
            this.#parser.feed(text);
            this.#events.reverse();
          } else if (!this.#isOver) throw this.#cut();
        } else if (event instanceof ReadError) {
          throw event;
        } else if (event.type === 'error') {
          this.#finish();
          throw this.#error(event.message, event);
        } else {
          if (event.type === 'done') this.#finish();
          return { done: false, value: event };
        }
      }
    } catch (error) {
      this.#cancel();
      throw error;
    }
    return { done: true, value: undefined };
  }

  /** It is the content type that tells an answer from a refusal: a status can be had in any. */
  async #open(): Promise<void> {
    this.#isOpen = true;
    const { headers, status } = this.#response;
    const contentType = headers.get('content-type') ?? '';
    if (/^text\/event-stream *(?:;|$)/i.test(contentType)) return;
    const refusal = /^application\/json *(?:;|$)/i.test(contentType)
      ? refusalOf(await this.#readRefusal())
      : undefined;
    if (this.#isOver) return;
    if (refusal !== undefined) throw this.#error(refusal.message, refusal);
    throw this.#error(
      `Expected an event stream, got an answer with status ${status} and ` +
        `${contentType === '' ? 'no content type' : `content type ${contentType}`}.`,
      { code: 'ERR_NOT_EVENTS' },
    );
  }

  #take({ event: type, data }: EventSourceMessage): void {
    switch (type) {
      case 'position':
      case 'start':
      case 'token':
      case 'done':
      case 'error': {
        try {
          this.#events.push({ ...JSON.parse(data), type } as StreamEvent<T>);
        } catch (cause) {
          const message = `Expected the data of an event \`${type}\` to be JSON.`;
          this.#events.push(this.#error(message, { code: 'ERR_NOT_EVENTS' }, { cause }));
        }
        break;
      }
      default:
    }
  }

  /** The next piece of text, which may be empty; undefined at the end. */
  async #read(): Promise<string | undefined> {
    try {
      const result = await this.#body?.read();
      return result?.value && this.#utf8.decode(result.value, { stream: true });
    } catch (error) {
      // So fetch says that the connection broke. Anything else is what the caller aborted it with.
      throw error instanceof TypeError ? this.#cut({ cause: error }) : error;
    }
  }

  async #readRefusal(): Promise<string> {
    let all = '';
    for (let text = await this.#read(); text !== undefined; text = await this.#read()) {
      all += text;
      if (all.length > MAX_REFUSAL_LENGTH) return '';
    }
    return all;
  }

  /** All is told. What is left of the body is its end, after which the connection can be used again. */
  #finish(): void {
    this.#isOver = true;
    void (async () => {
      while ((await this.#read()) !== undefined);
    })().catch(() => undefined);
  }

  #cancel(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#body?.cancel().catch(() => undefined);
  }

  #cut(options?: ErrorOptions): ReadError {
    const message = 'The answer was cut off before its end.';
    return this.#error(message, { code: 'ERR_STREAM_CUT' }, options);
  }

  #error(
    message: string,
    data: {
      readonly code: string;
      readonly retryAfterMs?: number | undefined;
      readonly estimatedWaitMs?: number | undefined;
    },
    options?: ErrorOptions,
  ): ReadError {
    const { status, headers } = this.#response;
    const { code, estimatedWaitMs, retryAfterMs = parseRetryAfter(headers) } = data;
    return new ReadError(message, { code, status, retryAfterMs, estimatedWaitMs }, options);
  }
}

interface RefusalBody {
  readonly code: string;
  readonly message: string;
  readonly retryAfterMs?: number;
  readonly estimatedWaitMs?: number;
}

/** What `toHttpError` puts into a body. */
function refusalOf(json: string): RefusalBody | undefined {
  try {
    const { error } = JSON.parse(json) as { error: Partial<RefusalBody> };
    return typeof error.code === 'string' && typeof error.message === 'string'
      ? (error as RefusalBody)
      : undefined;
  } catch {
    return undefined;
  }
}
