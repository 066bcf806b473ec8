import { SluiceError } from '../../src/errors.ts';
import type { ClockView, Sim } from './sim.ts';

/** The options that calls of all gates have. */
export interface Limits {
  readonly signal?: AbortSignal | undefined;
  readonly waitTimeoutMs?: number | undefined;
  readonly runTimeoutMs?: number | undefined;
  readonly graceMs?: number | undefined;
}

/** What a call comes to at once: its place, a place in line, or a refusal by its code. */
export type Verdict = 'grant' | 'wait' | 'aborted' | `ERR_${string}`;

/** One call of a primitive as it looks from outside. */
export class Call {
  readonly id: number;
  readonly verdict: Verdict;
  readonly weight: number;
  readonly priority: number;
  readonly limits: Limits;
  readonly arrivedAt: number;
  /** What the async context of the caller holds. */
  readonly context: object | undefined;
  /** Its task was called, or it got its permit. */
  startedAt: number | undefined;
  /** Its task has settled, or its permit has been given back. */
  over = false;
  outcome: { readonly ok: boolean; readonly value: unknown } | undefined;
  taskSignal: AbortSignal | undefined;
  answeredAt: number | undefined;
  /** Why somebody has sent it away. */
  dismissal: { readonly reason: unknown } | undefined;
  /** A code that it may be answered with because of what has happened since. */
  allowed: string | undefined;

  constructor(
    id: number,
    verdict: Verdict,
    weight: number,
    priority: number,
    limits: Limits,
    now: number,
    context: object | undefined,
  ) {
    this.id = id;
    this.verdict = verdict;
    this.weight = weight;
    this.priority = priority;
    this.limits = limits;
    this.arrivedAt = now;
    this.context = context;
  }

  get waits(): boolean {
    return this.startedAt === undefined && this.answeredAt === undefined;
  }

  /** When it loses its place although its task still runs. */
  get graceEndsAt(): number {
    if (this.answeredAt === undefined || this.startedAt === undefined) return Infinity;
    return this.answeredAt + (this.limits.graceMs ?? Infinity);
  }

  holds(now: number): boolean {
    return this.startedAt !== undefined && !this.over && this.graceEndsAt > now;
  }
}

export interface PromiseIds {
  /** Never more than there is room for. */
  readonly most: string;
  /** The gauge of those who hold. */
  readonly active: string;
  /** In order. */
  readonly order: string;
  /** Nobody waits who could have its place. */
  readonly head: string;
  /** Answered once, in time, and in line until then. */
  readonly once: string;
}

/**
 * The ledger of one primitive: it hears of calls before the primitive does, sees tasks begin and
 * end and promises settle, and compares what the primitive says of itself with that.
 */
export abstract class Watch<C extends Call> {
  readonly sim: Sim;
  readonly name: string;
  readonly ids: PromiseIds;
  readonly clock: ClockView;
  /** Those that are not answered, or hold something. */
  readonly calls = new Set<C>();
  /** Those who were let in since everything was at rest. */
  readonly granted: C[] = [];
  /** The most there was room for since everything was at rest. */
  room = 0;
  rejectsWaiting = false;
  /** Whether places in line have been changed since everything was at rest. */
  reordered = false;
  #lastId = 0;
  /** The last one that had come when everything was at rest. */
  #seen = 0;

  constructor(sim: Sim, name: string, clock: ClockView, ids: PromiseIds) {
    this.sim = sim;
    this.name = name;
    this.clock = clock;
    this.ids = ids;
  }

  /** The sum of the weights of those who hold. */
  get live(): number {
    let live = 0;
    for (const call of this.calls) if (call.holds(this.sim.now)) live += call.weight;
    return live;
  }

  get waiting(): C[] {
    return [...this.calls].filter(
      (call) => call.waits && call.verdict !== 'aborted' && !call.verdict.startsWith('ERR'),
    );
  }

  nextId(): number {
    return ++this.#lastId;
  }

  fail(id: string, what: string): void {
    this.sim.fail(id, `${this.name}: ${what}`);
  }

  arrived(call: C): void {
    this.calls.add(call);
    if (call.limits.signal !== undefined) this.sim.signals.add(call.limits.signal);
    this.sim.log(`${this.name} ${call.id} comes: ${call.verdict}`);
  }

