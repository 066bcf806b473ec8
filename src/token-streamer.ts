import type { Clock } from './clock.ts';
import type { Gate, TaskContext } from './gate.ts';
import {
  abortSignal,
  flag,
  msOrInfinity,
  positiveInteger,
  positiveMs,
  readOptions,
  unknownOption,
  withMethods,
} from './internal/assert.ts';
import { type AnyGate, type Ending, Feed } from './internal/feed.ts';
import { optionNames } from './internal/options.ts';
import {
  Outlet,
  type OutletSettings,
  shareSettings,
  type StreamEvent,
  type StreamReport,
} from './internal/outlet.ts';
import { Recorder } from './internal/replay.ts';
import type { TokenSource } from './internal/source.ts';
import { type StreamHandle, streamHandle } from './internal/stream-handle.ts';
import { type Summary, Tally } from './internal/tally.ts';
import { Time } from './internal/time.ts';

export type { StreamEvent, StreamReport } from './internal/outlet.ts';
export {
  type EmitterOptions,
  fromCallback,
  fromEmitter,
  type PushOptions,
  type TokenEmitter,
  type TokenSink,
} from './internal/pushed.ts';
export type { Tokens, TokenSource } from './internal/source.ts';
export type { Summary } from './internal/tally.ts';

/** Limits on time for every stream, and how far it is read ahead. */
export interface TokenStreamerOptions {
  /** How long a response stays silent before a sign of life is sent on it, in ms. Default 15 000. */
  readonly heartbeatMs?: number | undefined;
  /** The longest from the start of the source to its first token, in ms. Default Infinity. */
  readonly firstTokenTimeoutMs?: number | undefined;
  /** The longest between two tokens, in ms. An empty string is not a token here. Default Infinity. */
  readonly idleTimeoutMs?: number | undefined;
  /** The longest from the start of the source to its end, in ms. Default Infinity. */
  readonly timeoutMs?: number | undefined;
  /** How long a consumer may leave unread what there is to read, in ms. Default 120 000. */
  readonly stallMs?: number | undefined;
  /** How long a source may take to let go before the gate's place is given back, in ms. Default 1000. */
  readonly teardownGraceMs?: number | undefined;
  /** How many tokens are read ahead of the consumer at most: a positive integer. Default 16. */
  readonly highWaterMark?: number | undefined;
  /** Whether consumers are told the message of an error that is not of this library. Default false. */
  readonly exposeErrors?: boolean | undefined;
  readonly clock?: Clock | undefined;
}

/** The options of one stream: its own and those of its gate. */
export type StreamOptions<Context extends TaskContext, Options extends object> = {
  /** What admits the stream. The place is held from the first read to the end of the source. */
  readonly gate: Gate<Context, Options>;
  /** Ends the stream, whether it waits or flows. */
  readonly signal?: AbortSignal | undefined;
} & NoInfer<Options>;

/** How far one stream has come. Times are undefined until they are known. */
export interface StreamStats {
  /** Tokens handed to the consumer, and tokens read ahead of it. */
  readonly tokens: number;
  readonly buffered: number;
  readonly waitedMs: number | undefined;
  readonly timeToFirstTokenMs: number | undefined;
  /** The times between tokens, in ms, without those in which the source was not asked for any. */
  readonly gapMs: Summary;
}

/** A gauge now, and counters since construction. */
export interface TokenStreamerStats {
  /** Streams that have not ended, those that were never read included. */
  readonly active: number;
  /** How many ended in each way since construction. */
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
  readonly disconnected: number;
  readonly timeout: number;
  /** Ended streams whose source had not let go within `teardownGraceMs`. */
  readonly abandoned: number;
  /** Tokens handed to consumers by streams that have ended. */
  readonly tokens: number;
  readonly waitMs: Summary;
  readonly timeToFirstTokenMs: Summary;
}

/**
 * One answer on its way: an async iterable of its events, for one reader.
 *
 * Nothing happens before the first read: not even the gate is entered. Who makes a stream reads it
 * or cancels it.
 */
