import type { Clock } from '../clock.ts';
import type { Gate, RunOptions, TaskContext } from '../gate.ts';
import {
  abortSignal,
  callable,
  msOrInfinity,
  readOptions,
  withMethods,
} from '../internal/assert.ts';
import { type AnyGate, Feed, type FeedSettings } from '../internal/feed.ts';
import { Outlet, shareSettings } from '../internal/outlet.ts';
import { Time } from '../internal/time.ts';
import { parseRateLimitHeaders } from './rate-limit-headers.ts';
import { parseRetryAfter } from './retry-after.ts';

type Fetch = typeof fetch;
type FetchInput = Parameters<Fetch>[0];
type FetchInit = Parameters<Fetch>[1];

/** What is needed of a `RateLimiter`. */
export interface UpstreamLimiter {
  /** Holds every grant for so many milliseconds. */
  pause(ms: number): void;
  /** Takes over what is left, by the names of the limits. */
  sync(counts: never): void;
  /** Tells which limits there are. */
  stats(): { readonly limits: readonly { readonly name: string | undefined }[] };
}

/**
 * What is fetched with, what the gate is told of each request, what upstream limits are told to.
 */
export interface GateFetchOptions<Options extends object> {
  /** What is called when the gate lets a request through. Default: the global one. */
  readonly fetch?: Fetch | undefined;
  /** The gate's options, or what makes them of the arguments of each call. */
  readonly options?: Options | ((input: FetchInput, init: FetchInit) => Options) | undefined;
  /**
   * What is told of the upstream's own limits: `Retry-After` of a 429 or 503 pauses it, the counts in
   * its rate-limit headers are taken over where the limiter has a limit of that name. One limit
   * without a name gets the count of requests. It may take part in the gate or not.
   */
  readonly limiter?: UpstreamLimiter | undefined;
  /** How long a body may be left unread while there is something to read, in ms. Default 120 000. */
  readonly stallMs?: number | undefined;
  /** How long a request may take to let go after its abort, in ms. Default 1000. */
  readonly teardownGraceMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

const OPTIONS = new Set(['fetch', 'options', 'limiter', 'stallMs', 'teardownGraceMs', 'clock']);

/**
 * A `fetch` behind a gate, for clients that take one: `openai`, `@anthropic-ai/sdk`, the providers of
 * `ai`. A request holds its place from the moment when the gate lets it through until its body has
 * arrived, failed, been cancelled, or been left unread for `stallMs`; then the request is aborted and
 * reading on fails with `ERR_STREAM_TIMEOUT`.
 *
 * The request's own `signal` ends the wait too, and so does one among the gate's options. The promise
 * rejects as the gate and `fetch` do. A client that retries enters the gate once more for each attempt;
 * its own time limit runs while it waits there.
 *
 * @example
 * ```ts
 * import OpenAI from 'openai';
 *
 * const client = new OpenAI({ fetch: gateFetch(queue, { options: { priority: 2 } }) });
 * ```
 */
export function gateFetch<Context extends TaskContext, Options extends object>(
  gate: Gate<Context, Options>,
  options?: GateFetchOptions<NoInfer<Options>>,
): Fetch {
  withMethods('gate', gate, 'run');
  const given = readOptions('gateFetch', options, OPTIONS);
  const { stallMs = 120_000, teardownGraceMs = 1000 } = given;
  if (given.fetch !== undefined) callable('fetch', given.fetch);
  const settings = shareSettings(new Time(given.clock), {
    stallMs: msOrInfinity('stallMs', stallMs),
    teardownGraceMs: msOrInfinity('teardownGraceMs', teardownGraceMs),
    heartbeatMs: Infinity,
    firstTokenTimeoutMs: Infinity,
    idleTimeoutMs: Infinity,
    timeoutMs: Infinity,
    highWaterMark: 2,
    exposeErrors: false,
  });
  return (input, init) =>
    new Promise((resolve, reject) => {
      const optionsOf = given.options;
      const gateOptions = typeof optionsOf === 'function' ? optionsOf(input, init) : optionsOf;
      // Null is none, as `fetch` takes it. A `fetch` of its own may have a `Request` of its own.
      const { signal = (input as Partial<Request>).signal } = init ?? {};
      const also = (gateOptions as RunOptions | undefined)?.signal;
      if (also !== undefined) abortSignal('signal', also);
      let answered = false;
      const request = async (context: TaskContext): Promise<Chunks> => {
        const response = await (given.fetch ?? fetch)(input, { ...init, signal: context.signal });
        if (given.limiter !== undefined) tellLimits(given.limiter, response);
        resolve(response.body === null ? response : held(response, outlet));
        answered = true;
        if (response.body !== null) return response.body;
        void outlet.next();
        return [];
      };
      const feed = new Feed<Uint8Array<ArrayBuffer>>(
        settings,
        request as () => Promise<Chunks>,
        gate as unknown as AnyGate,
        { ...gateOptions },
        signal ?? undefined,
      );
      if (also !== undefined) heed(also, feed, settings);
      const outlet = new Outlet(settings, feed);
      outlet.onlyTokens();
      outlet.ready(() => {
        if (answered) return;
        outlet.take();
        reject(outlet.ending!.error);
      });
    });
}

function tellLimits(limiter: UpstreamLimiter, { status, headers }: Response): void {
  const counts = parseRateLimitHeaders(headers) ?? {};
  const names = limiter.stats().limits.map(({ name }) => name);
  if (names[0] === undefined) {
    const requests = counts['requests'] ?? counts['default'];
    if (requests !== undefined) limiter.sync(requests as never);
  } else {
    const known = Object.entries(counts).filter(([name]) => names.includes(name));
    if (known.length > 0) limiter.sync(Object.fromEntries(known) as never);
  }
  if (status === 429 || status === 503) limiter.pause(parseRetryAfter(headers) ?? 0);
}

/** The signal among the gate's options, which the request's own does not replace. */
function heed(signal: AbortSignal, feed: Feed<unknown>, { signals }: FeedSettings): void {
  if (signal.aborted) {
    feed.aborted(signal.reason);
  } else {
    signals.add(signal, feed);
    void feed.gone.then(() => signals.remove(signal, feed));
  }
}

type Chunks = ReadableStream<Uint8Array<ArrayBuffer>> | [];

/** The response with its body read through the outlet, so that the place is held as long. */
function held(response: Response, outlet: Outlet<Uint8Array<ArrayBuffer>>): Response {
  const body = new ReadableStream({
    type: 'bytes',
    async pull(controller) {
      // There is one: after the last of them nothing is pulled any more.
      let event = (await outlet.next())!;
      // A stream of bytes takes no empty chunk.
      while (event.type === 'token' && event.value.byteLength === 0) event = (await outlet.next())!;
      if (event.type === 'token') {
        try {
          // A copy: the stream takes the memory of its chunks away, and small Buffers share theirs.
          controller.enqueue(Uint8Array.prototype.slice.call(event.value));
        } catch (error) {
          outlet.end({ outcome: 'failed', error });
          throw error;
        }
      } else if (event.type === 'error') {
        controller.error(outlet.ending!.error);
      } else {
        controller.close();
        controller.byobRequest?.respond(0);
      }
    },
    cancel(reason) {
      outlet.end({ outcome: 'cancelled', error: reason });
    },
  });
  return likeIt(withBody(response, body), response);
}

/** What the constructor does not take, or makes anew, as it was; in copies of the copy as well. */
function likeIt(copy: Response, response: Response): Response {
  for (const name of ['ok', 'redirected', 'status', 'statusText', 'type', 'url'] as const) {
    Object.defineProperty(copy, name, { value: response[name] });
  }
  const clone = (): Response => likeIt(Response.prototype.clone.call(copy), response);
  return Object.defineProperty(copy, 'clone', { value: clone });
}

/** Servers may say what the constructor does not take: a status of 999, a reason beyond Latin-1. */
function withBody(response: Response, body: ReadableStream): Response {
  try {
    return new Response(body, response);
  } catch {
    return new Response(body, { headers: response.headers });
  }
}