  /** The function to be given to the primitive in the place of the task. */
  tap<Context extends { readonly signal: AbortSignal }, T>(
    call: C,
    task: (context: Context) => T | PromiseLike<T>,
  ): (context: Context) => T | PromiseLike<T> {
    return (context) => {
      this.begun(call);
      if (call.limits.signal?.aborted === true) {
        this.fail(this.ids.once, `${call.id} is called though its signal has been aborted`);
      }
      if (this.sim.context.getStore() !== call.context) {
        this.fail('T6', `${this.name} ${call.id} is called in the context of another`);
      }
      // Reading it half of the time: what is not read must not be needed.
      if (call.id % 2 === 0) call.taskSignal = context.signal;
      const { sim } = this;
      let result: T | PromiseLike<T>;
      try {
        result = task(context);
      } catch (error) {
        this.ended(call, false, error);
        throw error;
      }
      whenOver(sim, result, (ok, value) => this.ended(call, ok, value));
      return result;
    };
  }

  /** It has got its place. */
  begun(call: C): void {
    const { sim, ids } = this;
    if (call.startedAt !== undefined) this.fail(ids.once, `${call.id} is let in twice`);
    if (call.answeredAt !== undefined) this.fail(ids.once, `${call.id} is let in after its answer`);
    if (call.verdict !== 'grant' && call.verdict !== 'wait') {
      this.fail(ids.once, `${call.id} is let in, not refused: ${call.verdict}`);
    }
    if (this.live + call.weight > this.room) {
      this.fail(
        ids.most,
        `${call.id} is one too many: ${this.live} + ${call.weight} of ${this.room}`,
      );
    }
    call.startedAt = sim.now;
    this.granted.push(call);
    sim.log(`${this.name} ${call.id} starts`);
  }

  /** Its task has settled. */
  ended(call: C, ok: boolean, value: unknown): void {
    call.over = true;
    call.outcome ??= { ok, value };
    this.forget(call);
  }

  /** The promise that its caller got is to settle once, in time, with the right thing. */
  follow(call: C, promise: Promise<unknown>): void {
    promise.then(
      (value) => this.#answered(call, true, value),
      (error: unknown) => this.#answered(call, false, error),
    );
  }

  /** What has to hold whenever nothing is on the stack. */
  abstract check(): void;

  /** What has to hold when everything that needs no time has happened. */
  checkAtRest(): void {
    const { ids, waiting } = this;
    for (const call of this.calls) this.#checkInTime(call);
    for (const call of this.granted) {
      // Who came since then may have come after the other was let in.
      const passed = waiting.find((other) => other.id <= this.#seen && this.precedes(other, call));
      if (passed !== undefined) {
        this.fail(ids.order, `${call.id} was let in before ${passed.id}`);
      }
    }
    this.granted.length = 0;
    this.#seen = this.#lastId;
    this.reordered = false;
    if (this.clock.armed > 3) this.fail('I8', `${this.clock.armed} timers`);
    this.clock.set = 0;
  }

  /** At the end nothing may be left. */
  checkAtEnd(): void {
    for (const call of this.calls) {
      this.fail(
        'I10',
        `${call.id} is ${call.answeredAt === undefined ? 'not answered' : 'not over'}`,
      );
    }
    if (this.clock.armed > 0) this.fail('I8', `${this.clock.armed} timers at the end`);
  }

  /** Whether `a` waits in front of `b`. */
  precedes(a: C, b: C): boolean {
    return a.priority < b.priority || (a.priority === b.priority && a.id < b.id);
  }

  /** Whether an answer other than the common ones is right. */
  allows(call: C, code: string): boolean {
    return call.allowed === code;
  }

  /** Whether the primitive has to listen to the signal of the call. */
  listens(call: C): boolean {
    return call.answeredAt === undefined && !call.over;
  }

  /** The signals that the primitive has to listen to, once each (I7). */
  signals(): Set<AbortSignal> {
    const signals = new Set<AbortSignal>();
    for (const call of this.calls) {
      const { signal } = call.limits;
      if (signal?.aborted === false && this.listens(call)) signals.add(signal);
    }
    return signals;
  }

  #answered(call: C, ok: boolean, value: unknown): void {
    this.sim.log(`${this.name} ${call.id} answered: ${ok ? 'ok' : nameOf(value)}`);
    this.sim.inspect(value);
    const wrong = ok ? this.#wrongResult(call, value) : this.#wrongError(call, value);
    if (wrong !== undefined) this.fail(this.ids.once, `${call.id} ${wrong}`);
    call.answeredAt = this.sim.now;
    this.forget(call);
  }