export interface TokenStream<T> extends AsyncIterable<StreamEvent<T>> {
  /** @internal */
  readonly [streamHandle]: () => StreamHandle<StreamEvent<T>>;
  /** The events, the last of which is `done` or `error`. Leaving the loop ends the stream. */
  [Symbol.asyncIterator](): AsyncIterableIterator<StreamEvent<T>>;
  /** The values of the tokens alone; throws what the stream failed with. */
  tokens(): AsyncIterableIterator<T>;
  /** Ends it now: what was not read is lost. False where it had ended. */
  cancel(reason?: unknown): boolean;
  /**
   * `count` streams of the same events in the place of this one, each with a reader, a buffer and an
   * end of its own. The slowest of them holds the others up, and is let go of when it reads nothing
   * for `stallMs`. The source is let go of with the last. To be called before the first read.
   */
  tee(count: number): TokenStream<T>[];
  /**
   * Keeps what the stream tells, for clients who come again after their connection broke, in the
   * place of this stream. To be called before the first read.
   */
  replay(options?: ReplayOptions): Replay<T>;
  /**
   * Resolves when the stream has ended and has let go of source and gate, of all the gates of a
   * composed one. Never rejects.
   */
  readonly finished: Promise<StreamReport>;
  /** How far it has come, and what is buffered. */
  stats(): StreamStats;
}

/** How much of a stream is kept, and for how long. */
export interface ReplayOptions {
  /** How many tokens are kept: the latest. Default 10 000. */
  readonly maxTokens?: number | undefined;
  /** How long the stream goes on, and what it told is kept, while nobody reads. Default 60 000 ms. */
  readonly graceMs?: number | undefined;
}

/** A stream whose clients may come again. */
export interface Replay<T> {
  /**
   * What comes after the event with that id (the `Last-Event-ID` of a request), or everything where
   * there is none; as often as asked. Where that is no longer kept, or was never told, the stream
   * fails with `ERR_REPLAY_EXPIRED`; where the client has seen the end, there is nothing to read.
   */
  from(lastEventId?: string | null): TokenStream<T>;
  /**
   * Resolves when nobody has read for `graceMs`, the stream is ended and nothing is kept; and at once where
   * the gate refused the stream before there was a place in line, so that the next one asks it again.
   */
  readonly expired: Promise<void>;
}

const REPLAY_OPTIONS = new Set(['maxTokens', 'graceMs']);
const OPTIONS = new Set([
  'heartbeatMs',
  'firstTokenTimeoutMs',
  'idleTimeoutMs',
  'timeoutMs',
  'stallMs',
  'teardownGraceMs',
  'highWaterMark',
  'exposeErrors',
  'clock',
]);
const OWN_STREAM_OPTIONS = ['gate', 'signal'];

/**
 * Makes streams of tokens out of whatever gives tokens, and lets go of everything however they end.
 *
 * With a `gate` a stream holds its place from its first read to the end of its source: it tells its
 * position while it waits, and gives the place back at the end, at an error, when it is cancelled,
 * when its client is gone or reads nothing for `stallMs`. A source that is a function is called when
 * the gate lets it through, with the gate's context and a `signal` of its own: pass that on to
 * whatever makes the tokens. A source that does not react to its signal nor to `return()` loses its
 * place all the same, `teardownGraceMs` later.
 *
 * An end from outside (cancel, signal, time limit) is told at once and what was not read is lost;
 * what the source fails with is told after its tokens.
 *
 * @example
 * ```ts
 * const streamer = new TokenStreamer({ firstTokenTimeoutMs: 30_000 });
 * const stream = streamer.stream(({ signal }) => callModel.stream(prompt, { signal }), { gate: queue });
 * for await (const event of stream) show(event);
 * ```
 *
 * - T1  Every token of the source is told once, in order, to a consumer that reads to the end.
 * - T2  At most `highWaterMark` tokens are read ahead of the consumer.
 * - T3  The last event is `done` or `error`, there is exactly one of these, and none follows it.
 * - T4  However a stream ends, its source's signal is aborted unless the source completed, `return()`
 *     is called once unless the source ended or failed by itself, and the gate's place is given back
 *     within `teardownGraceMs`, even if the source never answers.
 * - T5  `finished` never rejects.
 * - T6  The source is called, read and closed in the async context of the caller of `stream()`, and in
 *     that of its session where the gate is, or has in it, a `SessionManager`.
 */
export class TokenStreamer {
  readonly #settings: OutletSettings;
  #active = 0;
  #abandoned = 0;
  #tokens = 0;
  readonly #outcomes = { completed: 0, failed: 0, cancelled: 0, disconnected: 0, timeout: 0 };
  readonly #waitMs = new Tally();
  readonly #timeToFirstTokenMs = new Tally();

