import { AbortWatch } from './abort.ts';
import { Awaiters } from './awaiters.ts';
import { amountOf, type Demand } from './buckets.ts';
import { type Deadline, Deadlines } from './deadlines.ts';
import type { Gap } from './gaps.ts';
import { PriorityLine, type PriorityNode } from './priority-line.ts';
import { type Run, type RunLimits, Runs } from './runs.ts';
import { Tally } from './tally.ts';
import type { Time } from './time.ts';

/** The options of one call of a rate limiter, checked. */
export interface Call extends RunLimits {
  readonly demand: Demand;
  readonly waitTimeoutMs: number;
  /** Undefined: the least urgent. */
  readonly priority: number | undefined;
  /** Whether a task follows. */
  readonly runs: boolean;
}

/** One who waits for a lease. */
export class Waiter<Lease> implements PriorityNode {
  slot = 0;
  readonly id: number;
  readonly demand: Demand;
  readonly priority: number;
  /** The tick at which it joined the line. */
  readonly since: number;
  readonly call: Call;
  inLine = false;
  deadline: Deadline | undefined;
  resolve!: (lease: Lease) => void;
  reject!: (reason: unknown) => void;

  constructor(id: number, priority: number, since: number, call: Call) {
    this.id = id;
    this.demand = call.demand;
    this.priority = priority;
    this.since = since;
    this.call = call;
  }
}

/** What has a deadline: one who waits, a task that runs, or the turn of the first in line. */
export type Subject<Lease> = Waiter<Lease> | Run<Lease> | 'turn';

/**
 * Everything that a limiter needs only when somebody has to wait, when a task can be interrupted and
 * from its first pause or its end on: most of those in a `Keyed` never do.
 */
export class Lobby<Lease> {
  readonly line: PriorityLine<Waiter<Lease>>;
  readonly signals: AbortWatch<Waiter<Lease> | Run<Lease>>;
  readonly deadlines: Deadlines<Subject<Lease>>;
  readonly runs: Runs<Lease>;
  readonly idle: Awaiters = new Awaiters();
  closed = false;
  /** The tick at which the pause ends; 0 when there is none. */
  pausedUntil = 0;
  /** When the first in line can be granted, as far as is known. */
  turn: Deadline | undefined;
  /**
   * The gaps for one with priority p at index p, as long as they stay as they are: with two limits and
   * 1000 in line a refusal that finds them takes 0.08 ms, one that has to look for them 1.2.
   */
  gaps: (readonly Gap[])[] = [];
  /**
   * No less than what anybody in line wants of the first bucket. It saves a limiter of one bucket the
   * look at the line where costs are alike: 0.6 ms with 1000 in line.
   */
  heaviest = 0;
  /** Whether anybody has left the line since the limiter looked last. */
  left = false;
  /** `owed[p - 1][i]`: what those who wait with priority p want of bucket i. */
  readonly #owed: number[][];

  readonly waitMs: Tally = new Tally();
  queued = 0;
  cancelled = 0;
  timedOut = 0;

  constructor(
    time: Time,
    priorities: number,
    buckets: number,
    aborted: (subjects: ReadonlySet<Waiter<Lease> | Run<Lease>>, reason: unknown) => void,
    due: (due: readonly Subject<Lease>[]) => void,
    over: () => void,
  ) {
    this.line = new PriorityLine(priorities);
    this.signals = new AbortWatch(aborted);
    this.deadlines = new Deadlines(time, due);
    // A task of `run` has neither a time limit nor a grace: only its end is of interest.
    this.runs = new Runs(time, this.signals, this.deadlines, over, over);
    this.#owed = Array.from({ length: priorities }, () => Array<number>(buckets).fill(0));
  }

  /** What is owed, of each bucket, to those who are called before a newcomer with `priority`. */
  owed(priority: number): number[] {
    const [most, ...rest] = this.#owed.slice(0, priority);
    return most!.map((owed, index) => rest.reduce((sum, counts) => sum + counts[index]!, owed));
  }

  join(waiter: Waiter<Lease>): void {
    const wanted = amountOf(waiter.demand, 0);
    this.heaviest = this.line.length === 0 ? wanted : Math.max(this.heaviest, wanted);
    waiter.inLine = true;
    this.queued++;
    this.line.push(waiter);
    this.gaps.length = 0;
    this.#owe(waiter, 1);
  }

  /** Out of the line and out of everything that could call it again. */
  leave(waiter: Waiter<Lease>): void {
    const { signal } = waiter.call;
    waiter.inLine = false;
    this.left = true;
    this.line.remove(waiter);
    this.gaps.length = 0;
    this.#owe(waiter, -1);
    if (signal !== undefined) this.signals.remove(signal, waiter);
    if (waiter.deadline !== undefined) this.deadlines.remove(waiter.deadline);
  }

  #owe({ priority, demand }: Waiter<Lease>, sign: 1 | -1): void {
    const counts = this.#owed[priority - 1]!;
    for (let index = 0; index < counts.length; index++) {
      counts[index]! += sign * amountOf(demand, index);
    }
  }
}
