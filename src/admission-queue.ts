import { nanoid } from 'nanoid';

import type { Clock } from './clock.ts';
import {
  ClosedError,
  DuplicateIdError,
  QueueFullError,
  RunTimeoutError,
  ShedError,
  WaitTimeoutError,
} from './errors.ts';
import type { Gate, TaskContext } from './gate.ts';
import { abortOf, AbortWatch } from './internal/abort.ts';
import {
  abortSignal,
  callable,
  countOrInfinity,
  finite,
  integerWithin,
  invariant,
  msOrInfinity,
  oneOf,
  positiveInteger,
  readOptions,
  text,
} from './internal/assert.ts';
import { Awaiters } from './internal/awaiters.ts';
import { Deadlines } from './internal/deadlines.ts';
import { deliver, Emitter, heard, post } from './internal/emitter.ts';
import {
  type Call,
  Entry,
  type EntryOwner,
  type Ticket,
  type TicketRecord,
  type TicketStatus,
} from './internal/entry.ts';
import { History } from './internal/history.ts';
import { Line } from './internal/line.ts';
import { optionNames } from './internal/options.ts';
import { type PositionEvent, Positions } from './internal/positions.ts';
import { MAX_PRIORITIES, PriorityLine } from './internal/priority-line.ts';
import { QueueMeter, type QueueTotals } from './internal/queue-meter.ts';
import type { Summary } from './internal/tally.ts';
import { Time } from './internal/time.ts';

export type { PositionEvent, QueueTotals, Summary, Ticket, TicketRecord, TicketStatus };

/** How many may run and wait, and what holds for calls that do not say otherwise. */
export interface AdmissionQueueOptions {
  /** How many tasks may run at once: a positive integer. */
  readonly concurrency: number;
  /** How many may wait at most: a non-negative integer or Infinity. Default 1000. */
  readonly maxWaiting?: number | undefined;
  /** How many priorities there are, from 1 (most urgent): an integer from 1 to 32. Default 5. */
  readonly priorities?: number | undefined;
  /** The priority of who names none. Default: the least urgent. */
  readonly defaultPriority?: number | undefined;
  /** The longest wait of who names none, in ms; `ERR_WAIT_TIMEOUT` after it. Default Infinity. */
  readonly waitTimeoutMs?: number | undefined;
  /** The longest run of who names none, in ms; `ERR_RUN_TIMEOUT` after it. Default Infinity. */
  readonly runTimeoutMs?: number | undefined;
  /**
   * How long after an abort or a timeout a task that does not settle keeps its place, in ms. After
   * it the place is free although the task may still run: `overrun`. Default Infinity: the limit
   * holds whatever tasks do.
   */
  readonly graceMs?: number | undefined;
  /**
   * What happens when the line is full: the newcomer is refused (`'reject'`, the default), or the
   * newest waiter of the least urgent priority below the newcomer's goes instead (`'shed'`).
   */
  readonly overflow?: 'reject' | 'shed' | undefined;
  /** How many finished ids are remembered, for `position` to tell -1 from -2. Default 1000. */
  readonly history?: number | undefined;
  /** Makes the ids of tickets that are given none. Default: nanoid, when an id is first asked for. */
  readonly generateId?: (() => string) | undefined;
  readonly clock?: Clock | undefined;
}

/** What one call says of itself: how urgent it is, how long it waits, what ends it. */
export interface EnqueueOptions {
  /** Unique among the unfinished tickets, or `ERR_DUPLICATE_ID`. Default: generated. */
  readonly id?: string | undefined;
  /** Whose it is, for events and records: a user, a tenant, a model. */
  readonly key?: string | undefined;
  /** From 1, the most urgent, to `priorities`. */
  readonly priority?: number | undefined;
  /** Anything; kept with the ticket by reference. */
  readonly metadata?: unknown;
  /** Ends the wait or aborts the task's own signal; the call rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
  /** The longest wait in ms. 0: now or not at all. */
  readonly waitTimeoutMs?: number | undefined;
  /** The longest run in ms. */
  readonly runTimeoutMs?: number | undefined;
  /**
   * The `enqueuedAt` of a `TicketRecord`: the ticket takes its old place within its priority. O(those
   * behind it there), so that many are best enqueued in order.
   */
  readonly enqueuedAt?: number | undefined;
  /**
   * Called with the ticket when it has been accepted, before its task starts. An error of it
   * surfaces as an uncaught exception and changes nothing.
   */
  readonly onTicket?: ((ticket: Ticket<never>) => void) | undefined;
}

