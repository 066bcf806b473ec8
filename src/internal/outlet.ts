import { type SluiceError, StreamTimeoutError } from '../errors.ts';
import { AbortWatch } from './abort.ts';
import { type Deadline, Deadlines } from './deadlines.ts';
import type { Due, Ending, Feed, FeedFigures, FeedSettings, Sink } from './feed.ts';
import { Fifo } from './fifo.ts';
import { isOurs } from './ours.ts';
import { Pacer } from './pacer.ts';
import type { Time } from './time.ts';

/** What a consumer of a stream reads, in this order: positions, `start`, tokens, one of the rest. */
export type StreamEvent<T> =
  | {
      readonly type: 'position';
      /** 1 is the next to start. */
      readonly position: number;
      readonly estimatedWaitMs: number | undefined;
    }
  | { readonly type: 'start' }
  | { readonly type: 'token'; readonly value: T; readonly index: number }
  | {
      readonly type: 'error';
      /** Of an error of this library its own; else `ERR_STREAM_FAILED` or `ERR_STREAM_CANCELLED`. */
      readonly code: string;
      readonly message: string;
      readonly retryAfterMs?: number | undefined;
    }
  | { readonly type: 'done'; readonly tokens: number; readonly elapsedMs: number };

/** How a stream went, once all is let go of. */
export interface StreamReport extends Ending, FeedFigures {
  /** How many tokens were handed to the consumer. */
  readonly tokens: number;
  /** From the first read to the end, the wait at the gate included; 0 where it was never read. */
  readonly elapsedMs: number;
}

export interface OutletSettings extends FeedSettings {
  /** For what nobody waits for: it does not keep the process alive. */
  readonly housekeeping: Deadlines<Due>;
  readonly heartbeatMs: number;
  readonly stallMs: number;
  readonly highWaterMark: number;
  readonly exposeErrors: boolean;
}

function tell(due: readonly Due[], now: number): void {
  for (const subject of due) subject.due(now);
}

/** Settings with one timer, one for housekeeping, and one listener a signal for all that share them. */
export function shareSettings(
  time: Time,
  own: Omit<OutletSettings, 'time' | 'deadlines' | 'housekeeping' | 'signals' | 'moves'>,
): OutletSettings {
  return {
    ...own,
    time,
    deadlines: new Deadlines(time, tell),
    housekeeping: new Deadlines(time, tell, true),
    signals: new AbortWatch((subjects, reason) => {
      for (const subject of subjects) subject.aborted(reason);
    }),
    moves: new Pacer(time, (subject) => subject.moved()),
  };
}

/** What an outlet begins with that takes part later than the feed began. */
export interface Origin<T> {
  /** Of the first token that it tells. */
  readonly index: number;
  readonly tokens: readonly T[];
  readonly hasMoved: boolean;
  readonly isStartDue: boolean;
  /** How it ends, where that is certain. */
  readonly last: Ending | undefined;
  /** Whether all has been told already, the end included. */
  readonly isOver: boolean;
  /** Whether its readers may come again, and so have to know the ids of its events. */
  readonly hasIds: boolean;
}

type Waiting<T> = (event: StreamEvent<T> | undefined) => void;

/**
 * Where one consumer reads what a feed brings: a bounded buffer of tokens in front of which the
 * latest position and the start, and after which the end, each wait to be told once.
 *
 * A consumer that reads nothing for `stallMs` while there is something to read is let go of.
 */
export class Outlet<T> implements Sink<T>, Due {
  readonly settings: OutletSettings;
  readonly hasIds: boolean;
  readonly #feed: Feed<T>;
  readonly #tokens = new Fifo<T>();
  #moved = false;
  #position = 0;
  #startDue = false;
  /** How it ends, while that is to be told: after the tokens. */
  #last: Ending | undefined;
  #ending: Ending | undefined;
  #elapsedMs = 0;
  #firstIndex = 0;
  /** Of the next token that is told. */
  #index = 0;
  #tokensOnly = false;
  #hasLeft = false;

  #waiting: Waiting<T>[] = [];
  #onReady: (() => void) | undefined;
  #onStop: (() => void) | undefined;
  /** Since when something waits to be read; Infinity while nothing does. */
  #unreadSince = Infinity;
  #stall: Deadline | undefined;

