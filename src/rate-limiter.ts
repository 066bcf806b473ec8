import type { Clock } from './clock.ts';
import {
  ClosedError,
  ExceedsCapacityError,
  QueueFullError,
  RateLimitedError,
  WaitTimeoutError,
} from './errors.ts';
import type { Gate, TaskContext } from './gate.ts';
import { abortOf } from './internal/abort.ts';
import {
  abortSignal,
  callable,
  flag,
  integerWithin,
  msOrInfinity,
  oneOf,
  positiveMs,
  readOptions,
} from './internal/assert.ts';
import {
  amountOf,
  countsOf,
  costOf,
  type Demand,
  demandOf,
  each,
  earliestTurnOf,
  exceeded,
  fits,
  LinkedBucket,
  quotasOf,
  refillAll,
  takeAll,
  type Turn,
  turnOf,
} from './internal/buckets.ts';
import { deliver, Emitter, heard, post } from './internal/emitter.ts';
import { uninterrupted } from './internal/execution.ts';
import { type Gap, gapsOf, keptOf, type Turns, turnsIn } from './internal/gaps.ts';
import {
  LIMIT_OPTIONS,
  type LimitOptions,
  type LimitStats,
  quotaFrom,
  quotasFrom,
  SETTING_OPTIONS,
  type Settings,
  settingsOf,
} from './internal/limits.ts';
import { type Call, Lobby, type Subject, Waiter } from './internal/lobby.ts';
import { optionNames } from './internal/options.ts';
import { quote } from './internal/quote.ts';
import { Run } from './internal/runs.ts';
import { type Summary, Tally } from './internal/tally.ts';
import { readingOf, Time } from './internal/time.ts';
import {
  charge,
  giveBack,
  holdBack,
  letGo,
  reshape,
  TICKS_PER_MS,
  ticksAt,
} from './internal/token-bucket.ts';

export type { LimitOptions, LimitStats, Summary };