/** What a task is given: its signal, and the ticket that it was called for. */
export interface QueueContext extends TaskContext {
  readonly ticket: Ticket;
}

/** Gauges now, and the totals since construction. */
export interface AdmissionQueueStats extends QueueTotals {
  readonly concurrency: number;
  readonly active: number;
  readonly waiting: number;
  /** `waitingByPriority[0]` is how many wait with priority 1, and so on. */
  readonly waitingByPriority: readonly number[];
  readonly maxWaiting: number;
  readonly paused: boolean;
  readonly closed: boolean;
}

/** The gauges after the change. */
export interface QueueGauges {
  readonly active: number;
  readonly waiting: number;
}
/** What the events of a ticket carry, besides the gauges after the change. */
export interface TicketEvent extends QueueGauges {
  readonly id: string;
  readonly key: string | undefined;
  readonly priority: number;
}
/** `waitedMs`: from when the ticket joined to when it started or left. */
export interface TicketWaitedEvent extends TicketEvent {
  readonly waitedMs: number;
}
/** `ranMs`: how long it has held its place. */
export interface TicketRanEvent extends TicketWaitedEvent {
  readonly ranMs: number;
}
/** `error`: what the task threw or rejected with. */
export interface TicketFailedEvent extends TicketRanEvent {
  readonly error: unknown;
}
/** `ranMs` is undefined when it left the line without having started. */
export interface TicketEndedEvent extends TicketWaitedEvent {
  readonly ranMs: number | undefined;
}
/** A call that did not get in has no ticket. */
export interface TicketRefusedEvent extends QueueGauges {
  readonly key: string | undefined;
  readonly priority: number;
  /** The `code` of the error, or undefined where the caller's signal was aborted already. */
  readonly code: string | undefined;
}
/** `concurrency`: the new one. */
export interface QueueResizedEvent extends QueueGauges {
  readonly concurrency: number;
}

/** Each ticket: `queued` or not, then `started`, then one of the ends; or `refused` alone. */
export interface AdmissionQueueEvents {
  /** Has to wait. */
  queued: TicketEvent;
  /** Has got its place. */
  started: TicketWaitedEvent;
  completed: TicketRanEvent;
  failed: TicketFailedEvent;
  /** By its signal, by `cancel`, or by `close`. */
  cancelled: TicketEndedEvent;
  /** By `waitTimeoutMs` or `runTimeoutMs`. */
  timedOut: TicketEndedEvent;
  shed: TicketWaitedEvent;
  refused: TicketRefusedEvent;
  /** A task that did not settle within `graceMs` of its interruption has lost its place. */
  overrun: TicketRanEvent;
  /** Only while somebody listens: one for each ticket whose place has changed, once a turn. */
  position: PositionEvent;
  /** The last free place has been taken. */
  saturated: QueueGauges;
  /** The last task has settled and nobody waits. */
  idle: QueueGauges;
  paused: QueueGauges;
  resumed: QueueGauges;
  resized: QueueResizedEvent;
  closed: QueueGauges;
}

const OPTIONS = new Set([
  'concurrency',
  'maxWaiting',
  'priorities',
  'defaultPriority',
  'waitTimeoutMs',
  'runTimeoutMs',
  'graceMs',
  'overflow',
  'history',
  'generateId',
  'clock',
]);
const CALL_OPTIONS = new Set([
  'id',
  'key',
  'priority',
  'metadata',
  'signal',
  'waitTimeoutMs',
  'runTimeoutMs',
  'enqueuedAt',
  'onTicket',
]);
const CLOSE_OPTIONS = new Set(['waiting']);

/** `retryAfterMs` of a refusal, where nothing is known of service times or the queue is paused. */
const RETRY_AFTER_MS = 1000;

class Context implements QueueContext {
  readonly #entry: Entry;

  constructor(entry: Entry) {
    this.#entry = entry;
  }

  get signal(): AbortSignal {
    return this.#entry.signal;
  }

  get ticket(): Ticket {
    return this.#entry.ticket;
  }
}

