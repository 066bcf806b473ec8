import type { Clock } from './clock.ts';
import { ClosedError, ExceedsCapacityError, QueueFullError, WaitTimeoutError } from './errors.ts';
import type { Gate, TaskContext } from './gate.ts';
import { abortOf, AbortWatch } from './internal/abort.ts';
import {
  abortSignal,
  callable,
  countOrInfinity,
  invariant,
  msOrInfinity,
  oneOf,
  positiveInteger,
  positiveMs,
  readOptions,
} from './internal/assert.ts';
import { Awaiters } from './internal/awaiters.ts';
import { type Deadline, Deadlines } from './internal/deadlines.ts';
import { deliver, Emitter, heard, post } from './internal/emitter.ts';
import { uninterrupted } from './internal/execution.ts';
import { Line, type Slotted } from './internal/line.ts';
import { optionNames } from './internal/options.ts';
import { Run, type RunLimits, Runs } from './internal/runs.ts';
import { type Summary, Tally } from './internal/tally.ts';
import { Time } from './internal/time.ts';

/** How many permits there are, and how many callers may wait for them. */
export interface SemaphoreOptions {
  /** How many permits there are: a positive integer. */
  readonly capacity: number;
  /** How many callers may wait at most; the next one is refused with `ERR_QUEUE_FULL`. Default Infinity. */
  readonly maxWaiting?: number | undefined;
  /** Emits `overheld` once for each permit that is held for longer than this, in ms. Default: never. */
  readonly maxHoldMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

/** How much one call takes, how long it waits for that, what ends the wait. */
export interface AcquireOptions {
  /** How many permits to take at once: a positive integer up to the capacity. Default 1. */
  readonly weight?: number | undefined;
  /** Ends the wait; the call rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
  /** The longest wait in ms; `ERR_WAIT_TIMEOUT` after it. 0: now or not at all. Default Infinity. */
  readonly waitTimeoutMs?: number | undefined;
}

/** The same for a task, and how long it may run. */
export interface SemaphoreRunOptions extends AcquireOptions {
  /**
   * The longest run in ms: then the task's signal is aborted and the call rejects with
   * `ERR_RUN_TIMEOUT`, but the permit stays taken until the task has settled. Default Infinity.
   */
  readonly runTimeoutMs?: number | undefined;
  /**
   * How long after an abort or a timeout a task that does not settle keeps its permit, in ms. After
   * it the permit is free although the task may still run: `overrun`. Default Infinity.
   */
  readonly graceMs?: number | undefined;
}

/** The right to be one of the `capacity`, or `weight` of them. */
export interface Permit {
  readonly weight: number;
  readonly released: boolean;
  /** Gives it back. True the first time, false and without effect ever after. */
  release(): boolean;
  /** The same as `release`, for `using`. */
  [Symbol.dispose](): void;
}

/** What a task is given: its signal, and the permit that it holds. */
export interface SemaphoreContext extends TaskContext {
  readonly permit: Permit;
}

/** Gauges now, and counters since construction. */
export interface SemaphoreStats {
  readonly capacity: number;
  readonly available: number;
  readonly active: number;
  readonly waiting: number;
  readonly closed: boolean;
  /** How many calls got a permit, had to queue for it, … since construction. */
  readonly acquired: number;
  readonly queued: number;
  readonly released: number;
  readonly refused: number;
  readonly cancelled: number;
  readonly timedOut: number;
  readonly overrun: number;
  readonly overheld: number;
  /** How long those who had to queue and got a permit had waited, in ms. */
  readonly waitMs: Summary;
}

/** What every event of a semaphore carries: the gauges after the change. */
export interface SemaphoreGauges {
  readonly active: number;
  readonly available: number;
  readonly waiting: number;
}
/** `id` tells the acquisitions of one semaphore apart: the same in all events about one. */
export interface SemaphoreEvent extends SemaphoreGauges {
  readonly id: number;
  readonly weight: number;
}
/** `waitedMs`: from its call to its permit, or to when it left. */
export interface SemaphoreWaitedEvent extends SemaphoreEvent {
  readonly waitedMs: number;
}
/** A call that did not get into the line. */
export interface SemaphoreRefusedEvent extends SemaphoreGauges {
  readonly weight: number;
  /** The `code` of the error, or undefined where the caller's signal was aborted already. */
  readonly code: string | undefined;
}
/** `ranMs`: from the start of the task. */
export interface SemaphoreRanEvent extends SemaphoreEvent {
  readonly ranMs: number;
}
/** `capacity`: the new one. */
export interface SemaphoreResizedEvent extends SemaphoreGauges {
  readonly capacity: number;
}

/**
 * Each `acquire` or `run`: `queued` or not, then `acquired` and `released`, or one of the ways to
 * leave; or `refused` alone.
 */
export interface SemaphoreEvents {
  /** Has to wait. */
  queued: SemaphoreEvent;
  /** Got its permit, after `waitedMs` (0 for those who did not queue). */
  acquired: SemaphoreWaitedEvent;
  released: SemaphoreEvent;
  /** Left the line: its signal was aborted, the semaphore closed or became too small for it. */
  cancelled: SemaphoreWaitedEvent;
  /** Left the line because of `waitTimeoutMs`. */
  timedOut: SemaphoreWaitedEvent;
  /** Did not get into the line at all. */
  refused: SemaphoreRefusedEvent;
  /** A permit has been held for longer than `maxHoldMs`. */
  overheld: SemaphoreEvent;
  /** A task has not settled within `graceMs` of its abort: it loses its permit, `released` follows. */
  overrun: SemaphoreRanEvent;
  resized: SemaphoreResizedEvent;
  /** The last permit has been taken. */
  saturated: SemaphoreGauges;
  /** The last permit is back and nobody waits. */
  idle: SemaphoreGauges;
  closed: SemaphoreGauges;
}

const OPTIONS = new Set(['capacity', 'maxWaiting', 'maxHoldMs', 'clock']);
const ACQUIRE_OPTIONS = new Set(['weight', 'signal', 'waitTimeoutMs']);
const RUN_OPTIONS = new Set(['weight', 'signal', 'waitTimeoutMs', 'runTimeoutMs', 'graceMs']);
const CLOSE_OPTIONS = new Set(['waiting']);

/** Nothing is known of how long permits are held: when a refused caller may as well try again. */
const RETRY_AFTER_MS = 1000;

/** One who waits: for a permit, or for a task to start with one. */
class Waiter implements Slotted {
  slot = 0;
  readonly id: number;
  readonly since: number;
  readonly call: Call;
  /** Undefined for a permit. */
  task: ((context: SemaphoreContext) => unknown) | undefined;
  deadline: Deadline | undefined;
  /**
   * Ends the wait. One function for both ends, and `TurnedAway` for the bad one: a waiting caller
   * is mostly the promises and functions that it hangs on, and the garbage collector copies them all.
   */
  settle: ((turn: Waiter | TurnedAway) => void) | undefined;

