import { Execution } from './execution.ts';
import type { Deadline } from './deadlines.ts';
import type { PriorityNode } from './priority-line.ts';

/**
 * Where a ticket is and how its caller was answered:
 *
 *     waiting ──▶ active ──▶ completed | failed
 *        │           └─────▶ cancelled | timedOut     (the task may still run: position 0)
 *        └─────────────────▶ cancelled | timedOut | shed
 *     refused                                         (never got in)
 */
export type TicketStatus =
  | 'waiting'
  | 'active'
  | 'completed'
  | 'failed'
  | 'cancelled'
  | 'timedOut'
  | 'shed'
  | 'refused';

/** A ticket in plain data, to be written down and enqueued again in its old place. */
export interface TicketRecord {
  readonly id: string;
  readonly key: string | undefined;
  readonly priority: number;
  readonly metadata: unknown;
  /** When it took its present place, by the queue's clock: what `enqueue` wants to give it back. */
  readonly enqueuedAt: number;
  readonly status: TicketStatus;
  readonly position: number;
  readonly waitedMs: number;
}

/** A caller's place in a queue. */
export interface Ticket<T = unknown> {
  readonly id: string;
  readonly key: string | undefined;
  readonly priority: number;
  /** As handed in: neither copied nor looked at. */
  readonly metadata: unknown;
  /** When it joined, by the queue's clock, in ms. */
  readonly enqueuedAt: number;
  readonly status: TicketStatus;
  /** How many start before it, plus one; 0 while its task runs, -1 when it is over. O(log n). */
  readonly position: number;
  /** How long until it starts, in ms; 0 when it has, undefined while there is too little to go by. */
  readonly estimatedWaitMs: number | undefined;
  /**
   * Settles as the task does, or rejects with why it was not run or not waited for. The promise is
   * made when this is first read: a ticket whose result nobody reads cannot be an unhandled rejection.
   */
  readonly result: Promise<T>;
  /**
   * Ends the wait, or aborts the running task's signal; `result` rejects with `reason` (an
   * `AbortError` by default). False when it was answered already.
   */
  cancel(reason?: unknown): boolean;
  /** Moves it to the end of another priority. False when it does not wait any more. */
  setPriority(priority: number): boolean;
  /**
   * The position now and after each change, up to 0 when the task starts; then, or when the ticket
   * leaves the line in another way, it ends. Conflated: a consumer that is slow gets the latest
   * position and none of those in between, and costs O(1) meanwhile.
   */
  positions(): AsyncIterableIterator<number>;
  /** `metadata` goes in as it is, so that it must be JSON for the record to be. */
  toJSON(): TicketRecord;
}

/** The options of one call, checked, with the queue's defaults filled in. */
export interface Call {
  readonly id: string | undefined;
  readonly key: string | undefined;
  readonly priority: number;
  readonly metadata: unknown;
  readonly signal: AbortSignal | undefined;
  readonly waitTimeoutMs: number;
  readonly runTimeoutMs: number;
  readonly enqueuedAt: number | undefined;
  readonly onTicket: ((ticket: Ticket<never>) => void) | undefined;
}

/** What an entry needs of the queue that it is in. */
export interface EntryOwner {
  now(): number;
  /** Makes an id for an entry that was not given one, when somebody asks for it. */
  identify(entry: Entry): string;
  positionOf(entry: Entry): number;
  estimateOf(entry: Entry): number | undefined;
  cancel(entry: Entry, reason: unknown): boolean;
  setPriority(entry: Entry, priority: number): boolean;
  positionsOf(entry: Entry): AsyncIterableIterator<number>;
  settled(entry: Entry, ok: boolean, value: unknown): void;
}

/**
 * What most entries never have. Kept apart from them since a line of a million of them is copied
 * by the garbage collector: it is 40 bytes less for each.
 */
class Extras {
  id: string | undefined;
  ticket: TicketHandle | undefined;
  movedAt: number | undefined;
  outcome: { readonly ok: boolean; readonly value: unknown } | undefined;
  result: PromiseWithResolvers<unknown> | undefined;
}

/** What a queue keeps of one call: its place in line, then its execution. */
export class Entry extends Execution implements PriorityNode {
  // These three are what a position is made of: side by side it takes a third less, with a million waiting.
  slot = 0;
  priority: number;
  status: TicketStatus = 'refused';
  /** Undefined when it is over. */
  task: ((context: never) => unknown) | undefined;
  call: Call;
  readonly enqueuedAt: number;
  /** When its wait ended: it started or left. */
  waitedUntil: number | undefined;
  /** Whether it has one of the queue's places, which may outlast the answer to its caller. */
  holding = false;
  deadline: Deadline | undefined;
  /** Ends the wait, one way or the other; then answers the caller of `run`. */
  resolve: ((value: never) => void) | undefined;
  /** Only while it answers: one function less for each that waits. */
  reject: ((reason: unknown) => void) | undefined;
  readonly #owner: EntryOwner;
  #extras: Extras | undefined;
  /** What a task returned whose ticket nobody had yet: its context can still make one. */
  #value: unknown;