  /** Throws a `TypeError` or a `RangeError` that names a bad option. */
  constructor(options?: TokenStreamerOptions) {
    const given = readOptions('TokenStreamer', options, OPTIONS);
    const {
      heartbeatMs = 15_000,
      firstTokenTimeoutMs = Infinity,
      idleTimeoutMs = Infinity,
    } = given;
    const { timeoutMs = Infinity, stallMs = 120_000, teardownGraceMs = 1000 } = given;
    const { highWaterMark = 16, exposeErrors = false } = given;
    this.#settings = shareSettings(new Time(given.clock), {
      heartbeatMs: timeLimit('heartbeatMs', heartbeatMs),
      firstTokenTimeoutMs: timeLimit('firstTokenTimeoutMs', firstTokenTimeoutMs),
      idleTimeoutMs: timeLimit('idleTimeoutMs', idleTimeoutMs),
      timeoutMs: timeLimit('timeoutMs', timeoutMs),
      stallMs: timeLimit('stallMs', stallMs),
      teardownGraceMs: msOrInfinity('teardownGraceMs', teardownGraceMs),
      highWaterMark: positiveInteger('highWaterMark', highWaterMark),
      exposeErrors: flag('exposeErrors', exposeErrors),
    });
  }

  /**
   * A stream of what `source` gives, to be read once. Throws a `TypeError` for what cannot be a
   * source, for an unknown option and for a gate without `run`; everything else that goes wrong is
   * an `error` event of the stream.
   */
  stream<T>(
    source: TokenSource<T, TaskContext>,
    options?: { readonly gate?: undefined; readonly signal?: AbortSignal | undefined },
  ): TokenStream<T>;
  /**
   * The same behind a gate: a source that is a function is called when the gate lets the stream
   * through, with the gate's context. The other options are the gate's.
   */
  stream<T, Context extends TaskContext, Options extends object>(
    source: TokenSource<T, NoInfer<Context>>,
    options: StreamOptions<Context, Options>,
  ): TokenStream<T>;
  stream<T>(source: TokenSource<T, never>, options?: object): TokenStream<T> {
    const { gate, signal, ...gateOptions } = readStreamOptions(options);
    const feed = new Feed<T>(
      this.#settings,
      source as TokenSource<T, object>,
      gate,
      gateOptions,
      signal,
    );
    const outlet = new Outlet(this.#settings, feed);
    this.#active++;
    void outlet.finished.then((report) => this.#count(report));
    return new Stream(outlet, feed);
  }

  /** Counters since construction and gauges now, as a plain object. O(1). */
  stats(): TokenStreamerStats {
    return {
      active: this.#active,
      ...this.#outcomes,
      abandoned: this.#abandoned,
      tokens: this.#tokens,
      waitMs: this.#waitMs.summary(),
      timeToFirstTokenMs: this.#timeToFirstTokenMs.summary(),
    };
  }

  #count(report: StreamReport): void {
    this.#active--;
    this.#outcomes[report.outcome]++;
    if (report.abandoned) this.#abandoned++;
    this.#tokens += report.tokens;
    if (report.waitedMs !== undefined) this.#waitMs.add(report.waitedMs);
    if (report.timeToFirstTokenMs !== undefined) {
      this.#timeToFirstTokenMs.add(report.timeToFirstTokenMs);
    }
  }
}

class Stream<T> implements TokenStream<T> {
  readonly #outlet: Outlet<T>;
  readonly #feed: Feed<T>;
  #claimed = false;
  /** What is read in its place. */
  #parts: Iterable<Pick<TokenStream<T>, 'cancel'>> | undefined;

  constructor(outlet: Outlet<T>, feed: Feed<T>) {
    this.#outlet = outlet;
    this.#feed = feed;
  }

  get finished(): Promise<StreamReport> {
    return this.#outlet.finished;
  }