interface CommonOptions {
  /** How many callers may wait at most; the next one is refused with `ERR_QUEUE_FULL`. Default Infinity. */
  readonly maxWaiting?: number | undefined;
  /** How many priorities there are, 1 to 32. Default 5. */
  readonly priorities?: number | undefined;
  /**
   * The longest pause, in ms, whose end is waited for. While more than that is left of one, whoever
   * waits or comes gets `ERR_RATE_LIMITED`. Default 300 000.
   */
  readonly maxPauseMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

/** One limit, or several by name of which every grant takes from all at once. */
export type RateLimiterOptions<Name extends string = never> = CommonOptions &
  (
    | (LimitOptions & { readonly limits?: undefined })
    | {
        readonly limits: Readonly<Record<Name, LimitOptions>>;
        readonly limit?: undefined;
        readonly intervalMs?: undefined;
        readonly burst?: undefined;
      }
  );

/**
 * How many tokens something takes: a positive integer, which with named limits is taken of each; or
 * counts by name, where of a limit that is not named nothing is taken. A limit in debt holds up all.
 */
export type Cost<Name extends string = never> =
  | number
  | ([Name] extends [never] ? never : { readonly [N in Name]?: number | undefined });

/** What one call takes, how long it waits for that, how urgent it is. */
export interface RateLimiterAcquireOptions<Name extends string = never> {
  /** Default 1. */
  readonly cost?: Cost<Name> | undefined;
  /** Ends the wait; the call rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
  /**
   * The longest wait in ms. A wait that is known to be longer is refused at once, with
   * `ERR_RATE_LIMITED`. 0: now or not at all. Default Infinity.
   */
  readonly waitTimeoutMs?: number | undefined;
  /** 1, the most urgent, to `priorities`, the default. */
  readonly priority?: number | undefined;
}

/**
 * Tokens that were granted: an estimate, which can be put right once. A lease that is never settled
 * keeps its estimate.
 */
export interface Lease<Name extends string = never> {
  /** As it was asked for. */
  readonly cost: Cost<Name>;
  /**
   * Replaces the estimate by what was really used: non-negative integers, where a limit that is not
   * named keeps its estimate. The difference comes back, up to the burst, or is charged; a charge for
   * more than is there becomes debt, which later callers wait for. True the first time, false and
   * without effect ever after.
   */
  settle(actual: Cost<Name>): boolean;
  /** Nothing was used: the same as settling at 0. */
  cancel(): boolean;
  /** Settles at the estimate, unless that has been done. */
  [Symbol.dispose](): void;
}

/** What a task is given: its signal, and the lease to settle what it really used. */
export interface RateLimiterContext<Name extends string = never> extends TaskContext {
  readonly lease: Lease<Name>;
}

/** What an upstream says of one limit, as in its rate-limit headers. */
export interface UpstreamCount {
  /** How many tokens it would still grant: a non-negative integer. */
  readonly remaining: number;
  /** In how many ms it is back at its full count. Default: not known. */
  readonly resetMs?: number | undefined;
  /** Its full count, as headers tell it along with the rest. Of no effect: see `configure`. */
  readonly limit?: number | undefined;
}

/** The `Of` of the only limit, or of some of the named ones. */
export type PerLimit<Name extends string, Of> = [Name] extends [never]
  ? Of
  : { readonly [N in Name]?: Of | undefined };

/** Gauges now, and counters since construction. */
export interface RateLimiterStats {
  readonly limits: readonly LimitStats[];
  /** Tasks of `run` that have not settled. */
  readonly active: number;
  readonly waiting: number;
  /** How long grants are still held because of `pause`, in ms. */
  readonly pausedMs: number;
  readonly closed: boolean;
  /** How many calls were granted, had to queue, … since construction. */
  readonly granted: number;
  readonly queued: number;
  /** Refused because of the rate. */
  readonly limited: number;
  /** Refused for any other reason, by `acquire` and `run`. */
  readonly refused: number;
  readonly cancelled: number;
  readonly timedOut: number;
  /** How long those who had to queue and were granted had waited, in ms. */
  readonly waitMs: Summary;
}

/** What every event of a limiter carries: the gauges after the change. */
export interface RateLimiterGauges {
  readonly active: number;
  readonly waiting: number;
}
/** `id` tells the callers of one limiter apart: the same in all events about one. */
export interface RateLimiterEvent extends RateLimiterGauges {
  readonly id: number;
  readonly cost: number | Readonly<Record<string, number>>;
}
/** `priority`: the one it waits with. */
export interface RateLimiterQueuedEvent extends RateLimiterEvent {
  readonly priority: number;
}
/** `waitedMs`: from its call to its grant, or to when it left. */
export interface RateLimiterWaitedEvent extends RateLimiterEvent {
  readonly waitedMs: number;
}
/** `retryAfterMs`: when it would be granted if it came back, as the caller was told. */
export interface RateLimiterLimitedEvent extends RateLimiterEvent {
  readonly retryAfterMs: number;
  /** Which of the named limits was short. */
  readonly limit: string | undefined;
}
/** Why a call was refused for anything but the rate. */
export interface RateLimiterRefusedEvent extends RateLimiterEvent {
  /** The `code` of the error, or undefined where the caller's signal was aborted already. */
  readonly code: string | undefined;
}
/** What a lease was put right to. */
export interface RateLimiterSettledEvent extends RateLimiterEvent {
  /** What was really used: of the same form as the `cost`, or by name where it was settled so. */
  readonly actual: number | Readonly<Record<string, number>>;
}
/** How long grants are held. */
export interface RateLimiterPausedEvent extends RateLimiterGauges {
  /** From now to the end of the pause. */
  readonly pausedMs: number;
}
/** `limits`: as they are from now on. */
export interface RateLimiterConfiguredEvent extends RateLimiterGauges {
  readonly limits: readonly LimitStats[];
}

/**
 * Each `acquire` or `run`: `queued` or not, then `granted` or one of the ways to leave, of which
 * `limited` is one; or `limited` or `refused` alone.
 */
export interface RateLimiterEvents {
  /** Has to wait. */
  queued: RateLimiterQueuedEvent;
  /** Got its tokens, after `waitedMs` (0 for those who did not queue). */
  granted: RateLimiterWaitedEvent;
  /** Refused because of the rate: `tryAcquire`, or a wait that would be too long, or has become so by a pause. */
  limited: RateLimiterLimitedEvent;
  /** Refused for another reason. */
  refused: RateLimiterRefusedEvent;
  /** Left the line: its signal was aborted, the limiter closed or a burst became too small for it. */
  cancelled: RateLimiterWaitedEvent;
  /** Left the line because of `waitTimeoutMs`. */
  timedOut: RateLimiterWaitedEvent;
  /** A lease was settled or cancelled. */
  settled: RateLimiterSettledEvent;
  paused: RateLimiterPausedEvent;
  /**
   * The pause is over. Emitted at its end if somebody waits then, otherwise with the next call that
   * finds it over: nothing is armed for its own sake.
   */
  resumed: RateLimiterGauges;
  configured: RateLimiterConfiguredEvent;
  /** The last task of `run` has settled and nobody waits. */
  idle: RateLimiterGauges;
  closed: RateLimiterGauges;
}

const OPTIONS = new Set([...LIMIT_OPTIONS, ...SETTING_OPTIONS, 'limits']);
const ACQUIRE_OPTIONS = new Set(['cost', 'signal', 'waitTimeoutMs', 'priority']);
const COUNT_OPTIONS = new Set(['remaining', 'resetMs', 'limit']);
const SYNC_OPTIONS = new Set(['raise']);
const CLOSE_OPTIONS = new Set(['waiting']);

type AnyLimiter = RateLimiter<string>;

/** Puts a lease right; only a lease may. */
let settle: (limiter: AnyLimiter, lease: GrantedLease, actual: Demand) => void;

/** Tells a limiter that a task is over. */
let over: (limiter: AnyLimiter) => void;

class GrantedLease implements Lease<string> {
  readonly id: number;
  readonly demand: Demand;
  readonly first: LinkedBucket;
  /** Undefined once settled. */
  #limiter: AnyLimiter | undefined;

  constructor(id: number, demand: Demand, first: LinkedBucket, limiter: AnyLimiter) {
    this.id = id;
    this.demand = demand;
    this.first = first;
    this.#limiter = limiter;
  }

  get cost(): number | Readonly<Record<string, number>> {
    return costOf(this.first, this.demand);
  }

  settle(actual: Cost<string>): boolean {
    const named = typeof actual === 'object' && actual !== null;
    return this.#settle(
      named && this.first.quota.name !== undefined
        ? countsOf(this.first, 'actual', actual, this.demand)
        : this.#sameOfAll(actual),
    );
  }

