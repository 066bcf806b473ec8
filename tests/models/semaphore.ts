/** One call of a semaphore, as the model sees it. */
export interface Caller {
  readonly id: number;
  /** A `run`, and not an `acquire`. */
  readonly runs: boolean;
  readonly weight: number;
  readonly signal: AbortSignal | undefined;
  readonly waitTimeoutMs: number;
  readonly runTimeoutMs: number;
  readonly graceMs: number;
  /** How its task ends by itself, as soon as it has started; undefined where it waits to be told. */
  readonly ends: 'ok' | 'failed' | undefined;
  /** How it was answered: 'ok', the code of an error or the reason of a signal. */
  outcome?: unknown;
  started?: boolean;
  dueAt?: number;
  overheldAt?: number;
}

/**
 * What a semaphore does, in the obvious way: an array to wait in and a set of those who hold permits.
 * `settle` is the microtasks after a turn, `tick` one instant.
 */
export class SemaphoreModel {
  now = 0;
  closed = false;
  capacity: number;
  readonly maxWaiting: number;
  readonly maxHoldMs: number;
  line: Caller[] = [];
  readonly held = new Set<Caller>();
  readonly counts = {
    acquired: 0,
    queued: 0,
    released: 0,
    refused: 0,
    cancelled: 0,
    timedOut: 0,
    overrun: 0,
    overheld: 0,
  };

  constructor(capacity: number, maxWaiting: number, maxHoldMs: number) {
    this.capacity = capacity;
    this.maxWaiting = maxWaiting;
    this.maxHoldMs = maxHoldMs;
  }

  get active(): number {
    return [...this.held].reduce((sum, { weight }) => sum + weight, 0);
  }

  arrive(caller: Caller): void {
    const { weight, signal, waitTimeoutMs } = caller;
    const refuse = (outcome: unknown): void => {
      caller.outcome = outcome;
      this.counts.refused++;
    };
    if (this.closed) refuse('ERR_CLOSED');
    else if (signal?.aborted === true) refuse(signal.reason);
    else if (weight > this.capacity) refuse('ERR_EXCEEDS_CAPACITY');
    else if (this.line.length === 0 && weight <= this.capacity - this.active) {
      this.#grant(caller);
      if (caller.runs) this.#start(caller);
    } else if (this.line.length >= this.maxWaiting) refuse('ERR_QUEUE_FULL');
    else if (waitTimeoutMs === 0) refuse('ERR_WAIT_TIMEOUT');
    else {
      caller.dueAt = this.now + waitTimeoutMs;
      this.line.push(caller);
      this.counts.queued++;
    }
  }

  release(caller: Caller): void {
    this.held.delete(caller);
    this.counts.released++;
    this.#pump();
  }

  /** The task of a `run` has settled. */
  finish(caller: Caller, outcome: unknown): void {
    caller.outcome ??= outcome;
    caller.dueAt = Infinity;
    if (this.held.has(caller)) this.release(caller);
  }

  abort(signal: AbortSignal): void {
    const waiting = this.line.filter((caller) => caller.signal === signal);
    this.#leave(waiting, signal.reason, 'cancelled');
    for (const caller of this.held) {
      if (caller.signal === signal && caller.started === true && caller.outcome === undefined) {
        this.#interrupt(caller, signal.reason);
      }
    }
  }

  resize(capacity: number): void {
    this.capacity = capacity;
    const impossible = this.line.filter(({ weight }) => weight > capacity);
    this.#leave(impossible, 'ERR_EXCEEDS_CAPACITY', 'cancelled');
  }

  close(waiting: 'finish' | 'reject'): void {
    this.closed = true;
    if (waiting === 'reject') this.#leave(this.line, 'ERR_CLOSED', 'cancelled');
  }

  /** Those whose turn has come start, unless their signal was aborted meanwhile. */
  settle(): void {
    for (const caller of this.held) {
      if (!caller.runs) continue;
      if (caller.started !== true && caller.signal?.aborted === true) {
        this.finish(caller, caller.signal.reason);
      } else {
        if (caller.started !== true) this.#start(caller);
        if (caller.ends !== undefined) this.finish(caller, caller.ends);
      }
    }
  }

  /** The next instant at which something is due. */
  get nextAt(): number {
    return Math.min(
      ...this.subjects.map(({ dueAt }) => dueAt!),
      ...[...this.held].map(({ overheldAt }) => overheldAt!),
    );
  }

  /** Those who have a deadline. */
  get subjects(): Caller[] {
    return [...this.line, ...this.held].filter(({ dueAt = Infinity }) => dueAt < Infinity);
  }

  tick(): void {
    const due = this.subjects.filter(({ dueAt }) => dueAt! <= this.now);
    const late = this.line.filter((caller) => due.includes(caller));
    for (const caller of this.held) {
      if (caller.overheldAt! > this.now) continue;
      caller.overheldAt = Infinity;
      this.counts.overheld++;
    }
    this.#leave(late, 'ERR_WAIT_TIMEOUT', 'timedOut');
    for (const caller of due.filter((one) => !late.includes(one))) {
      caller.dueAt = Infinity;
      if (caller.outcome === undefined) {
        this.#interrupt(caller, 'ERR_RUN_TIMEOUT');
      } else {
        this.counts.overrun++;
        this.release(caller);
      }
    }
    this.settle();
  }

  #grant(caller: Caller): void {
    this.held.add(caller);
    this.counts.acquired++;
    caller.dueAt = Infinity;
    caller.overheldAt = this.now + this.maxHoldMs;
    if (!caller.runs) caller.outcome = 'ok';
  }

  #start(caller: Caller): void {
    caller.started = true;
    caller.dueAt = this.now + caller.runTimeoutMs;
  }

  #pump(): void {
    while (this.line.length > 0 && this.line[0]!.weight <= this.capacity - this.active) {
      this.#grant(this.line.shift()!);
    }
  }

  #leave(callers: readonly Caller[], outcome: unknown, as: 'cancelled' | 'timedOut'): void {
    this.line = this.line.filter((caller) => !callers.includes(caller));
    for (const caller of callers) caller.outcome = outcome;
    this.counts[as] += callers.length;
    this.#pump();
  }

  #interrupt(caller: Caller, outcome: unknown): void {
    caller.outcome = outcome;
    caller.dueAt = this.now + caller.graceMs;
  }
}