  /** @internal */
  [streamHandle](): StreamHandle<StreamEvent<T>> {
    this.#claim();
    return this.#outlet;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<StreamEvent<T>> {
    this.#claim();
    return new Reader(this.#outlet, (event) => ({ done: false, value: event }));
  }

  tokens(): AsyncIterableIterator<T> {
    this.#claim();
    const outlet = this.#outlet;
    outlet.onlyTokens();
    return new Reader<T, T>(outlet, (event) => {
      if (event.type === 'token') return { done: false, value: event.value };
      if (event.type === 'error') throw outlet.ending!.error;
      return { done: true, value: undefined };
    });
  }

  cancel(reason: unknown = new DOMException('The stream was cancelled.', 'AbortError')): boolean {
    if (this.#parts === undefined) return this.#outlet.end({ outcome: 'cancelled', error: reason });
    // Not the source: where it is a branch itself, the others go on.
    return [...this.#parts].map((part) => part.cancel(reason)).includes(true);
  }

  tee(count: number): TokenStream<T>[] {
    positiveInteger('count', count);
    this.#claim();
    const branches = this.#outlet.split(count).map((outlet) => new Stream(outlet, this.#feed));
    this.#parts = branches;
    this.#outlet.retire();
    return [...branches];
  }

  replay(options?: ReplayOptions): Replay<T> {
    const given = readOptions('replay', options, REPLAY_OPTIONS);
    const { maxTokens = 10_000, graceMs = 60_000 } = given;
    positiveInteger('maxTokens', maxTokens);
    positiveMs('graceMs', graceMs);
    this.#claim();
    const recorder = new Recorder(this.#outlet, this.#feed, maxTokens, graceMs);
    const parts = new Set<Pick<TokenStream<T>, 'cancel'>>([recorder]);
    this.#parts = parts;
    this.#outlet.retire();
    return {
      expired: recorder.expired,
      from: (lastEventId) => {
        const reader = new Stream(recorder.from(lastEventId || undefined), this.#feed);
        parts.add(reader);
        void reader.finished.then(() => parts.delete(reader));
        return reader;
      },
    };
  }

  stats(): StreamStats {
    const { waitedMs, timeToFirstTokenMs, gapMs } = this.#feed.figures;
    const { taken, buffered } = this.#outlet;
    return { tokens: taken, buffered, waitedMs, timeToFirstTokenMs, gapMs };
  }

  #claim(): void {
    if (this.#claimed) throw new TypeError('The stream is being read already: it has one reader.');
    this.#claimed = true;
  }
}

/**
 * Written by hand since a generator would keep `return()` waiting behind a `next()` that the source
 * does not answer. Several `next()` at once are answered in their order.
 */
class Reader<T, V> implements AsyncIterableIterator<V> {
  readonly #outlet: Outlet<T>;
  readonly #convert: (event: StreamEvent<T>) => IteratorResult<V>;

  constructor(outlet: Outlet<T>, convert: (event: StreamEvent<T>) => IteratorResult<V>) {
    this.#outlet = outlet;
    this.#convert = convert;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<V>> {
    const event = await this.#outlet.next();
    return event === undefined ? { done: true, value: undefined } : this.#convert(event);
  }

  /** Ends the stream and resolves when it has let go, at most `teardownGraceMs` later. */
  async return(value?: unknown): Promise<IteratorResult<V>> {
    this.#outlet.leave(left());
    await this.#outlet.finished;
    return { done: true, value };
  }

  /** As `return`, but rejects with `error`. */
  async throw(error?: unknown): Promise<IteratorResult<V>> {
    await this.return();
    throw error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}

function left(): Ending {
  return {
    outcome: 'cancelled',
    error: new DOMException('The stream is no longer read.', 'AbortError'),
  };
}

interface ReadStreamOptions extends Readonly<Record<string, unknown>> {
  readonly gate?: AnyGate;
  readonly signal?: AbortSignal;
}

function readStreamOptions(options: object | undefined): ReadStreamOptions {
  const given: ReadStreamOptions = readOptions('stream', options, undefined) as ReadStreamOptions;
  const { gate, signal } = given;
  if (gate !== undefined) withMethods('gate', gate, 'run');
  if (signal !== undefined) abortSignal('signal', signal);
  // A gate that is not of ours may understand anything.
  if (gate !== undefined && gate[optionNames] === undefined) return given;
  const known = new Set([...OWN_STREAM_OPTIONS, ...(gate?.[optionNames] ?? [])]);
  const unknown = Object.keys(options ?? {}).find((name) => !known.has(name));
  if (unknown !== undefined) throw unknownOption('stream', unknown, known);
  return given;
}

/** Infinity is no limit. */
function timeLimit(name: string, value: unknown): number {
  return value === Infinity ? value : positiveMs(name, value);
}