/**
 * Runs at most `concurrency` tasks at once and lets at most `maxWaiting` wait, in order of priority
 * and, within a priority, of arrival; tells everybody who waits their exact place and an estimate
 * of the time, and everybody who cannot when to try again.
 *
 * A place is handed on in the same turn in which a task settles, so no newcomer gets in between. It
 * belongs to the task, not to its caller: a caller who aborts or runs out of time is answered at
 * once, while the place stays taken until the task has settled or `graceMs` is over. More urgent
 * tickets always go first; a steady stream of them starves the others, which `waitTimeoutMs` bounds.
 *
 * A task starts in the async context of whoever enqueued it: at once where a place is free, else in
 * a microtask of its own after the place was handed on. Joining and leaving are O(1) (O(log waiting)
 * with a timeout, or once positions are asked for), whatever the length of the line. The limits hold
 * within one process.
 *
 * @example
 * ```ts
 * const queue = new AdmissionQueue({ concurrency: 5 });
 * const answer = await queue.run(({ signal }) => callModel(prompt, { signal }), {
 *   priority: 2,
 *   onTicket: (ticket) => console.log(`You are number ${ticket.position}.`),
 * });
 * ```
 *
 * Whenever no method of this class is on the stack:
 *
 * - Q1  At most `concurrency` tasks are between start and settlement (after a downward `resize`, no
 *     new one starts until that holds), unless `graceMs` gave up on one.
 * - Q2  At most `maxWaiting` tickets wait.
 * - Q3  If anybody waits, no place is free, or the queue is paused. Nobody starts while a more urgent
 *     ticket waits, and within a priority they start in the order in which they stand.
 * - Q4  A ticket that has been accepted is never refused for lack of room.
 * - Q5  A waiting ticket's position is the number of tickets that would start before it, plus one.
 * - Q6  Every ticket ends exactly once, with one status.
 */
