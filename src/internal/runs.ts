import { RunTimeoutError } from '../errors.ts';
import type { AbortWatch } from './abort.ts';
import type { Deadline, Deadlines } from './deadlines.ts';
import { Execution } from './execution.ts';
import type { Time } from './time.ts';

/** What can interrupt a task, checked: a caller's signal and the limits on its run. */
export interface RunLimits {
  readonly signal: AbortSignal | undefined;
  readonly runTimeoutMs: number;
  readonly graceMs: number;
}

/** A running task that can be interrupted, and what it holds: a permit, a lease, a share. */
export class Run<Hold> extends Execution {
  readonly hold: Hold;
  readonly limits: RunLimits;
  readonly startedAt: number;
  deadline: Deadline | undefined;
  interrupted = false;
  resolve!: (value: never) => void;
  reject!: (reason: unknown) => void;
  readonly #over: (run: Run<Hold>) => void;

  constructor(hold: Hold, limits: RunLimits, startedAt: number, over: (run: Run<Hold>) => void) {
    super();
    this.hold = hold;
    this.limits = limits;
    this.startedAt = startedAt;
    this.#over = over;
  }

  /** What it held goes on first, then the caller is answered, unless an interruption did that. */
  protected override settled(ok: boolean, value: unknown): void {
    this.#over(this);
    if (ok) this.resolve(value as never);
    else this.reject(value);
  }
}

/**
 * The running side of a primitive. A task that is aborted or runs out of time has its caller
 * answered and its signal aborted at once; what it holds is given back when it has settled, or
 * `graceMs` after the interruption, whichever comes first.
 *
 * The signals and deadlines are the primitive's own, which knows a `Run` among its other subjects
 * and passes it on to `interrupt` and `expire`.
 */
export class Runs<Hold> {
  readonly #time: Time;
  readonly #signals: Pick<AbortWatch<Run<Hold>>, 'add' | 'remove'>;
  readonly #deadlines: Pick<Deadlines<Run<Hold>>, 'add' | 'remove'>;
  readonly #release: (hold: Hold) => void;
  readonly #overrun: (hold: Hold, ranMs: number) => void;
  readonly #over = (run: Run<Hold>): void => {
    this.#unwatch(run);
    this.#release(run.hold);
  };

  /**
   * `release` is called when a task has settled, possibly after `overrun`, which is called when one
   * has outlived its `graceMs`.
   */
  constructor(
    time: Time,
    signals: Pick<AbortWatch<Run<Hold>>, 'add' | 'remove'>,
    deadlines: Pick<Deadlines<Run<Hold>>, 'add' | 'remove'>,
    release: (hold: Hold) => void,
    overrun: (hold: Hold, ranMs: number) => void,
  ) {
    this.#time = time;
    this.#signals = signals;
    this.#deadlines = deadlines;
    this.#release = release;
    this.#overrun = overrun;
  }

  /** Calls the task in the context of the caller and settles as it does or as it is interrupted. */
  perform<T, Context>(
    task: (context: Context) => T | PromiseLike<T>,
    contextOf: (run: Run<Hold>) => Context,
    hold: Hold,
    limits: RunLimits,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const run = this.#watch(hold, limits);
      run.resolve = resolve;
      run.reject = reject;
      run.perform(task, contextOf(run));
    });
  }

  /** Answers the caller with `reason` and aborts the task's signal, which runs its listeners. */
  interrupt(run: Run<Hold>, reason: unknown): void {
    run.interrupted = true;
    this.#unwatch(run);
    run.reject(reason);
    if (run.limits.graceMs < Infinity) {
      run.deadline = this.#deadlines.add(run, this.#time.now() + run.limits.graceMs);
    }
    run.abort(reason);
  }

  /** A deadline of the run has come: the end of its time, or of the grace after an interruption. */
  expire(run: Run<Hold>, now: number): void {
    const ranMs = now - run.startedAt;
    if (run.interrupted) this.#overrun(run.hold, ranMs);
    else this.interrupt(run, new RunTimeoutError(ranMs));
  }

  /** What it throws, as a hostile signal does, is what the caller gets: nothing is held then. */
  #watch(hold: Hold, limits: RunLimits): Run<Hold> {
    try {
      const now = this.#time.read();
      const run = new Run(hold, limits, now, this.#over);
      if (limits.signal !== undefined) this.#signals.add(limits.signal, run);
      if (limits.runTimeoutMs < Infinity) {
        run.deadline = this.#deadlines.add(run, now + limits.runTimeoutMs);
      }
      return run;
    } catch (error) {
      this.#release(hold);
      throw error;
    }
  }

  #unwatch(run: Run<Hold>): void {
    if (run.limits.signal !== undefined) this.#signals.remove(run.limits.signal, run);
    if (run.deadline !== undefined) this.#deadlines.remove(run.deadline);
    run.deadline = undefined;
  }
}