  #wrongResult(call: C, value: unknown): string | undefined {
    if (call.startedAt === undefined) return 'has a result though it was not let in';
    const { outcome } = call;
    if (outcome === undefined) return 'has a result before its task';
    return outcome.ok && outcome.value === value ? undefined : 'has the result of another';
  }

  #wrongError(call: C, error: unknown): string | undefined {
    const { signal, waitTimeoutMs = Infinity, runTimeoutMs = Infinity } = call.limits;
    if (signal?.aborted === true && signal.reason === error) return undefined;
    if (call.dismissal?.reason === error && error !== undefined) return undefined;
    if (call.outcome?.ok === false && call.outcome.value === error) return undefined;
    if (!(error instanceof SluiceError)) return `fails with something foreign: ${nameOf(error)}`;
    const { code } = error;
    if (code === call.verdict)
      return call.startedAt === undefined ? undefined : 'is refused after it was let in';
    const { now } = this.sim;
    if (code === 'ERR_WAIT_TIMEOUT' && call.waits && call.verdict === 'wait') {
      return now >= call.arrivedAt + waitTimeoutMs ? undefined : 'is out of time before its time';
    }
    if (code === 'ERR_RUN_TIMEOUT' && call.startedAt !== undefined) {
      return now >= call.startedAt + runTimeoutMs ? undefined : 'is out of time before its time';
    }
    if (code === 'ERR_CLOSED' && this.rejectsWaiting && call.waits) return undefined;
    return this.allows(call, code) ? undefined : `fails with ${code}, not ${call.verdict}`;
  }

  #checkInTime(call: C): void {
    const { ids, sim } = this;
    const { signal, waitTimeoutMs = Infinity, runTimeoutMs = Infinity } = call.limits;
    if (call.answeredAt === undefined) {
      const { startedAt } = call;
      if (signal?.aborted === true) this.fail(ids.once, `${call.id} is aborted and not answered`);
      else if (call.dismissal !== undefined) this.fail(ids.once, `${call.id} is still not gone`);
      else if (startedAt === undefined) {
        if (call.verdict !== 'wait') {
          this.fail(ids.once, `${call.id} is not answered: ${call.verdict}`);
        }
        if (sim.now >= call.arrivedAt + waitTimeoutMs) {
          this.fail(ids.once, `${call.id} waits longer than its time`);
        }
        if (this.rejectsWaiting) this.fail(ids.once, `${call.id} waits though all were sent away`);
      } else if (call.over) this.fail(ids.once, `${call.id} is over and not answered`);
      else if (sim.now >= startedAt + runTimeoutMs) {
        this.fail(ids.once, `${call.id} runs longer than its time`);
      }
    } else if (!call.over && call.taskSignal?.aborted === false) {
      this.fail(ids.once, `${call.id} was answered and its task not told`);
    }
  }

  /** It has come to its end, and everything about it has been seen. */
  protected forget(call: C): void {
    if (call.answeredAt !== undefined && (call.startedAt === undefined || call.over)) {
      this.calls.delete(call);
    }
  }
}

/** Tells when what a task has returned has settled: before the library hears of it. */
export function whenOver(
  sim: Sim,
  result: unknown,
  over: (ok: boolean, value: unknown) => void,
): void {
  const settlement =
    typeof result === 'object' && result !== null
      ? (sim.settlements.get(result) ?? (result instanceof Promise ? result : undefined))
      : undefined;
  if (settlement === undefined) {
    over(true, result);
    return;
  }
  // The platform's own `then`: the promise may have been given another one.
  void Promise.prototype.then.call(
    settlement,
    (value) => over(true, value),
    (error: unknown) => over(false, error),
  );
}

function nameOf(error: unknown): string {
  if (error instanceof SluiceError) return error.code;
  return error instanceof Error ? `${error.name} ${error.message}` : String(error);
}