export class AdmissionQueue
  extends Emitter<AdmissionQueueEvents>
  implements Gate<QueueContext, EnqueueOptions>, AsyncDisposable
{
  /** @internal */
  readonly [optionNames]: ReadonlySet<string> = CALL_OPTIONS;

  readonly #time: Time;
  readonly #maxWaiting: number;
  readonly #priorities: number;
  readonly #overflow: 'reject' | 'shed';
  readonly #graceMs: number;
  readonly #generateId: (() => string) | undefined;
  /** The call of who gives no options, and of who gives a priority and nothing else. */
  readonly #plain: Call;
  readonly #plainAt: readonly Call[];
  #concurrency: number;
  #paused = false;
  #closed = false;
  /** Whether every place was taken when a method was last left. */
  #saturated = false;

  readonly #line: PriorityLine<Entry>;
  readonly #running = new Line<Entry>();
  /** The unfinished tickets whose ids anybody can know. */
  readonly #known = new Map<string, Entry>();
  readonly #finished: History<undefined>;
  readonly #signals = new AbortWatch<Entry>((entries, reason) => this.#aborted(entries, reason));
  readonly #deadlines: Deadlines<Entry>;
  readonly #positions: Positions;
  readonly #idle = new Awaiters();

  readonly #meter: QueueMeter;

  readonly #owner: EntryOwner = {
    now: () => this.#time.now(),
    identify: (entry) => this.#identify(entry),
    positionOf: (entry) => this.#positionOf(entry),
    estimateOf: (entry) => this.#estimate(this.#positionOf(entry), entry.priority),
    cancel: (entry, reason) => this.#cancel(entry, reason),
    setPriority: (entry, priority) => this.#setPriority(entry, priority),
    positionsOf: (entry) => this.#positions.iterate(entry),
    settled: (entry, ok, value) => this.#settled(entry, ok, value),
  };

  /** Throws a `TypeError` or a `RangeError` that names a bad option. */
  constructor(options: AdmissionQueueOptions) {
    super();
    const given = readOptions('AdmissionQueue', options, OPTIONS);
    const { maxWaiting = 1000, priorities = 5, overflow = 'reject', history = 1000 } = given;
    const { waitTimeoutMs = Infinity, runTimeoutMs = Infinity, graceMs = Infinity } = given;
    const { defaultPriority = priorities, generateId } = given;
    this.#concurrency = positiveInteger('concurrency', given.concurrency);
    this.#maxWaiting = countOrInfinity('maxWaiting', maxWaiting);
    this.#priorities = integerWithin('priorities', priorities, 1, MAX_PRIORITIES);
    this.#overflow = oneOf('overflow', overflow, ['reject', 'shed']);
    this.#graceMs = msOrInfinity('graceMs', graceMs);
    this.#generateId = generateId === undefined ? undefined : callable('generateId', generateId);
    this.#plain = {
      id: undefined,
      key: undefined,
      priority: this.#priority('defaultPriority', defaultPriority),
      metadata: undefined,
      signal: undefined,
      waitTimeoutMs: msOrInfinity('waitTimeoutMs', waitTimeoutMs),
      runTimeoutMs: msOrInfinity('runTimeoutMs', runTimeoutMs),
      enqueuedAt: undefined,
      onTicket: undefined,
    };
    this.#plainAt = Array.from({ length: this.#priorities }, (_, index) => ({
      ...this.#plain,
      priority: index + 1,
    }));
    this.#finished = new History(integerWithin('history', history, 0, Number.MAX_SAFE_INTEGER));
    this.#time = new Time(given.clock);
    this.#line = new PriorityLine(this.#priorities);
    this.#meter = new QueueMeter(this.#priorities);
    this.#deadlines = new Deadlines(this.#time, (due, now) => this.#expired(due, now));
    this.#positions = new Positions(this, this.#line, (entry) => this.#positionOf(entry));
  }

  /** How many tasks may run at once. */
  get concurrency(): number {
    return this.#concurrency;
  }

  /** How many places are taken. */
  get active(): number {
    return this.#running.length;
  }

  /** How many are in line. */
  get waiting(): number {
    return this.#line.length;
  }

  /**
   * Calls `task` when its turn has come, and settles as it does. Rejects with `signal.reason` or
   * with `ERR_CLOSED`, `ERR_DUPLICATE_ID`, `ERR_QUEUE_FULL`, `ERR_SHED`, `ERR_WAIT_TIMEOUT` or
   * `ERR_RUN_TIMEOUT`.
   */
  run<T>(
    task: (context: QueueContext) => T | PromiseLike<T>,
    options?: EnqueueOptions,
  ): Promise<T> {
    let entry: Entry;
    try {
      entry = this.#accept(callable('task', task), this.#read('run', options));
    } catch (error) {
      deliver(this);
      return Promise.reject(error);
    }
    const starts = entry.holding;
    // What lets a waiting task start is a promise whose reaction is made here: the reaction runs in
    // the async context of this call, not in that of whoever gives the place up.
    const answer = starts ? entry.asked() : entry.turn().then(this.#startAnswering);
    this.#announce(entry);
    if (starts) this.#start(entry);
    return answer;
  }

  /**
   * The same as `run`, but hands back the ticket. Never throws: a ticket that is refused has a
   * `result` that rejects with the reason.
   */
  enqueue<T>(
    task: (context: QueueContext) => T | PromiseLike<T>,
    options?: EnqueueOptions,
  ): Ticket<T> {
    let call = this.#plain;
    let entry: Entry;
    try {
      callable('task', task);
      call = this.#read('enqueue', options);
      entry = this.#accept(task, call);
    } catch (error) {
      entry = new Entry(this.#owner, task, call, this.#time.now());
      entry.waitedUntil = entry.enqueuedAt;
      entry.answer('refused', false, error);
      deliver(this);
      const { ticket } = entry;
      entry.letGo();
      return ticket;
    }
    const starts = entry.holding;
    if (!starts) void entry.turn().then(this.#start);
    this.#announce(entry);
    if (starts) this.#start(entry);
    return entry.ticket;
  }

  /**
   * The place of the ticket with that id: 1 = next, 0 = its task runs, -1 = it has finished, -2 =
   * unknown, or finished so long ago that it is forgotten. O(log waiting).
   */
  position(id: string): number {
    const entry = this.#known.get(id);
    if (entry !== undefined) return this.#positionOf(entry);
    return this.#finished.has(id) ? -1 : -2;
  }

  /** The unfinished ticket with that id. */
  get(id: string): Ticket | undefined {
    return this.#known.get(id)?.ticket;
  }

  /** All unfinished tickets as of now: those whose tasks run, then those in line, in order. O(n). */
  tickets(): Iterable<Ticket> {
    return [...this.#running, ...this.#line].map((entry) => entry.ticket);
  }

  /**
   * How long a ticket of the least urgent priority at `position` (default: a newcomer's) has to
   * wait, in ms: position x mean service time / concurrency, divided by the share of the places that
   * the more urgent ones to come will leave. Taken over the latest 256 service times and arrivals.
   * 0 if it could start now, undefined while paused and until 5 tasks have settled.
   */
  estimateWaitMs(position: number = this.#line.length + 1): number | undefined {
    integerWithin('position', position, -2, Number.MAX_SAFE_INTEGER);
    return this.#estimate(position, this.#priorities);
  }

  /** Moves a waiting ticket to the end of another priority. False if no such ticket waits. */
  setPriority(id: string, priority: number): boolean {
    const entry = this.#known.get(id);
    this.#priority('priority', priority);
    return entry !== undefined && this.#setPriority(entry, priority);
  }

  /** As `ticket.cancel`. False if no such ticket is unanswered. */
  cancel(id: string, reason?: unknown): boolean {
    const entry = this.#known.get(id);
    return entry !== undefined && this.#cancel(entry, reason);
  }

  /** Nobody starts from now on; those who run go on, and newcomers join the line. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    if (heard(this, 'paused')) post(this, 'paused', this.#gauges());
    deliver(this);
  }

  /** Ends a pause. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (heard(this, 'resumed')) post(this, 'resumed', this.#gauges());
    this.#pump(this.#time.now());
    deliver(this);
  }

  /** Changes how many may run at once. Downwards, those who run go on: none is stopped. */
  resize(concurrency: number): void {
    positiveInteger('concurrency', concurrency);
    if (concurrency === this.#concurrency) return;
    this.#concurrency = concurrency;
    if (heard(this, 'resized')) post(this, 'resized', { concurrency, ...this.#gauges() });
    this.#pump(this.#time.now());
    deliver(this);
  }

  /** Resolves when no task runs and nobody waits: at once if that is so now. */
  idle(): Promise<void> {
    return this.#isIdle() ? Promise.resolve() : this.#idle.wait();
  }

  /**
   * Takes nobody new from now on: they get `ERR_CLOSED`. Those who wait are served (`'finish'`, the
   * default; in a paused queue, after `resume`) or get `ERR_CLOSED` too (`'reject'`).
   */
  close(options?: { readonly waiting?: 'finish' | 'reject' | undefined }): void {
    const { waiting = 'finish' } = readOptions('close', options, CLOSE_OPTIONS);
    const what = oneOf('waiting', waiting, ['finish', 'reject']);
    const first = !this.#closed;
    this.#closed = true;
    if (what === 'reject' && this.#line.length > 0) {
      const now = this.#time.now();
      for (const entry of this.#line) {
        this.#leave(entry, 'cancelled', new ClosedError('The queue'), now);
      }
      this.#checkIdle();
    }
    if (first && heard(this, 'closed')) post(this, 'closed', this.#gauges());
    deliver(this);
  }

  /** Closes and resolves when everybody accepted has been served. */
  drain(): Promise<void> {
    this.close();
    return this.idle();
  }

  /** The same as `drain`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.drain();
  }

  /** A snapshot: gauges now, counters since construction. O(priorities). */
  stats(): AdmissionQueueStats {
    return {
      concurrency: this.#concurrency,
      ...this.#gauges(),
      waitingByPriority: Array.from({ length: this.#priorities }, (_, index) =>
        this.#line.lengthOf(index + 1),
      ),
      maxWaiting: this.#maxWaiting,
      paused: this.#paused,
      closed: this.#closed,
      ...this.#meter.totals(this.#time.now()),
    };
  }

  #priority(name: string, value: unknown): number {
    return integerWithin(name, value, 1, this.#priorities);
  }

  #read(where: string, options: EnqueueOptions | undefined): Call {
    const call = this.#checked(where, options);
    if (call.id !== undefined || this.#generateId === undefined) return call;
    return { ...call, id: text('generateId()', this.#generateId()) };
  }

  #checked(where: string, options: EnqueueOptions | undefined): Call {
    if (options === undefined) return this.#plain;
    const names = Object.keys(options ?? {});
    if (names.length === 1 && names[0] === 'priority') {
      // By far the most frequent one: there is nothing to make for it.
      const { priority = this.#plain.priority } = options;
      return this.#plainAt[this.#priority('priority', priority) - 1]!;
    }
    const given = readOptions(where, options, CALL_OPTIONS);
    const { id, key, metadata, signal, enqueuedAt, onTicket } = given;
    const { priority = this.#plain.priority } = given;
    const { waitTimeoutMs = this.#plain.waitTimeoutMs } = given;
    const { runTimeoutMs = this.#plain.runTimeoutMs } = given;
    return {
      id: id === undefined ? undefined : text('id', id),
      key: key === undefined ? undefined : text('key', key),
      priority: this.#priority('priority', priority),
      metadata,
      signal: signal === undefined ? undefined : abortSignal('signal', signal),
      waitTimeoutMs: msOrInfinity('waitTimeoutMs', waitTimeoutMs),
      runTimeoutMs: msOrInfinity('runTimeoutMs', runTimeoutMs),
      enqueuedAt: enqueuedAt === undefined ? undefined : finite('enqueuedAt', enqueuedAt),
      onTicket: onTicket === undefined ? undefined : callable('onTicket', onTicket),
    };
  }

  /** The verdict on a caller: an entry with a place, an entry in line, or a throw. */
  #accept(task: (context: never) => unknown, call: Call): Entry {
    // A clock and a signal may call back: they come first, and the verdict is on what is then.
    const now = this.#time.read();
    // A record may come from a clock that was ahead of this one.
    const entry = new Entry(this.#owner, task, call, Math.min(call.enqueuedAt ?? now, now));
    const { signal } = call;
    try {
      if (signal !== undefined && !this.#closed) {
        // To subscribe for one who is refused all the same takes 3 us of 13.
        if (!signal.aborted) this.#judge(call);
        this.#watch(entry, signal);
      }
      this.#admit(entry, now);
    } catch (error) {
      this.#unwatch(entry);
      throw error;
    }
    return entry;
  }

  #watch(entry: Entry, signal: AbortSignal): void {
    if (!signal.aborted) this.#signals.add(signal, entry);
    // It may abort while it is being subscribed to; nobody has been told of that.
    const aborted = abortOf(signal);
    if (aborted === undefined) return;
    this.#refuse(entry.call, undefined);
    throw aborted.reason;
  }

  /** Throws for one who cannot get in as things are; else who has to go for it. */
  #judge(call: Call): Entry | undefined {
    if (this.#closed) throw this.#refuse(call, new ClosedError('The queue'));
    const { id } = call;
    if (id !== undefined && this.#known.has(id)) throw this.#refuse(call, new DuplicateIdError(id));
    if (this.#isFree()) return undefined;
    const full = this.#line.length >= this.#maxWaiting;
    const victim =
      full && this.#overflow === 'shed' ? this.#line.lastBelow(call.priority) : undefined;
    if (full && victim === undefined) {
      throw this.#refuse(call, this.#fullError(call.priority));
    }
    if (call.waitTimeoutMs === 0) throw this.#refuse(call, new WaitTimeoutError(0));
    return victim;
  }

  #admit(entry: Entry, now: number): void {
    const victim = this.#judge(entry.call);
    if (this.#isFree()) {
      this.#enter(entry, now);
      this.#grant(entry, now);
      return;
    }
    if (victim !== undefined) {
      const error = new ShedError(now - victim.enqueuedAt, this.#retryAfterMs());
      this.#leave(victim, 'shed', error, now);
      // Its signal may have called back: somebody else may have the room.
      this.#admit(entry, now);
      return;
    }
    this.#enter(entry, now);
    this.#join(entry, now);
  }

  /** The entry is accepted. */
  #enter(entry: Entry, now: number): void {
    const { id, enqueuedAt } = entry.call;
    this.#meter.accepted();
    // One that takes its old place again says nothing of who is to come.
    if (enqueuedAt === undefined) this.#meter.arrived(now, entry.priority);
    if (id !== undefined) this.#known.set(id, entry);
  }

  #join(entry: Entry, now: number): void {
    entry.status = 'waiting';
    const { enqueuedAt, waitTimeoutMs } = entry.call;
    if (enqueuedAt === undefined) this.#line.push(entry);
    else this.#line.insert(entry, (other) => other.placedAt > entry.placedAt);
    invariant(this.#line.length <= this.#maxWaiting, 'Q2');
    if (waitTimeoutMs < Infinity) entry.deadline = this.#deadlines.add(entry, now + waitTimeoutMs);
    if (heard(this, 'queued')) post(this, 'queued', this.#about(entry));
    this.#positions.changed();
  }

  #refuse<E extends { readonly code: string } | undefined>(call: Call, error: E): E {
    this.#meter.ended('refused');
    if (heard(this, 'refused')) {
      const { key, priority } = call;
      post(this, 'refused', { key, priority, code: error?.code, ...this.#gauges() });
    }
    return error;
  }

  #fullError(priority: number): QueueFullError {
    return new QueueFullError({
      waiting: this.#line.length,
      maxWaiting: this.#maxWaiting,
      estimatedWaitMs: this.#estimate(this.#line.lengthUpTo(priority) + 1, priority),
      retryAfterMs: this.#retryAfterMs(),
    });
  }

  #estimate(position: number, priority: number): number | undefined {
    if (position <= 0) return 0;
    if (this.#paused) return undefined;
    if (position <= this.#concurrency - this.#running.length) return 0;
    return this.#meter.estimateMs(position, priority, this.#concurrency, this.#time.now());
  }

  /** When the next place in line should come free: one leaves it for each task that settles. */
  #retryAfterMs(): number {
    const intervalMs = this.#paused ? undefined : this.#meter.intervalMs(this.#concurrency);
    return intervalMs === undefined ? RETRY_AFTER_MS : Math.max(1, intervalMs);
  }

  /** The caller gets its ticket, and listeners hear of it. */
  #announce(entry: Entry): void {
    const { onTicket } = entry.call;
    if (onTicket !== undefined) {
      try {
        onTicket(entry.ticket);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
    deliver(this);
  }

  #grant(entry: Entry, now: number): void {
    entry.status = 'active';
    entry.holding = true;
    entry.waitedUntil = now;
    this.#running.push(entry);
    invariant(this.#running.length <= this.#concurrency, 'Q1');
    if (entry.deadline !== undefined) this.#deadlines.remove(entry.deadline);
    const { runTimeoutMs } = entry.call;
    entry.deadline =
      runTimeoutMs < Infinity ? this.#deadlines.add(entry, now + runTimeoutMs) : undefined;
    const waitedMs = now - entry.enqueuedAt;
    this.#meter.started(waitedMs);
    if (heard(this, 'started')) post(this, 'started', { ...this.#about(entry), waitedMs });
    if (this.#running.length === this.#concurrency && !this.#saturated) {
      this.#saturated = true;
      if (heard(this, 'saturated')) post(this, 'saturated', this.#gauges());
    }
  }

  /** Gives free places to the first in line (Q3). */
  #pump(now: number): void {
    if (!this.#paused && this.#line.length > 0) {
      while (this.#line.length > 0 && this.#running.length < this.#concurrency) {
        const entry = this.#line.head!;
        this.#line.remove(entry);
        this.#grant(entry, now);
        // A clock may have called back where it has been cancelled meanwhile, or has only just joined.
        entry.resolve?.(entry as never);
      }
      this.#positions.changed();
    }
    this.#saturated = this.#running.length >= this.#concurrency;
  }

  /** Calls the task, unless its caller has been answered: in line, or between the grant and now. */
  readonly #start = (entry: Entry): void => {
    const { signal } = entry.call;
    const aborted = signal && abortOf(signal);
    if (aborted !== undefined && entry.status === 'active') {
      this.#interrupt(entry, 'cancelled', aborted.reason);
    }
    if (entry.status === 'active') {
      entry.perform(entry.task as (context: QueueContext) => unknown, new Context(entry));
    } else if (entry.holding) {
      this.#unwatch(entry);
      this.#vacate(entry);
      this.#pump(this.#time.now());
      this.#checkIdle();
      deliver(this);
    }
  };

  /** What `run` goes on with when its wait has ended. */
  readonly #startAnswering = (entry: Entry): Promise<never> => {
    if (entry.status !== 'active') {
      this.#start(entry);
      throw entry.reason;
    }
    const answer = entry.asked();
    this.#start(entry);
    return answer;
  };

  /** The task is over: the place goes on, then the caller is answered, then listeners hear of it. */
  #settled(entry: Entry, ok: boolean, value: unknown): void {
    this.#unwatch(entry);
    if (entry.holding) {
      const now = this.#time.now();
      const ranMs = this.#served(entry, now);
      this.#vacate(entry);
      const answered = entry.status !== 'active';
      if (!answered) {
        const name = ok ? 'completed' : 'failed';
        this.#meter.ended(name);
        if (ok && heard(this, 'completed')) {
          post(this, 'completed', { ...this.#aboutWait(entry), ranMs });
        } else if (!ok && heard(this, 'failed')) {
          post(this, 'failed', { ...this.#aboutWait(entry), ranMs, error: value });
        }
      }
      this.#pump(now);
      this.#checkIdle();
      if (!answered) entry.answer(ok ? 'completed' : 'failed', ok, value);
      deliver(this);
    }
  }

  /** Counts the time for which a place has been held. */
  #served(entry: Entry, now: number): number {
    const ranMs = now - entry.waitedUntil!;
    this.#meter.served(now, ranMs);
    return ranMs;
  }

  /** The entry gives its place up. */
  #vacate(entry: Entry): void {
    if (!entry.holding) return;
    entry.holding = false;
    this.#running.remove(entry);
    this.#forget(entry);
    this.#positions.changed();
  }

  /** Out of the line without a turn (Q6). */
  #leave(
    entry: Entry,
    status: 'cancelled' | 'timedOut' | 'shed',
    reason: unknown,
    now: number,
  ): void {
    this.#line.remove(entry);
    entry.waitedUntil = now;
    this.#meter.ended(status);
    entry.answer(status, false, reason);
    // A signal or a clock that calls back when it is left finds one that is over.
    this.#unwatch(entry);
    this.#forget(entry);
    if (heard(this, status)) {
      post(this, status, { ...this.#aboutWait(entry), ranMs: undefined });
    }
    this.#positions.changed();
  }

  /** The caller of a running task is answered; the place stays taken until the task has settled. */
  #interrupt(entry: Entry, status: 'cancelled' | 'timedOut', reason: unknown): void {
    this.#meter.ended(status);
    entry.answer(status, false, reason);
    this.#unwatch(entry);
    const now = this.#time.now();
    if (this.#graceMs < Infinity) entry.deadline = this.#deadlines.add(entry, now + this.#graceMs);
    if (heard(this, status)) {
      post(this, status, { ...this.#aboutWait(entry), ranMs: now - entry.waitedUntil! });
    }
    // Runs the task's abort listeners: everything is in order by now.
    entry.abort(reason);
  }

  #aborted(entries: ReadonlySet<Entry>, reason: unknown): void {
    const now = this.#time.now();
    for (const entry of entries) {
      if (entry.status === 'waiting') this.#leave(entry, 'cancelled', reason, now);
    }
    this.#checkIdle();
    for (const entry of entries) {
      if (entry.status === 'active') this.#interrupt(entry, 'cancelled', reason);
    }
    deliver(this);
  }

  #expired(due: readonly Entry[], now: number): void {
    for (const entry of due) {
      if (entry.status === 'waiting') {
        this.#leave(entry, 'timedOut', new WaitTimeoutError(now - entry.enqueuedAt), now);
      } else if (entry.status !== 'active' && entry.holding) {
        this.#meter.overrun();
        const ranMs = this.#served(entry, now);
        this.#vacate(entry);
        if (heard(this, 'overrun')) post(this, 'overrun', { ...this.#aboutWait(entry), ranMs });
      }
    }
    this.#pump(now);
    this.#checkIdle();
    // Last, since it runs the tasks' abort listeners, which may interrupt others of them.
    for (const entry of due) {
      if (entry.status === 'active') {
        this.#interrupt(entry, 'timedOut', new RunTimeoutError(now - entry.waitedUntil!));
      }
    }
    deliver(this);
  }

  #unwatch(entry: Entry): void {
    if (entry.call.signal !== undefined) this.#signals.remove(entry.call.signal, entry);
    if (entry.deadline !== undefined) this.#deadlines.remove(entry.deadline);
    entry.deadline = undefined;
  }

  #cancel(entry: Entry, reason: unknown): boolean {
    const now = this.#time.now();
    if (entry.status !== 'waiting' && entry.status !== 'active') return false;
    const why =
      reason === undefined ? new DOMException('The ticket was cancelled.', 'AbortError') : reason;
    if (entry.status === 'waiting') this.#leave(entry, 'cancelled', why, now);
    else this.#interrupt(entry, 'cancelled', why);
    this.#checkIdle();
    deliver(this);
    return true;
  }

  #setPriority(entry: Entry, priority: number): boolean {
    this.#priority('priority', priority);
    const now = this.#time.now();
    if (entry.status !== 'waiting') return false;
    if (priority !== entry.priority) {
      this.#line.remove(entry);
      entry.priority = priority;
      entry.placedAt = now;
      this.#line.push(entry);
      this.#positions.changed();
    }
    return true;
  }

  #positionOf(entry: Entry): number {
    if (entry.status === 'waiting') return this.#line.position(entry);
    return entry.holding ? 0 : -1;
  }

  /** An entry that nobody knew the id of gets one. */
  #identify(entry: Entry): string {
    const id = nanoid();
    if (entry.holding || entry.status === 'waiting') this.#known.set(id, entry);
    else if (entry.status !== 'refused') this.#finished.add(id, undefined);
    return id;
  }

  #forget(entry: Entry): void {
    entry.letGo();
    const id = entry.knownId;
    if (id === undefined) return;
    this.#known.delete(id);
    this.#finished.add(id, undefined);
  }

  #isFree(): boolean {
    return !this.#paused && this.#running.length < this.#concurrency;
  }

  #isIdle(): boolean {
    return this.#running.length === 0 && this.#line.length === 0;
  }

  /** To be asked where somebody has left or a place has come free, and nowhere else. */
  #checkIdle(): void {
    if (!this.#isIdle()) return;
    this.#idle.release();
    if (heard(this, 'idle')) post(this, 'idle', this.#gauges());
  }

  #gauges(): QueueGauges {
    return { active: this.#running.length, waiting: this.#line.length };
  }

  #about(entry: Entry): TicketEvent {
    const { id, priority, call } = entry;
    return { id, key: call.key, priority, ...this.#gauges() };
  }

  #aboutWait(entry: Entry): TicketWaitedEvent {
    return { ...this.#about(entry), waitedMs: entry.waitedUntil! - entry.enqueuedAt };
  }
}