  cancel(): boolean {
    const { demand } = this;
    return this.#settle(typeof demand === 'number' ? 0 : demand.map(() => 0));
  }

  [Symbol.dispose](): void {
    this.#limiter = undefined;
  }

  #settle(actual: Demand): boolean {
    const limiter = this.#limiter;
    if (limiter === undefined) return false;
    this.#limiter = undefined;
    settle(limiter, this, actual);
    return true;
  }

  /** A number answers a number: 950 tokens are not 950 requests. */
  #sameOfAll(actual: unknown): number {
    const amount = integerWithin('actual', actual, 0, Number.MAX_SAFE_INTEGER);
    if (typeof this.demand === 'number') return amount;
    throw new TypeError('Expected `actual` to name its limits, as the cost did.');
  }
}

class Context implements RateLimiterContext<string> {
  readonly lease: Lease<string>;
  readonly #run: HeldRun | undefined;
  #signal: AbortSignal | undefined;

  constructor(lease: Lease<string>, run: HeldRun | undefined) {
    this.lease = lease;
    this.#run = run;
  }

  /** Where nothing can interrupt the task, a signal that never aborts. */
  get signal(): AbortSignal {
    return (this.#signal ??= this.#run?.signal ?? new AbortController().signal);
  }
}

type HeldRun = Run<GrantedLease>;
type LeaseWaiter = Waiter<GrantedLease>;

const ACQUIRE_DEFAULTS: Call = {
  demand: 1,
  signal: undefined,
  waitTimeoutMs: Infinity,
  priority: undefined,
  runs: false,
  runTimeoutMs: Infinity,
  graceMs: Infinity,
};
const RUN_DEFAULTS: Call = { ...ACQUIRE_DEFAULTS, runs: true };

/**
 * Lets things happen at a bounded rate: a token bucket, or several that are taken from all or
 * nothing, with a line in front.
 *
 * Each bucket holds up to `burst` tokens and gains `limit` of them per `intervalMs`, evenly. A
 * caller takes its cost when it is granted, not when it joins the line, so that one who gives up has
 * cost nothing. The line is in order of priority, first come first served within one; the first in
 * line is not overtaken by lighter ones behind it, nor by `tryAcquire`. A grant stands once made. The
 * end of a task gives nothing back: only its lease does, where what was taken was an estimate.
 *
 * O(1) per caller in line, O(log waiting) with a `waitTimeoutMs`. With several limits, or for one who
 * is more urgent and lighter than others in line, the first refusal after a change looks at all of them.
 * The limit holds within one process.
 *
 * Timers count in whole ms and may be late, and a bucket that is full by then has gained nothing
 * meanwhile: a burst that comes in within a few ms wastes some of the rate while callers wait.
 *
 * @example
 * ```ts
 * const limiter = new RateLimiter({
 *   limits: {
 *     requests: { limit: 500, intervalMs: 60_000 },
 *     tokens: { limit: 30_000, intervalMs: 60_000 },
 *   },
 * });
 * const answer = await limiter.run(
 *   async ({ signal, lease }) => {
 *     const answer = await callModel(prompt, { signal });
 *     lease.settle({ tokens: answer.usage.total_tokens });
 *     return answer;
 *   },
 *   { cost: { requests: 1, tokens: 1800 }, signal: request.signal },
 * );
 * ```
 *
 * Whenever no method of this class is on the stack:
 *
 * - R1  No bucket holds more than its burst, nor less than 0 unless a settlement has overrun.
 * - R2  In every window of w ms at most burst + limit * w / intervalMs have been granted, less what was
 *     given back in it.
 * - R3  What is refused for the rate is refused at every tick before the one that `retryAfterMs`
 *     promised and, if nobody else comes or goes and timers are on time, granted at it.
 * - R4  Who was refused, gave up or ran out of time has taken nothing.
 * - R5  Grants go in order of priority, first come first served within one.
 * - R6  A cost is waited for as long as its parts one after the other. Nothing is rounded, however long
 *     the limiter runs.
 * - R7  What can never be granted, or is known to be granted later than the caller can wait, is refused
 *     at once.
 */
export class RateLimiter<Name extends string = never>
  extends Emitter<RateLimiterEvents>
  implements Gate<RateLimiterContext<Name>, RateLimiterAcquireOptions<Name>>, AsyncDisposable
{
  readonly #first: LinkedBucket;
  readonly #settings: Settings;
  #lobby: Lobby<GrantedLease> | undefined;
  #active = 0;
  #lastId = 0;
  #granted = 0;
  #limited = 0;
  #refused = 0;

  static {
    settle = (limiter, lease, actual) => limiter.#settle(lease, actual);
    over = (limiter) => limiter.#over();
  }

  /** Throws a `TypeError` or a `RangeError` that names a bad option. */
  constructor(options: RateLimiterOptions<Name>) {
    super();
    const given = readOptions('RateLimiter', options, OPTIONS);
    this.#settings = settingsOf(given);
    const quotas = quotasFrom(given);
    const now = ticksAt(readingOf(this.#settings.clock));
    this.#first = quotas.reduceRight<LinkedBucket | undefined>(
      (next, quota) => new LinkedBucket(quota, now, next),
      undefined,
    )!;
  }

  /** @internal */
  get [optionNames](): ReadonlySet<string> {
    return ACQUIRE_OPTIONS;
  }

  /** How many callers wait. */
  get waiting(): number {
    return this.#lobby === undefined ? 0 : this.#lobby.line.length;
  }

  /** How many tasks of `run` have not settled. */
  get active(): number {
    return this.#active;
  }

  /** Whether every token is there and nothing is held: then a new limiter would do as well. */
  get full(): boolean {
    const now = this.#refill();
    return (
      now >= this.#pausedUntil &&
      [...each(this.#first)].every(
        ({ tokens, quota, hold }) => tokens === quota.burst && hold === undefined,
      )
    );
  }

  /** How many whole tokens are there now; with several limits and no name, of the scarcest. */
  available(name?: Name): number {
    this.#refill();
    const buckets = [...each(this.#first)];
    const asked = name === undefined ? buckets : buckets.filter(({ quota }) => quota.name === name);
    if (asked.length === 0) throw new TypeError(`Unknown limit ${quote(String(name))}.`);
    return Math.max(0, Math.min(...asked.map((bucket) => bucket.tokens)));
  }

  /**
   * Takes `cost` if it is there and nobody waits. Undefined otherwise, also when closed. Throws only
   * for a bad `cost`.
   */
  tryAcquire(cost: Cost<Name> = 1): Lease<Name> | undefined {
    const demand = demandOf(this.#first, cost);
    if (this.#closed) return undefined;
    this.#catchUp(this.#refillStrictly());
    const id = ++this.#lastId;
    let lease: GrantedLease | undefined;
    if (this.#isOpen() && fits(this.#first, demand)) lease = this.#grant(id, demand, 0, false);
    else this.#limit(id, demand);
    deliver(this);
    return lease as Lease<Name> | undefined;
  }

  /**
   * Takes `cost`, after waiting for it where necessary. Rejects with `signal.reason` or with
   * `ERR_CLOSED`, `ERR_EXCEEDS_CAPACITY` (it is over a burst), `ERR_QUEUE_FULL`, `ERR_RATE_LIMITED`
   * (the wait would be longer than `waitTimeoutMs`) or `ERR_WAIT_TIMEOUT` (it has become longer);
   * then nothing has been taken.
   */
  acquire(options?: RateLimiterAcquireOptions<Name>): Promise<Lease<Name>> {
    try {
      const call =
        options === undefined ? ACQUIRE_DEFAULTS : this.#read('acquire', options, ACQUIRE_DEFAULTS);
      return Promise.resolve(this.#admit(call) as Lease<Name> | Promise<Lease<Name>>);
    } catch (error) {
      return Promise.reject(error);
    } finally {
      deliver(this);
    }
  }

  /**
   * Calls `task` when its cost has been granted and settles as it does. Rejects as `acquire`. When
   * `signal` is aborted while the task runs, the call rejects with its reason at once and the task's
   * own signal is aborted. The task runs in the caller's async context, at once where no wait is
   * necessary.
   */
  run<T>(
    task: (context: RateLimiterContext<Name>) => T | PromiseLike<T>,
    options?: RateLimiterAcquireOptions<Name>,
  ): Promise<T> {
    let admitted: GrantedLease | Promise<GrantedLease>;
    let call = RUN_DEFAULTS;
    try {
      callable('task', task);
      if (options !== undefined) call = this.#read('run', options, RUN_DEFAULTS);
      admitted = this.#admit(call);
    } catch (error) {
      deliver(this);
      return Promise.reject(error);
    }
    deliver(this);
    // The reaction to the promise of a lease runs in the context of this call, not in that of the
    // timer that grants it.
    return admitted instanceof GrantedLease
      ? this.#perform(task, admitted, call)
      : admitted.then((lease) => this.#perform(task, lease, call));
  }

  /**
   * In how many ms `cost` is granted to one who asks for it then, with the least urgent priority, if
   * nobody else comes or goes: 0 if now, Infinity if never. With a fraction, which most timers drop.
   * With several limits, or while `sync` holds tokens back, O(waiting) after each change.
   */
  retryAfterMs(cost: Cost<Name> = 1): number {
    const demand = demandOf(this.#first, cost);
    if (this.#closed) return Infinity;
    return this.#ms(this.#turns(demand, this.#settings.priorities, this.#refill()).retry.tick);
  }

  /**
   * Holds every grant for `ms` from now, as an upstream's Retry-After asks; a longer pause that is
   * running stays. Waiters whose time is over before its end, and all of them where it is longer than
   * `maxPauseMs`, get `ERR_RATE_LIMITED` now.
   */
  pause(ms: number): void {
    if (ms !== 0) positiveMs('ms', ms);
    const now = this.#catchUp();
    // Infinity is no tick that could be reckoned with.
    const until = Math.min(now + Math.ceil(ms * TICKS_PER_MS), Number.MAX_VALUE);
    if (until > now && until > this.#pausedUntil) {
      const lobby = this.#enter();
      lobby.pausedUntil = until;
      if (heard(this, 'paused')) {
        post(this, 'paused', { pausedMs: this.#ms(until), ...this.#gauges() });
      }
      this.#turnAway(lobby, now);
      this.#pump(now);
    }
    deliver(this);
  }

  /**
   * Takes over what an upstream says is left: where it is less than this limiter counts, the rest is
   * out of reach until `resetMs` have passed, or for good where that is not known. The count is not
   * raised, since the upstream has not yet seen what is on its way, unless `raise` is true.
   */
  sync(
    counts: PerLimit<Name, UpstreamCount>,
    options?: { readonly raise?: boolean | undefined },
  ): void {
    const { raise = false } = readOptions('sync', options, SYNC_OPTIONS);
    flag('raise', raise);
    const updates = this.#perLimit('sync', counts).map(({ bucket, where, given }) => {
      const { remaining, resetMs = Infinity, limit = 0 } = readOptions(where, given, COUNT_OPTIONS);
      integerWithin('limit', limit, 0, Number.MAX_SAFE_INTEGER);
      return {
        bucket,
        remaining: integerWithin('remaining', remaining, 0, Number.MAX_SAFE_INTEGER),
        resetMs: msOrInfinity('resetMs', resetMs),
      };
    });
    const now = this.#catchUp();
    for (const { bucket, remaining, resetMs } of updates) {
      // Each answer replaces the one before.
      letGo(bucket);
      if (resetMs > 0) holdBack(bucket, remaining, now + Math.ceil(resetMs * TICKS_PER_MS));
      if (raise && remaining > bucket.tokens) giveBack(bucket, remaining - bucket.tokens);
    }
    this.#pump(now);
    deliver(this);
  }

  /**
   * Changes limits from now on. What is not given stays as it is, but for a burst that was the same
   * as the limit and stays so. Tokens that are there stay, up to the new burst. Waiters whose cost
   * has become impossible reject with `ERR_EXCEEDS_CAPACITY`.
   */
  configure(limits: PerLimit<Name, Partial<LimitOptions>>): void {
    const updates = this.#perLimit('configure', limits).map(({ bucket, where, given }) => {
      const { name, limit, intervalMs, burst } = bucket.quota;
      const before = { limit, intervalMs, burst: burst === limit ? undefined : burst };
      const change = readOptions(where, given, LIMIT_OPTIONS);
      return { bucket, quota: quotaFrom({ ...before, ...change }, name) };
    });
    const now = this.#catchUp();
    for (const { bucket, quota } of updates) reshape(bucket, quota);
    if (heard(this, 'configured')) {
      post(this, 'configured', { limits: this.#limits(), ...this.#gauges() });
    }
    for (const waiter of this.#lobby?.line ?? []) {
      const impossible = this.#impossible(waiter.demand);
      if (impossible !== undefined) this.#cancel(waiter, impossible, now);
    }
    this.#pump(now);
    deliver(this);
  }

  /** Resolves when nobody waits and no task of `run` is left: at once if that is so now. */
  idle(): Promise<void> {
    return this.#isIdle() ? Promise.resolve() : this.#enter().idle.wait();
  }

  /**
   * Takes no new callers from now on: they get `ERR_CLOSED`. Those who wait are served in their time
   * (`'finish'`, the default) or get `ERR_CLOSED` too (`'reject'`).
   */
  close(options?: { readonly waiting?: 'finish' | 'reject' | undefined }): void {
    const { waiting = 'finish' } = readOptions('close', options, CLOSE_OPTIONS);
    const what = oneOf('waiting', waiting, ['finish', 'reject']);
    const now = this.#catchUp();
    if (what === 'reject') {
      for (const waiter of this.#lobby?.line ?? []) {
        this.#cancel(waiter, new ClosedError('The rate limiter'), now);
      }
    }
    if (!this.#closed && heard(this, 'closed')) post(this, 'closed', this.#gauges());
    this.#enter().closed = true;
    this.#pump(now);
    deliver(this);
  }

  /** Closes and resolves when everybody who waited has been served and every task has settled. */
  drain(): Promise<void> {
    this.close();
    return this.idle();
  }

  /** The same as `drain`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.drain();
  }

  /** A snapshot: gauges now, counters since construction. */
  stats(): RateLimiterStats {
    const now = this.#refill();
    const lobby = this.#lobby;
    return {
      limits: this.#limits(),
      ...this.#gauges(),
      pausedMs: this.#ms(Math.max(this.#pausedUntil, now)),
      closed: this.#closed,
      granted: this.#granted,
      queued: lobby?.queued ?? 0,
      limited: this.#limited,
      refused: this.#refused,
      cancelled: lobby?.cancelled ?? 0,
      timedOut: lobby?.timedOut ?? 0,
      waitMs: (lobby?.waitMs ?? new Tally()).summary(),
    };
  }

  #read(where: string, options: RateLimiterAcquireOptions<Name>, defaults: Call): Call {
    const given = readOptions(where, options, ACQUIRE_OPTIONS);
    const { cost, signal, waitTimeoutMs = Infinity, priority } = given;
    return {
      ...defaults,
      demand: cost === undefined ? 1 : demandOf(this.#first, cost),
      signal: signal === undefined ? undefined : abortSignal('signal', signal),
      waitTimeoutMs: msOrInfinity('waitTimeoutMs', waitTimeoutMs),
      priority:
        priority === undefined
          ? undefined
          : integerWithin('priority', priority, 1, this.#settings.priorities),
    };
  }

  /** What is given for the only limit, or for some of the named ones, with the bucket of each. */
  #perLimit<Of extends object>(
    where: string,
    given: PerLimit<Name, Of>,
  ): { bucket: LinkedBucket; where: string; given: Of }[] {
    const first = this.#first;
    if (first.quota.name === undefined) return [{ bucket: first, where, given: given as Of }];
    const buckets = new Map([...each(first)].map((bucket) => [bucket.quota.name!, bucket]));
    const byName = readOptions(where, given as Record<string, Of>, new Set(buckets.keys()));
    return Object.entries(byName).map(([name, of]) => ({
      bucket: buckets.get(name)!,
      where: `${where} of ${quote(name)}`,
      given: of,
    }));
  }

  get #closed(): boolean {
    return this.#lobby !== undefined && this.#lobby.closed;
  }

  /** The tick at which the pause ends; 0 when there is none. */
  get #pausedUntil(): number {
    return this.#lobby === undefined ? 0 : this.#lobby.pausedUntil;
  }

  /** Brings the buckets up to now, and tells when that is. A clock that has gone back stands, and so does
   * one that tells no time any more. */
  #refill(): number {
    const now = this.#settings.clock.now();
    return refillAll(this.#first, Number.isFinite(now) ? ticksAt(now) : this.#first.at);
  }

  /** The same for a newcomer, who can be refused: throws where the clock tells no time. */
  #refillStrictly(): number {
    return refillAll(this.#first, ticksAt(readingOf(this.#settings.clock)));
  }

  /** What time has brought: a late timer must not decide who comes first. */
  #catchUp(now: number = this.#refill()): number {
    if (this.#isDue(now)) this.#pump(now);
    return now;
  }

  /** Whether the pause is over, or the turn of the first in line has come. */
  #isDue(now: number): boolean {
    const lobby = this.#lobby;
    return (
      lobby !== undefined &&
      ((lobby.pausedUntil !== 0 && now >= lobby.pausedUntil) ||
        (lobby.turn !== undefined && now >= lobby.turn.at * TICKS_PER_MS))
    );
  }

  /** Whether it depends on the tokens alone: nobody waits, and there is no pause. */
  #isOpen(): boolean {
    const lobby = this.#lobby;
    return lobby === undefined || (lobby.line.length === 0 && lobby.pausedUntil === 0);
  }

  /** The verdict on a caller: a lease, a wait for one, or a throw. */
  #admit(call: Call): GrantedLease | Promise<GrantedLease> {
    const { demand, signal, waitTimeoutMs } = call;
    const id = ++this.#lastId;
    if (this.#closed) throw this.#refuse(id, demand, new ClosedError('The rate limiter'));
    if (signal?.aborted === true) {
      this.#refuse(id, demand, undefined);
      throw signal.reason;
    }
    const impossible = this.#impossible(demand);
    if (impossible !== undefined) throw this.#refuse(id, demand, impossible);
    const priority = call.priority ?? this.#settings.priorities;
    const now = this.#catchUp(this.#refillStrictly());
    if (!this.#anyBefore(priority) && this.#pausedUntil === 0 && fits(this.#first, demand)) {
      const lease = this.#grant(id, demand, 0, call.runs);
      // The first in line, who is less urgent, waits longer for that.
      if (this.#lobby !== undefined) this.#plan(this.#lobby);
      return lease;
    }
    const { maxWaiting } = this.#settings;
    if (this.waiting >= maxWaiting) {
      const { wait, retry } = this.#turns(demand, priority, now);
      const full = new QueueFullError({
        waiting: this.waiting,
        maxWaiting,
        estimatedWaitMs: this.#ms(wait.tick),
        retryAfterMs: this.#ms(retry.tick),
      });
      throw this.#refuse(id, demand, full);
    }
    const deadline = now + Math.ceil(waitTimeoutMs * TICKS_PER_MS);
    if (
      this.#pausesLong(now) ||
      (deadline < Infinity && this.#earliest(demand, priority, now).tick > deadline)
    ) {
      throw this.#tooEarly(id, demand, this.#turns(demand, priority, now));
    }
    return this.#wait(new Waiter(id, priority, now, call), deadline);
  }

  /** The error for what is over a burst. */
  #impossible(demand: Demand): ExceedsCapacityError | undefined {
    const found = exceeded(this.#first, demand);
    return found && new ExceedsCapacityError(found.wanted, found.bucket.quota.burst);
  }

  #refuse<E extends { readonly code: string } | undefined>(
    id: number,
    demand: Demand,
    error: E,
  ): E {
    this.#refused++;
    if (heard(this, 'refused')) {
      post(this, 'refused', { ...this.#about({ id, demand }), code: error?.code });
    }
    return error;
  }

  #tooEarly(id: number, demand: Demand, { wait, retry }: Turns): RateLimitedError {
    this.#limit(id, demand, retry);
    return new RateLimitedError(this.#ms(retry.tick), retry.limit, this.#ms(wait.tick));
  }

  /** `retry`: by default that of the least urgent priority. */
  #limit(id: number, demand: Demand, retry?: Turn): void {
    this.#limited++;
    if (heard(this, 'limited')) {
      const { tick, limit } =
        retry ?? this.#turns(demand, this.#settings.priorities, this.#first.at).retry;
      post(this, 'limited', {
        ...this.#about({ id, demand }),
        retryAfterMs: this.#ms(tick),
        limit,
      });
    }
  }

  #grant(id: number, demand: Demand, waitedMs: number, runs: boolean): GrantedLease {
    takeAll(this.#first, demand);
    this.#granted++;
    if (runs) this.#active++;
    const lease = new GrantedLease(id, demand, this.#first, this as unknown as AnyLimiter);
    if (heard(this, 'granted')) post(this, 'granted', { ...this.#about(lease), waitedMs });
    return lease;
  }

  #enter(): Lobby<GrantedLease> {
    return (this.#lobby ??= new Lobby(
      new Time(this.#settings.clock, this.#first.at / TICKS_PER_MS),
      this.#settings.priorities,
      quotasOf(this.#first).length,
      (subjects, reason) => this.#aborted(subjects, reason),
      (due) => this.#due(due),
      () => this.#over(),
    ));
  }

  #wait(waiter: LeaseWaiter, deadline: number): Promise<GrantedLease> {
    const lobby = this.#enter();
    const { id, demand } = waiter;
    const { signal } = waiter.call;
    if (signal !== undefined) {
      lobby.signals.add(signal, waiter);
      // A signal may abort while it is being subscribed to; nobody has been told of that.
      const aborted = abortOf(signal);
      if (aborted !== undefined) {
        lobby.signals.remove(signal, waiter);
        this.#refuse(id, demand, undefined);
        throw aborted.reason;
      }
    }
    lobby.join(waiter);
    if (deadline < Infinity) {
      waiter.deadline = lobby.deadlines.add(waiter, deadline / TICKS_PER_MS);
    }
    if (heard(this, 'queued')) {
      post(this, 'queued', { ...this.#about(waiter), priority: waiter.priority });
    }
    if (lobby.line.head === waiter) this.#plan(lobby);
    return new Promise((resolve, reject) => {
      waiter.resolve = resolve;
      waiter.reject = reject;
    });
  }

  /** Grants what can be granted now, and arms the timer for the next one. */
  #pump(now: number): void {
    const lobby = this.#lobby;
    if (lobby === undefined) return;
    if (lobby.pausedUntil !== 0 && now >= lobby.pausedUntil) {
      lobby.pausedUntil = 0;
      if (heard(this, 'resumed')) post(this, 'resumed', this.#gauges());
    }
    for (
      let head = lobby.line.head;
      head !== undefined && lobby.pausedUntil === 0 && fits(this.#first, head.demand);
      head = lobby.line.head
    ) {
      const waitedMs = (now - head.since) / TICKS_PER_MS;
      lobby.leave(head);
      lobby.waitMs.add(waitedMs);
      head.resolve(this.#grant(head.id, head.demand, waitedMs, head.call.runs));
    }
    this.#plan(lobby);
    if (lobby.left) {
      lobby.left = false;
      this.#rest();
    }
  }

  /** Arms the timer for the end of the pause, or for when the first in line can be granted. */
  #plan(lobby: Lobby<GrantedLease>): void {
    lobby.gaps.length = 0;
    const { line, pausedUntil, turn } = lobby;
    const { head } = line;
    const tick =
      head === undefined
        ? Infinity
        : pausedUntil || turnOf(this.#first, head.demand, this.#first.at).tick;
    const at = tick / TICKS_PER_MS;
    if (turn?.at === at) return;
    if (turn !== undefined) lobby.deadlines.remove(turn);
    lobby.turn = at === Infinity ? undefined : lobby.deadlines.add('turn', at);
  }

  /** No later than the turn of a newcomer, who comes behind everybody of its priority. */
  #earliest(demand: Demand, priority: number, now: number): Turn {
    const start = Math.max(now, this.#pausedUntil);
    return this.#anyBefore(priority)
      ? earliestTurnOf(this.#first, demand, this.#lobby!.owed(priority), start)
      : turnOf(this.#first, demand, start);
  }

  /** The turns of a newcomer if nobody else comes or goes. */
  #turns(demand: Demand, priority: number, now: number): Turns {
    const first = this.#first;
    const found = exceeded(first, demand);
    if (found !== undefined) {
      const never = { tick: Infinity, limit: found.bucket.quota.name };
      return { wait: never, retry: never };
    }
    const lobby = this.#lobby;
    // One bucket holds less than the next in line wants: who wants as much comes back behind them all.
    if (
      lobby?.line.head === undefined ||
      (first.next === undefined &&
        first.hold === undefined &&
        (lobby.line.lastBelow(priority) === undefined || lobby.heaviest <= amountOf(demand, 0)))
    ) {
      const { priorities } = this.#settings;
      const wait = this.#earliest(demand, priority, now);
      return {
        wait,
        retry: priority < priorities ? this.#earliest(demand, priorities, now) : wait,
      };
    }
    // With several limits, tokens held back or less urgent, heavier ones in line it has to be played.
    return turnsIn(this.#gaps(priority, now), demand);
  }

  /** What is left between the grants to come, for those with this priority. */
  #gaps(priority: number, now: number): Iterable<Gap> {
    const { line, gaps } = this.#lobby!;
    const all = gapsOf(line, this.#first, priority, Math.max(now, this.#pausedUntil));
    // A grant whose timer is late will come now, and not when it should have come.
    return this.#isDue(now) ? all : (gaps[priority] ??= keptOf(all));
  }

  /** Whether anybody waits who comes before a newcomer with this priority. */
  #anyBefore(priority: number): boolean {
    const head = this.#lobby?.line.head;
    return head !== undefined && head.priority <= priority;
  }

  /** Whether the end of the pause is too far off to be waited for. */
  #pausesLong(now: number): boolean {
    return this.#pausedUntil - now > this.#settings.maxPauseMs * TICKS_PER_MS;
  }

  /** Those who will not see the end of the pause are told now. */
  #turnAway(lobby: Lobby<GrantedLease>, now: number): void {
    const late: LeaseWaiter[] = [];
    const pausesLong = this.#pausesLong(now);
    for (const waiter of lobby.line) {
      const until = (waiter.deadline?.at ?? Infinity) * TICKS_PER_MS;
      if (!pausesLong && until >= this.#pausedUntil) continue;
      lobby.leave(waiter);
      late.push(waiter);
    }
    for (const { id, demand, priority, reject } of late) {
      reject(this.#tooEarly(id, demand, turnsIn(this.#gaps(priority, now), demand)));
    }
  }

  #cancel(waiter: LeaseWaiter, reason: unknown, now: number): void {
    const lobby = this.#lobby!;
    lobby.leave(waiter);
    lobby.cancelled++;
    waiter.reject(reason);
    if (heard(this, 'cancelled')) post(this, 'cancelled', this.#aboutWait(waiter, now));
  }

  /** All of a signal's waiters leave before the next in line is looked at, then its tasks are told. */
  #aborted(subjects: ReadonlySet<LeaseWaiter | HeldRun>, reason: unknown): void {
    const now = this.#refill();
    const runs: HeldRun[] = [];
    for (const subject of subjects) {
      if (subject instanceof Run) runs.push(subject);
      // One who is not in line yet finds out by itself.
      else if (subject.inLine) this.#cancel(subject, reason, now);
    }
    this.#pump(now);
    for (const run of runs) this.#lobby!.runs.interrupt(run, reason);
    deliver(this);
  }

  /** Who can be granted is granted, also when its time has just run out: then the others' has. */
  #due(due: readonly Subject<GrantedLease>[]): void {
    const lobby = this.#lobby!;
    if (due.includes('turn')) lobby.turn = undefined;
    const now = this.#refill();
    this.#pump(now);
    for (const subject of due) {
      if (subject === 'turn' || subject instanceof Run || !subject.inLine) continue;
      lobby.leave(subject);
      lobby.timedOut++;
      subject.reject(new WaitTimeoutError((now - subject.since) / TICKS_PER_MS));
      if (heard(this, 'timedOut')) post(this, 'timedOut', this.#aboutWait(subject, now));
    }
    this.#pump(now);
    deliver(this);
  }

  #perform<T>(
    task: (context: RateLimiterContext<Name>) => T | PromiseLike<T>,
    lease: GrantedLease,
    call: Call,
  ): Promise<T> {
    const { signal } = call;
    const contextOf = (run?: HeldRun): RateLimiterContext<Name> => new Context(lease, run);
    const aborted = signal && abortOf(signal);
    if (aborted !== undefined) {
      lease.cancel();
      this.#over();
      return Promise.reject(aborted.reason);
    }
    if (signal !== undefined) return this.#enter().runs.perform(task, contextOf, lease, call);
    return uninterrupted(task, contextOf(), over, this as unknown as AnyLimiter);
  }

  /** A task has settled. */
  #over(): void {
    this.#active--;
    this.#rest();
    deliver(this);
  }

  #settle({ id, demand }: GrantedLease, actual: Demand): void {
    const now = this.#catchUp();
    let index = 0;
    for (const bucket of each(this.#first)) {
      const overrun = amountOf(actual, index) - amountOf(demand, index);
      if (overrun > 0) charge(bucket, overrun);
      else giveBack(bucket, -overrun);
      index++;
    }
    if (heard(this, 'settled')) {
      post(this, 'settled', {
        ...this.#about({ id, demand }),
        actual: costOf(this.#first, actual),
      });
    }
    this.#pump(now);
    deliver(this);
  }

  #isIdle(): boolean {
    return this.#active === 0 && this.waiting === 0;
  }

  #rest(): void {
    if (!this.#isIdle()) return;
    this.#lobby?.idle.release();
    if (heard(this, 'idle')) post(this, 'idle', this.#gauges());
  }

  /** From now to a tick, in ms. */
  #ms(tick: number): number {
    return (tick - this.#first.at) / TICKS_PER_MS;
  }

  #limits(): readonly LimitStats[] {
    const limits = Array.from(each(this.#first), ({ quota, tokens }) =>
      Object.freeze({
        name: quota.name,
        limit: quota.limit,
        intervalMs: quota.intervalMs,
        burst: quota.burst,
        available: Math.max(0, tokens),
        debt: Math.max(0, -tokens),
      }),
    );
    return Object.freeze(limits);
  }

  #gauges(): RateLimiterGauges {
    return { active: this.#active, waiting: this.waiting };
  }

  #about({ id, demand }: Pick<LeaseWaiter, 'id' | 'demand'>): RateLimiterEvent {
    return { id, cost: costOf(this.#first, demand), ...this.#gauges() };
  }

  #aboutWait(waiter: LeaseWaiter, now: number): RateLimiterWaitedEvent {
    return { ...this.#about(waiter), waitedMs: (now - waiter.since) / TICKS_PER_MS };
  }
}