  #resolveFinished!: (report: StreamReport) => void;
  readonly finished: Promise<StreamReport> = new Promise((resolve) => {
    this.#resolveFinished = resolve;
  });

  constructor(settings: OutletSettings, feed: Feed<T>, origin?: Origin<T>) {
    this.settings = settings;
    this.#feed = feed;
    this.hasIds = origin?.hasIds ?? false;
    if (origin === undefined) {
      if (feed.ending === undefined) feed.attach(this);
      else this.stopped(feed.ending);
      return;
    }
    feed.attach(this);
    for (const token of origin.tokens) this.#tokens.push(token);
    this.#moved = origin.hasMoved;
    this.#startDue = origin.isStartDue;
    this.#last = origin.last;
    this.#firstIndex = origin.index;
    this.#index = origin.index;
    if (origin.isOver) this.leave(origin.last!);
    else this.#wake();
  }

  /** Where it begins, while nothing of it has been read. */
  get origin(): Origin<T> {
    return {
      index: this.#index,
      tokens: this.#tokens.slice(),
      hasMoved: this.#moved,
      isStartDue: this.#startDue,
      last: this.#last,
      isOver: false,
      hasIds: this.hasIds,
    };
  }

  /** Outlets that begin where this one does. */
  split(count: number): Outlet<T>[] {
    const { origin } = this;
    return Array.from({ length: count }, () => {
      const outlet = new Outlet(this.settings, this.#feed, origin);
      if (this.#ending !== undefined) outlet.end(this.#ending);
      return outlet;
    });
  }

  /** Others take part in its place: from now on its `finished` tells how the source went. */
  retire(): void {
    if (this.#ending !== undefined) return;
    this.#tokens.clear();
    this.#feed.release(this);
    void this.#feed.gone.then((ending) => {
      this.#index = this.#feed.brought;
      this.#conclude(ending);
    });
  }

  /** How it ended, as soon as that is certain, be all of it read or not. */
  get ending(): Ending | undefined {
    return this.#ending;
  }

  get taken(): number {
    return this.#index - this.#firstIndex;
  }

  get buffered(): number {
    return this.#tokens.length;
  }

  get hasRoom(): boolean {
    return this.#tokens.length < this.settings.highWaterMark;
  }

  /** Positions and the start are not told. To be called before the first read. */
  onlyTokens(): void {
    this.#tokensOnly = true;
    // What there is of them already, since others have begun to read before.
    this.#moved = false;
    this.#startDue = false;
    if (this.#isEmpty()) this.#unreadSince = Infinity;
  }

  /** The next event, if there is one now. */
  take(): StreamEvent<T> | undefined {
    const event = this.#shift();
    this.#unreadSince = this.#isEmpty() ? Infinity : this.settings.time.now();
    return event;
  }

  /** The next event; undefined when there is none any more. Starts the stream. */
  next(): Promise<StreamEvent<T> | undefined> {
    this.#feed.start(!this.#tokensOnly);
    const event = this.take();
    if (event !== undefined || this.#ending !== undefined) return Promise.resolve(event);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Calls back once `take` has something, or nothing ever again: at once if so now. Starts too. */
  ready(callback: () => void): void {
    this.#feed.start(!this.#tokensOnly);
    if (this.#isEmpty() && this.#ending === undefined) this.#onReady = callback;
    else callback();
  }

  /** Calls back when it is ended from outside, so that what is being sent need not be waited for. */
  onStop(callback: () => void): void {
    this.#onStop = callback;
  }

  /** Ends it for this consumer, who is told so if it reads on. False where it had ended. */
  end(ending: Ending): boolean {
    if (this.#ending !== undefined) return false;
    this.stopped(ending);
    this.#feed.detach(this, ending);
    return true;
  }

  /** The consumer walks away: as `end`, but there is nobody to be told. */
  leave(ending: Ending): void {
    this.#hasLeft = true;
    if (!this.end(ending)) this.#last = undefined;
  }

  moved(): void {
    if (this.#tokensOnly) return;
    this.#moved = true;
    this.#wake();
  }

  admitted(): void {
    if (this.#tokensOnly) return;
    this.#startDue = true;
    this.#wake();
  }

  token(value: T): void {
    this.#tokens.push(value);
    this.#wake();
  }

  ended(ending: Ending): void {
    this.#last = ending;
    this.#wake();
  }

  stopped(ending: Ending): void {
    this.#moved = false;
    this.#startDue = false;
    this.#tokens.clear();
    this.#last = this.#hasLeft ? undefined : ending;
    this.#conclude(ending);
    this.#wake();
    this.#onStop?.();
  }

  due(now: number): void {
    const { stallMs, deadlines } = this.settings;
    this.#stall = undefined;
    if (this.#unreadSince === Infinity) return;
    const at = this.#unreadSince + stallMs;
    if (at > now) this.#stall = deadlines.add(this, at);
    else this.end({ outcome: 'timeout', error: new StreamTimeoutError('stall', stallMs) });
  }

  /** Hands on what there is to whoever waits for it, and minds what nobody waits for. */
  #wake(): void {
    const ready = this.#onReady;
    this.#onReady = undefined;
    ready?.();
    while (this.#waiting.length > 0) {
      const event = this.#shift();
      if (event === undefined && this.#ending === undefined) return;
      this.#waiting.shift()!(event);
    }
    if (this.#unreadSince < Infinity || this.#isEmpty() || this.#ending !== undefined) return;
    const { time, stallMs, deadlines } = this.settings;
    this.#unreadSince = time.now();
    if (stallMs < Infinity) this.#stall ??= deadlines.add(this, this.#unreadSince + stallMs);
  }

  #isEmpty(): boolean {
    return this.#tokens.length === 0 && this.#last === undefined && !this.#startDue && !this.#moved;
  }

  #shift(): StreamEvent<T> | undefined {
    if (this.#moved) {
      this.#moved = false;
      const place = this.#feed.takePlace();
      if (place !== undefined && place.position !== this.#position) {
        this.#position = place.position;
        return { type: 'position', ...place };
      }
    }
    if (this.#startDue) {
      this.#startDue = false;
      return { type: 'start' };
    }
    if (this.#tokens.length > 0) {
      const value = this.#tokens.shift()!;
      this.#feed.pulled();
      return { type: 'token', value, index: this.#index++ };
    }
    if (this.#last === undefined) return undefined;
    const ending = this.#last;
    this.#last = undefined;
    if (this.#ending === undefined) {
      this.#feed.detach(this, ending);
      this.#conclude(ending);
    }
    return ending.outcome === 'completed'
      ? { type: 'done', tokens: this.#index, elapsedMs: this.#elapsedMs }
      : errorEvent(ending, this.settings.exposeErrors);
  }

  #conclude(ending: Ending): void {
    const { deadlines, time } = this.settings;
    const { startedAt } = this.#feed;
    this.#ending = ending;
    this.#elapsedMs = startedAt === undefined ? 0 : time.now() - startedAt;
    this.#unreadSince = Infinity;
    if (this.#stall !== undefined) deadlines.remove(this.#stall);
    this.#stall = undefined;
    void this.#report(ending);
  }

  async #report(ending: Ending): Promise<void> {
    // The feed may be about to learn of it.
    await Promise.resolve();
    if (this.#feed.ending !== undefined) await this.#feed.gone;
    this.#resolveFinished({
      ...ending,
      ...this.#feed.figures,
      tokens: this.taken,
      elapsedMs: this.#elapsedMs,
    });
  }
}

function errorEvent<T>(ending: Ending, exposeErrors: boolean): StreamEvent<T> {
  const { error, outcome } = ending;
  if (isOurs(error)) {
    const { code, message, retryAfterMs } = error as SluiceError & { retryAfterMs?: number };
    const event = { type: 'error', code, message } as const;
    return retryAfterMs === undefined ? event : { ...event, retryAfterMs };
  }
  const event =
    outcome === 'failed'
      ? { code: 'ERR_STREAM_FAILED', message: 'The stream failed.' }
      : outcome === 'timeout'
        ? { code: 'ERR_STREAM_TIMEOUT', message: 'The stream was ended: it took too long.' }
        : { code: 'ERR_STREAM_CANCELLED', message: 'The stream was cancelled.' };
  return { type: 'error', ...event, ...(exposeErrors && toldBy(error)) };
}

/** What an error says of itself. Nothing where it throws at whoever looks, as a proxy may. */
function toldBy(error: unknown): { message?: string; code?: string } {
  try {
    if (!(error instanceof Error)) return {};
    const { message, code } = error as Error & { code?: unknown };
    return typeof code === 'string' ? { message, code } : { message };
  } catch {
    return {};
  }
}