  constructor(
    id: number,
    since: number,
    call: Call,
    task: ((context: SemaphoreContext) => unknown) | undefined,
  ) {
    this.id = id;
    this.since = since;
    this.call = call;
    this.task = task;
    this.deadline = undefined;
    this.settle = undefined;
  }
}

/** What the wait of somebody ends with who gets no permit. */
class TurnedAway {
  readonly reason: unknown;

  constructor(reason: unknown) {
    this.reason = reason;
  }
}

type HeldRun = Run<HeldPermit>;

/** What has a deadline or a signal: one who waits, or a task that runs. */
type Subject = Waiter | HeldRun;

/**
 * With no base class in common with what a `SharedResource` hands out, nor the contexts of tasks: to make
 * one of a subclass takes 20 ns longer, as long as all of a `tryAcquire`.
 */
class HeldPermit implements Permit {
  readonly weight: number;
  readonly id: number;
  #giveBack: ((permit: HeldPermit) => void) | undefined;
  deadline: Deadline | undefined;

  constructor(id: number, weight: number, giveBack: (permit: HeldPermit) => void) {
    this.id = id;
    this.weight = weight;
    this.#giveBack = giveBack;
  }

  get released(): boolean {
    return this.#giveBack === undefined;
  }

  release(): boolean {
    const giveBack = this.#giveBack;
    if (giveBack === undefined) return false;
    this.#giveBack = undefined;
    giveBack(this);
    return true;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

function release(permit: HeldPermit): void {
  permit.release();
}

class Context implements SemaphoreContext {
  readonly permit: Permit;
  readonly #run: HeldRun | undefined;
  #signal: AbortSignal | undefined;

  constructor(permit: Permit, run: HeldRun | undefined) {
    this.permit = permit;
    this.#run = run;
  }

  /** Where nothing can interrupt the task, a signal that never aborts. */
  get signal(): AbortSignal {
    return (this.#signal ??= this.#run?.signal ?? new AbortController().signal);
  }
}

/** The options of one call, checked. */
interface Call extends RunLimits {
  readonly weight: number;
  readonly waitTimeoutMs: number;
}

const DEFAULTS: Call = {
  weight: 1,
  signal: undefined,
  waitTimeoutMs: Infinity,
  runTimeoutMs: Infinity,
  graceMs: Infinity,
};

/**
 * Lets at most `capacity` callers do something at once.
 *
 * Strictly first come, first served: while anybody waits, nobody who comes later gets a permit, be
 * it that permits are free and the first in line wants more of them (a heavy caller is not starved
 * by light ones, and holds them up). A permit that is given back goes to the next in line within the
 * same call of `release`: no newcomer can get in between. A permit belongs to whoever holds it and
 * comes back once; there is no way to give back what was not taken.
 *
 * Everything is O(1) per caller; with a `waitTimeoutMs`, O(log waiting). The limit holds within one
 * process. A task that acquires the semaphore that it holds may wait for itself for ever.
 *
 * @example
 * ```ts
 * const gpu = new Semaphore(2);
 * const answer = await gpu.run(({ signal }) => infer(prompt, { signal }), { signal: request.signal });
 * ```
 *
 * Whenever no method of this class is on the stack:
 *
 * - S1  0 <= available <= capacity. After a downward `resize`, 0 until enough permits are back.
 * - S2  active is the sum of the weights of the permits that are out, and active + available is the
 *     capacity unless a downward `resize` left active above it.
 * - S3  If anybody waits, the first in line wants more than is available.
 * - S4  A waiter is settled exactly once, and is in line if and only if it has not been settled.
 */
export class Semaphore
  extends Emitter<SemaphoreEvents>
  implements Gate<SemaphoreContext, SemaphoreRunOptions>, AsyncDisposable
{
  /** @internal */
  readonly [optionNames]: ReadonlySet<string> = RUN_OPTIONS;

  readonly #time: Time;
  readonly #maxWaiting: number;
  readonly #maxHoldMs: number;
  #capacity: number;
  #active = 0;
  #closed = false;
  /** Whether everything was taken when a method was last left. */
  #saturated = false;
  #lastId = 0;

  readonly #line = new Line<Waiter>();
  readonly #signals = new AbortWatch<Subject>((subjects, reason) =>
    this.#aborted(subjects, reason),
  );
  readonly #deadlines: Deadlines<Subject>;
  readonly #holds: Deadlines<HeldPermit>;
  readonly #idle = new Awaiters();
  readonly #giveBack = (permit: HeldPermit): void => this.#returned(permit);
  readonly #runs: Runs<HeldPermit>;

  readonly #waitMs = new Tally();
  #acquired = 0;
  #queued = 0;
  #released = 0;
  #refused = 0;
  #cancelled = 0;
  #timedOut = 0;
  #overrun = 0;
  #overheld = 0;

  /** Throws a `TypeError` or a `RangeError` that names a bad option. */
  constructor(options: number | SemaphoreOptions) {
    super();
    const given = typeof options === 'number' ? { capacity: options } : options;
    const checked = readOptions('Semaphore', given, OPTIONS);
    const { capacity, maxWaiting = Infinity, maxHoldMs, clock } = checked;
    this.#capacity = positiveInteger('capacity', capacity);
    this.#maxWaiting = countOrInfinity('maxWaiting', maxWaiting);
    this.#maxHoldMs = maxHoldMs === undefined ? Infinity : positiveMs('maxHoldMs', maxHoldMs);
    this.#time = new Time(clock);
    this.#deadlines = new Deadlines(this.#time, (due, now) => this.#expired(due, now));
    this.#holds = new Deadlines(this.#time, (due) => this.#heldTooLong(due), true);
    this.#runs = new Runs(this.#time, this.#signals, this.#deadlines, release, (permit, ranMs) =>
      this.#outran(permit, ranMs),
    );
  }

  /** How many permits there are, in and out; `resize` changes it. */
  get capacity(): number {
    return this.#capacity;
  }

  /** How many permits could be taken now if nobody waited. */
  get available(): number {
    return Math.max(0, this.#capacity - this.#active);
  }

  /** The weights of all permits that are out. Above the capacity after a downward `resize`. */
  get active(): number {
    return this.#active;
  }

  /** How many callers wait. */
  get waiting(): number {
    return this.#line.length;
  }

  /**
   * Takes a permit if that is possible now: nobody waits and enough are available. Undefined
   * otherwise, also when closed, which is no refusal: neither counted nor told by an event. Throws
   * only for a `weight` that is not a positive integer.
   */
  tryAcquire(weight = 1): Permit | undefined {
    positiveInteger('weight', weight);
    if (this.#closed || this.#line.length > 0 || weight > this.#capacity - this.#active) {
      return undefined;
    }
    this.#take(++this.#lastId, weight, 0);
    const permit = this.#permit(this.#lastId, weight);
    deliver(this);
    return permit;
  }

  /**
   * Takes a permit, after waiting for it where necessary. Rejects with `signal.reason` or with
   * `ERR_CLOSED`, `ERR_EXCEEDS_CAPACITY` (the weight is over the capacity), `ERR_QUEUE_FULL`,
   * `ERR_WAIT_TIMEOUT`; then nothing is held.
   */
  acquire(options?: AcquireOptions): Promise<Permit> {
    try {
      const call =
        options === undefined ? DEFAULTS : this.#read('acquire', options, ACQUIRE_OPTIONS);
      const waiter = this.#admit(call, undefined);
      if (waiter === undefined) return Promise.resolve(this.#permit(this.#lastId, call.weight));
      return new Promise((resolve, reject) => {
        waiter.settle = (turn) => {
          try {
            if (turn instanceof TurnedAway) throw turn.reason;
            resolve(this.#permit(turn.id, turn.call.weight));
          } catch (reason) {
            reject(reason);
          }
        };
      });
    } catch (error) {
      return Promise.reject(error);
    } finally {
      deliver(this);
    }
  }

  /**
   * Calls `task` with a permit that is released when what it returns has settled, and settles as it
   * does. Rejects as `acquire`, and with `ERR_RUN_TIMEOUT`. When `signal` is aborted while the task
   * runs, the call rejects with its reason at once and the task's own signal is aborted, but the
   * permit comes back only when the task has settled or `graceMs` is over. The task runs in the
   * caller's async context, at once where no wait is necessary.
   */
  run<T>(
    task: (context: SemaphoreContext) => T | PromiseLike<T>,
    options?: SemaphoreRunOptions,
  ): Promise<T> {
    let call = DEFAULTS;
    let waiter: Waiter | undefined;
    let permit: HeldPermit | undefined;
    try {
      callable('task', task);
      if (options !== undefined) call = this.#read('run', options, RUN_OPTIONS);
      waiter = this.#admit(call, task);
      if (waiter === undefined) permit = this.#permit(this.#lastId, call.weight);
    } catch (error) {
      deliver(this);
      return Promise.reject(error);
    }
    if (waiter === undefined) {
      deliver(this);
      return this.#perform(task, permit!, call);
    }
    const { promise, resolve } = Promise.withResolvers<Waiter | TurnedAway>();
    waiter.settle = resolve;
    // The reaction to its turn runs in the async context of this call, where it is made, and not in
    // that of whoever releases the permit. What the promise is resolved with gets as old as the
    // promise to the garbage collector: so it is the waiter, and the permit is made only then.
    const answer = promise.then(this.#start);
    deliver(this);
    return answer as Promise<T>;
  }

  /**
   * Changes the capacity: a positive integer. Upwards, waiters get permits at once. Downwards, no
   * permit is taken away: grants go on when enough have come back; waiters whose weight has become
   * impossible reject with `ERR_EXCEEDS_CAPACITY`.
   */
  resize(capacity: number): void {
    positiveInteger('capacity', capacity);
    if (capacity === this.#capacity) return;
    this.#capacity = capacity;
    if (heard(this, 'resized')) post(this, 'resized', { capacity, ...this.#gauges() });
    for (const waiter of this.#line) {
      const { weight } = waiter.call;
      if (weight > capacity) this.#cancel(waiter, new ExceedsCapacityError(weight, capacity));
    }
    this.#pump();
    deliver(this);
  }

  /** Resolves when no permit is out and nobody waits: at once if that is so now. */
  idle(): Promise<void> {
    return this.#isIdle() ? Promise.resolve() : this.#idle.wait();
  }

  /**
   * Takes no new callers from now on: they get `ERR_CLOSED`. Those who wait are served
   * (`'finish'`, the default) or get `ERR_CLOSED` too (`'reject'`). Permits that are out stay good.
   */
  close(options?: { readonly waiting?: 'finish' | 'reject' | undefined }): void {
    const { waiting = 'finish' } = readOptions('close', options, CLOSE_OPTIONS);
    const what = oneOf('waiting', waiting, ['finish', 'reject']);
    const first = !this.#closed;
    this.#closed = true;
    if (what === 'reject') {
      for (const waiter of this.#line) this.#cancel(waiter, new ClosedError('The semaphore'));
    }
    if (first && heard(this, 'closed')) post(this, 'closed', this.#gauges());
    deliver(this);
  }

  /** Closes and resolves when everybody who waited has been served and every permit is back. */
  drain(): Promise<void> {
    this.close();
    return this.idle();
  }

  /** The same as `drain`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.drain();
  }

  /** A snapshot: gauges now, counters since construction. O(1). */
  stats(): SemaphoreStats {
    return {
      capacity: this.#capacity,
      ...this.#gauges(),
      closed: this.#closed,
      acquired: this.#acquired,
      queued: this.#queued,
      released: this.#released,
      refused: this.#refused,
      cancelled: this.#cancelled,
      timedOut: this.#timedOut,
      overrun: this.#overrun,
      overheld: this.#overheld,
      waitMs: this.#waitMs.summary(),
    };
  }

  #read(where: string, options: SemaphoreRunOptions, known: ReadonlySet<string>): Call {
    const given = readOptions(where, options, known);
    const { weight = 1, signal, waitTimeoutMs = Infinity } = given;
    const { runTimeoutMs = Infinity, graceMs = Infinity } = given;
    return {
      weight: positiveInteger('weight', weight),
      signal: signal === undefined ? undefined : abortSignal('signal', signal),
      waitTimeoutMs: msOrInfinity('waitTimeoutMs', waitTimeoutMs),
      runTimeoutMs: msOrInfinity('runTimeoutMs', runTimeoutMs),
      graceMs: msOrInfinity('graceMs', graceMs),
    };
  }

  /** What becomes of a caller: undefined for its permits taken, a place in line, or a throw. */
  #admit(call: Call, task: Waiter['task']): Waiter | undefined {
    return this.#granted(call) ? undefined : this.#join(call, task);
  }

  /** The verdict on a caller: whether its permits are taken, or it has to wait, or a throw. */
  #granted(call: Call): boolean {
    const { weight, signal, waitTimeoutMs } = call;
    if (this.#closed) throw this.#refuse(weight, new ClosedError('The semaphore'));
    if (signal?.aborted === true) {
      this.#refuse(weight, undefined);
      throw signal.reason;
    }
    if (weight > this.#capacity) {
      throw this.#refuse(weight, new ExceedsCapacityError(weight, this.#capacity));
    }
    if (this.#line.length === 0 && weight <= this.#capacity - this.#active) {
      this.#take(++this.#lastId, weight, 0);
      return true;
    }
    if (this.#line.length >= this.#maxWaiting) {
      const full = {
        waiting: this.#line.length,
        maxWaiting: this.#maxWaiting,
        retryAfterMs: RETRY_AFTER_MS,
      };
      throw this.#refuse(weight, new QueueFullError(full));
    }
    if (waitTimeoutMs === 0) throw this.#refuse(weight, new WaitTimeoutError(0));
    return false;
  }

  #refuse<E extends { readonly code: string } | undefined>(weight: number, error: E): E {
    this.#refused++;
    if (heard(this, 'refused')) {
      post(this, 'refused', { weight, code: error?.code, ...this.#gauges() });
    }
    return error;
  }

  #join(call: Call, task: Waiter['task']): Waiter | undefined {
    const { weight, signal, waitTimeoutMs } = call;
    const now = this.#time.read();
    const waiter = new Waiter(++this.#lastId, now, call, task);
    try {
      if (signal !== undefined) this.#signals.add(signal, waiter);
      if (waitTimeoutMs < Infinity) {
        waiter.deadline = this.#deadlines.add(waiter, now + waitTimeoutMs);
      }
      // A clock and a signal may call back, and a signal abort meanwhile: the verdict is on what is now.
      if (this.#granted(call)) {
        this.#unwatch(waiter);
        return undefined;
      }
    } catch (error) {
      this.#unwatch(waiter);
      throw error;
    }
    this.#line.push(waiter);
    this.#queued++;
    if (heard(this, 'queued')) post(this, 'queued', this.#about(waiter.id, weight));
    return waiter;
  }

  #take(id: number, weight: number, waitedMs: number): void {
    this.#active += weight;
    invariant(this.#active <= this.#capacity, 'S1');
    this.#acquired++;
    if (heard(this, 'acquired')) post(this, 'acquired', { ...this.#about(id, weight), waitedMs });
    if (this.#active === this.#capacity && !this.#saturated) {
      this.#saturated = true;
      if (heard(this, 'saturated')) post(this, 'saturated', this.#gauges());
    }
  }

  /** What stands for the permits that `take` has taken. Where the clock throws they are back. */
  #permit(id: number, weight: number): HeldPermit {
    const permit = new HeldPermit(id, weight, this.#giveBack);
    if (this.#maxHoldMs === Infinity) return permit;
    try {
      permit.deadline = this.#holds.add(permit, this.#time.read() + this.#maxHoldMs);
      return permit;
    } catch (error) {
      permit.release();
      throw error;
    }
  }

  #returned(permit: HeldPermit): void {
    this.#active -= permit.weight;
    invariant(this.#active >= 0, 'S2');
    this.#released++;
    if (permit.deadline !== undefined) this.#holds.remove(permit.deadline);
    if (heard(this, 'released')) post(this, 'released', this.#about(permit.id, permit.weight));
    this.#pump();
    if (this.#isIdle()) {
      this.#idle.release();
      if (heard(this, 'idle')) post(this, 'idle', this.#gauges());
    }
    deliver(this);
  }

  /** Hands permits to the first in line for as long as they fit (S3). */
  #pump(): void {
    if (this.#line.length > 0) {
      const now = this.#time.now();
      for (
        let head = this.#line.first;
        head !== undefined && head.call.weight <= this.#capacity - this.#active;
        head = this.#line.first
      ) {
        const { id, call, since } = head;
        const waitedMs = now - since;
        this.#line.remove(head);
        this.#waitMs.add(waitedMs);
        this.#take(id, call.weight, waitedMs);
        head.settle!(head);
        this.#unwatch(head);
      }
    }
    this.#saturated = this.#active >= this.#capacity;
  }

  /**
   * Out of everything that could call it again (S4). A signal or a clock that calls back when it is left finds
   * one that is settled.
   */
  #unwatch(waiter: Waiter): void {
    if (waiter.call.signal !== undefined) this.#signals.remove(waiter.call.signal, waiter);
    if (waiter.deadline !== undefined) this.#deadlines.remove(waiter.deadline);
  }

  #cancel(waiter: Waiter, reason: unknown): void {
    this.#line.remove(waiter);
    this.#cancelled++;
    waiter.settle!(new TurnedAway(reason));
    if (heard(this, 'cancelled')) post(this, 'cancelled', this.#aboutWait(waiter));
    this.#unwatch(waiter);
  }

  /** All of a signal's waiters leave before the next in line is looked at, then its tasks are told. */
  #aborted(subjects: ReadonlySet<Subject>, reason: unknown): void {
    const runs: HeldRun[] = [];
    for (const subject of subjects) {
      if (subject instanceof Run) runs.push(subject);
      // One who is not in line yet finds out by itself; others may have left when one was told.
      else if (this.#line.has(subject)) this.#cancel(subject, reason);
    }
    this.#pump();
    for (const run of runs) this.#runs.interrupt(run, reason);
    deliver(this);
  }

  #expired(due: readonly Subject[], now: number): void {
    const runs: HeldRun[] = [];
    for (const subject of due) {
      if (subject instanceof Run) {
        runs.push(subject);
      } else if (this.#line.has(subject)) {
        this.#line.remove(subject);
        this.#timedOut++;
        subject.settle!(new TurnedAway(new WaitTimeoutError(now - subject.since)));
        if (heard(this, 'timedOut')) post(this, 'timedOut', this.#aboutWait(subject));
        this.#unwatch(subject);
      }
    }
    this.#pump();
    for (const run of runs) {
      // What another one of them was told may have ended this one's time, and let its grace begin.
      if ((run.deadline?.at ?? Infinity) <= now) this.#runs.expire(run, now);
    }
    deliver(this);
  }

  #outran(permit: HeldPermit, ranMs: number): void {
    if (permit.released) return;
    this.#overrun++;
    if (heard(this, 'overrun'))
      post(this, 'overrun', { ...this.#about(permit.id, permit.weight), ranMs });
    permit.release();
  }

  #heldTooLong(due: readonly HeldPermit[]): void {
    for (const permit of due) {
      this.#overheld++;
      if (heard(this, 'overheld')) post(this, 'overheld', this.#about(permit.id, permit.weight));
    }
    deliver(this);
  }

  /** What `run` goes on with when its wait has ended. */
  readonly #start = (turn: Waiter | TurnedAway): unknown => {
    if (turn instanceof TurnedAway) throw turn.reason;
    return this.#perform(turn.task!, this.#permit(turn.id, turn.call.weight), turn.call);
  };

  #perform<T>(
    task: (context: SemaphoreContext) => T | PromiseLike<T>,
    permit: HeldPermit,
    call: Call,
  ): Promise<T> {
    const { signal, runTimeoutMs } = call;
    const aborted = signal && abortOf(signal);
    if (aborted !== undefined) {
      permit.release();
      return Promise.reject(aborted.reason);
    }
    if (signal !== undefined || runTimeoutMs < Infinity) {
      return this.#runs.perform(task, (run) => new Context(permit, run), permit, call);
    }
    return uninterrupted(task, new Context(permit, undefined), release, permit);
  }

  #isIdle(): boolean {
    return this.#active === 0 && this.#line.length === 0;
  }

  #gauges(): SemaphoreGauges {
    return { active: this.#active, available: this.available, waiting: this.#line.length };
  }

  #about(id: number, weight: number): SemaphoreEvent {
    return { id, weight, ...this.#gauges() };
  }

  #aboutWait({ id, call, since }: Waiter): SemaphoreWaitedEvent {
    return { ...this.#about(id, call.weight), waitedMs: this.#time.now() - since };
  }
}
