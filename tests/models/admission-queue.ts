import type { TicketStatus } from 'sluice/admission-queue';

/** One call of a queue, as the model sees it. */
export interface Caller {
  readonly id: string;
  priority: number;
  readonly signal: AbortSignal | undefined;
  readonly waitTimeoutMs: number;
  readonly runTimeoutMs: number;
  readonly enqueuedAt: number | undefined;
  /** How its task ends by itself, as soon as it has started; undefined where it waits to be told. */
  readonly ends: 'ok' | 'failed' | undefined;
  /** How it was answered: 'ok', the code of an error or the reason of a signal. */
  outcome?: unknown;
  status?: TicketStatus;
  placedAt?: number;
  started?: boolean;
  dueAt?: number;
}

export interface ModelSettings {
  readonly concurrency: number;
  readonly maxWaiting: number;
  readonly overflow: 'reject' | 'shed';
  readonly graceMs: number;
}

type Ended = 'completed' | 'failed' | 'cancelled' | 'timedOut' | 'shed' | 'refused';

/**
 * What an admission queue does, in the obvious way: those who wait in one array in the order of
 * their turns, where a position is an index plus one. `settle` is the microtasks after a turn, `tick`
 * one instant.
 */
export class AdmissionQueueModel {
  now = 0;
  closed = false;
  paused = false;
  concurrency: number;
  readonly settings: ModelSettings;
  line: Caller[] = [];
  /** Those who have places, in the order in which they got them. */
  readonly running = new Set<Caller>();
  readonly counts = {
    accepted: 0,
    started: 0,
    completed: 0,
    failed: 0,
    cancelled: 0,
    timedOut: 0,
    shed: 0,
    refused: 0,
    overrun: 0,
  };

  constructor(settings: ModelSettings) {
    this.settings = settings;
    this.concurrency = settings.concurrency;
  }

  positionOf(caller: Caller): number {
    if (this.running.has(caller)) return 0;
    const index = this.line.indexOf(caller);
    return index === -1 ? -1 : index + 1;
  }

  find(id: string): Caller | undefined {
    return [...this.running, ...this.line].find((caller) => caller.id === id);
  }

  arrive(caller: Caller): void {
    const { maxWaiting, overflow } = this.settings;
    const refuse = (outcome: unknown): void => this.#answer(caller, 'refused', outcome);
    if (this.closed) return refuse('ERR_CLOSED');
    if (caller.signal?.aborted === true) return refuse(caller.signal.reason);
    if (this.find(caller.id) !== undefined) return refuse('ERR_DUPLICATE_ID');
    if (!this.paused && this.running.size < this.concurrency) {
      this.counts.accepted++;
      this.#grant(caller);
      caller.started = true;
      return;
    }
    const full = this.line.length >= maxWaiting;
    const last = this.line.at(-1);
    const sheds = full && overflow === 'shed' && (last?.priority ?? 0) > caller.priority;
    if (full && !sheds) return refuse('ERR_QUEUE_FULL');
    if (caller.waitTimeoutMs === 0) return refuse('ERR_WAIT_TIMEOUT');
    this.counts.accepted++;
    if (sheds) this.#leave([last!], 'shed', 'ERR_SHED');
    caller.status = 'waiting';
    caller.dueAt = this.now + caller.waitTimeoutMs;
    this.#place(caller, Math.min(caller.enqueuedAt ?? this.now, this.now));
  }

  /** Answers the caller of an unfinished ticket; whether there was one. */
  cancel(caller: Caller, outcome: unknown): boolean {
    if (caller.status === 'waiting') this.#leave([caller], 'cancelled', outcome);
    else if (caller.status === 'active') this.#interrupt(caller, 'cancelled', outcome);
    else return false;
    return true;
  }

  abort(signal: AbortSignal): void {
    for (const caller of [...this.line, ...this.running]) {
      if (caller.signal === signal) this.cancel(caller, signal.reason);
    }
  }

  setPriority(caller: Caller, priority: number): boolean {
    if (caller.status !== 'waiting') return false;
    if (priority !== caller.priority) {
      this.line.splice(this.line.indexOf(caller), 1);
      caller.priority = priority;
      this.#place(caller, this.now);
    }
    return true;
  }

  /** The task has settled. */
  finish(caller: Caller, outcome: 'ok' | 'failed'): void {
    if (caller.status === 'active') {
      this.#answer(caller, outcome === 'ok' ? 'completed' : 'failed', outcome);
    }
    this.#vacate(caller);
  }

  resize(concurrency: number): void {
    this.concurrency = concurrency;
    this.#pump();
  }

  pause(paused: boolean): void {
    this.paused = paused;
    this.#pump();
  }

  close(waiting: 'finish' | 'reject'): void {
    this.closed = true;
    if (waiting === 'reject') this.#leave([...this.line], 'cancelled', 'ERR_CLOSED');
  }

  /** Those whose turn has come start, unless they were answered meanwhile. */
  settle(): void {
    for (const caller of this.running) {
      if (caller.started !== true && caller.status !== 'active') this.#vacate(caller);
      caller.started = true;
      if (caller.ends !== undefined && this.running.has(caller)) this.finish(caller, caller.ends);
    }
  }

  /** Those who have a deadline. */
  get subjects(): Caller[] {
    return [...this.line, ...this.running].filter(({ dueAt }) => dueAt! < Infinity);
  }

  get nextAt(): number {
    return Math.min(...this.subjects.map(({ dueAt }) => dueAt!));
  }

  tick(): void {
    const due = this.subjects.filter(({ dueAt }) => dueAt! <= this.now);
    const late = due.filter(({ status }) => status === 'active');
    const waiting = this.line.filter((caller) => due.includes(caller));
    this.#leave(waiting, 'timedOut', 'ERR_WAIT_TIMEOUT');
    for (const caller of due) {
      if (waiting.includes(caller) || late.includes(caller)) continue;
      this.counts.overrun++;
      this.#vacate(caller);
    }
    for (const caller of late) this.#interrupt(caller, 'timedOut', 'ERR_RUN_TIMEOUT');
    this.settle();
  }

  #place(caller: Caller, placedAt: number): void {
    caller.placedAt = placedAt;
    const behind = this.line.findIndex(
      (other) =>
        other.priority > caller.priority ||
        (other.priority === caller.priority && other.placedAt! > placedAt),
    );
    this.line.splice(behind === -1 ? this.line.length : behind, 0, caller);
  }

  #grant(caller: Caller): void {
    this.running.add(caller);
    this.counts.started++;
    caller.status = 'active';
    caller.dueAt = this.now + caller.runTimeoutMs;
  }

  #pump(): void {
    while (!this.paused && this.line.length > 0 && this.running.size < this.concurrency) {
      this.#grant(this.line.shift()!);
    }
  }

  #vacate(caller: Caller): void {
    if (this.running.delete(caller)) this.#pump();
  }

  #leave(callers: readonly Caller[], status: Ended, outcome: unknown): void {
    this.line = this.line.filter((caller) => !callers.includes(caller));
    for (const caller of callers) this.#answer(caller, status, outcome);
  }

  #interrupt(caller: Caller, status: Ended, outcome: unknown): void {
    caller.dueAt = this.now + this.settings.graceMs;
    this.#answer(caller, status, outcome);
  }

  #answer(caller: Caller, status: Ended, outcome: unknown): void {
    caller.status = status;
    caller.outcome = outcome;
    this.counts[status]++;
  }
}