  constructor(
    owner: EntryOwner,
    task: (context: never) => unknown,
    call: Call,
    enqueuedAt: number,
  ) {
    super();
    this.#owner = owner;
    this.task = task;
    this.call = call;
    this.priority = call.priority;
    this.enqueuedAt = enqueuedAt;
    if (call.id !== undefined) this.#extra.id = call.id;
  }

  get #extra(): Extras {
    return (this.#extras ??= new Extras());
  }

  get id(): string {
    return (this.#extra.id ??= this.#owner.identify(this));
  }

  /** The id if anybody can know it. */
  get knownId(): string | undefined {
    return this.#extras?.id;
  }

  get ticket(): TicketHandle {
    return (this.#extra.ticket ??= new TicketHandle(this, this.#owner));
  }

  /** When it took its place in its band, which each band is in order of. */
  get placedAt(): number {
    return this.#extras?.movedAt ?? this.enqueuedAt;
  }

  set placedAt(now: number) {
    this.#extra.movedAt = now;
  }

  get result(): Promise<unknown> {
    const extra = this.#extra;
    if (extra.result === undefined) {
      extra.result = Promise.withResolvers();
      if (this.status === 'completed') extra.outcome ??= { ok: true, value: this.#value };
      settle(extra);
    }
    return extra.result.promise;
  }

  /** Why it was not, or will not be, completed. */
  get reason(): unknown {
    return this.#extras!.outcome!.value;
  }

  /** The end of its wait. */
  turn(): Promise<this> {
    const { promise, resolve } = Promise.withResolvers<this>();
    this.resolve = resolve;
    return promise;
  }

  /** The answer to the caller of `run`. */
  asked(): Promise<never> {
    return new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  /** Answers the caller, once. */
  answer(status: TicketStatus, ok: boolean, value: unknown): void {
    const { resolve, reject } = this;
    this.status = status;
    // An entry that has waited long is old to the garbage collector, and what it still refers to
    // gets old with it: so it refers to nothing that nobody can ask for.
    this.resolve = undefined;
    this.reject = undefined;
    if (!ok || this.#extras?.ticket !== undefined) {
      this.#extra.outcome = { ok, value };
      settle(this.#extra);
    } else {
      this.#value = value;
    }
    if (ok) resolve?.(value as never);
    else if (reject !== undefined) reject(value);
    else resolve?.(this as never);
  }

  /** Who keeps the ticket of what is over keeps nothing that can no more be asked for. */
  letGo(): void {
    this.task = undefined;
    const { signal, onTicket } = this.call;
    if (this.#extras?.ticket !== undefined && (signal !== undefined || onTicket !== undefined)) {
      this.call = { ...this.call, signal: undefined, onTicket: undefined };
    }
  }

  protected override settled(ok: boolean, value: unknown): void {
    this.#owner.settled(this, ok, value);
  }
}

/** The result settles when it has been asked for and the outcome is known. */
function settle({ outcome, result }: Extras): void {
  if (outcome === undefined || result === undefined) return;
  if (outcome.ok) result.resolve(outcome.value);
  else result.reject(outcome.value);
}

/** The public side of an entry. */
class TicketHandle implements Ticket<never> {
  readonly #entry: Entry;
  readonly #owner: EntryOwner;

  constructor(entry: Entry, owner: EntryOwner) {
    this.#entry = entry;
    this.#owner = owner;
  }

  get id(): string {
    return this.#entry.id;
  }

  get key(): string | undefined {
    return this.#entry.call.key;
  }

  get priority(): number {
    return this.#entry.priority;
  }

  get metadata(): unknown {
    return this.#entry.call.metadata;
  }

  get enqueuedAt(): number {
    return this.#entry.enqueuedAt;
  }

  get status(): TicketStatus {
    return this.#entry.status;
  }

  get position(): number {
    return this.#owner.positionOf(this.#entry);
  }

  get estimatedWaitMs(): number | undefined {
    return this.#owner.estimateOf(this.#entry);
  }

  get result(): Promise<never> {
    return this.#entry.result as Promise<never>;
  }

  cancel(reason?: unknown): boolean {
    return this.#owner.cancel(this.#entry, reason);
  }

  setPriority(priority: number): boolean {
    return this.#owner.setPriority(this.#entry, priority);
  }

  positions(): AsyncIterableIterator<number> {
    return this.#owner.positionsOf(this.#entry);
  }

  toJSON(): TicketRecord {
    const { id, priority, placedAt, enqueuedAt, waitedUntil, status, call } = this.#entry;
    return {
      id,
      key: call.key,
      priority,
      metadata: call.metadata,
      enqueuedAt: placedAt,
      status,
      position: this.position,
      waitedMs: Math.max(0, (waitedUntil ?? this.#owner.now()) - enqueuedAt),
    };
  }
}
