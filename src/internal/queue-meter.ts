import { Arrivals } from './arrivals.ts';
import { ServiceTimes } from './service-times.ts';
import { type Summary, Tally } from './tally.ts';
import { RateWindow } from './window.ts';

/** How a ticket can end. */
export type Ending = 'completed' | 'failed' | 'cancelled' | 'timedOut' | 'shed' | 'refused';

/** The counters of a queue since its construction. */
export interface QueueTotals extends Readonly<Record<Ending, number>> {
  /** How many tickets got in. */
  readonly accepted: number;
  /** How many of them got a place. */
  readonly started: number;
  /** How many lost it because their tasks outlived `graceMs`. */
  readonly overrun: number;
  /** How long those who started had waited, in ms. */
  readonly waitMs: Summary;
  /** How long places were held, in ms. */
  readonly runMs: Summary;
  /** Tasks settled per second, over the last minute. */
  readonly throughputPerSecond: number;
}

/** What a queue counts, and what it makes of that. */
export class QueueMeter {
  readonly #service = new ServiceTimes();
  readonly #arrivals: Arrivals;
  readonly #throughput = new RateWindow();
  readonly #waitMs = new Tally();
  readonly #runMs = new Tally();
  #accepted = 0;
  #overrun = 0;
  readonly #ended: Record<Ending, number> = {
    completed: 0,
    failed: 0,
    cancelled: 0,
    timedOut: 0,
    shed: 0,
    refused: 0,
  };

  constructor(priorities: number) {
    this.#arrivals = new Arrivals(priorities);
  }

  accepted(): void {
    this.#accepted++;
  }

  /** One of those whose rate tells who is to come. */
  arrived(now: number, priority: number): void {
    this.#arrivals.add(now, priority);
  }

  started(waitedMs: number): void {
    this.#waitMs.add(waitedMs);
  }

  /** A place has been given up after `ranMs`. */
  served(now: number, ranMs: number): void {
    this.#service.add(ranMs);
    this.#runMs.add(ranMs);
    this.#throughput.add(now);
  }

  ended(how: Ending): void {
    this.#ended[how]++;
  }

  overrun(): void {
    this.#overrun++;
  }

  /** The mean time after which one of `concurrency` places comes free, once enough is known. */
  intervalMs(concurrency: number): number | undefined {
    const { meanMs } = this.#service;
    return meanMs === undefined ? undefined : meanMs / concurrency;
  }

  /**
   * The wait at `position`, by A. Cobham, "Priority assignment in waiting line problems" (1954):
   * those ahead are served first, and of the time that this takes those who are more urgent and
   * still to come leave a share.
   */
  estimateMs(
    position: number,
    priority: number,
    concurrency: number,
    now: number,
  ): number | undefined {
    const intervalMs = this.intervalMs(concurrency);
    if (intervalMs === undefined) return undefined;
    const left = 1 - this.#arrivals.ratePerMsAbove(priority, now) * intervalMs;
    // When they take everything the wait has no end; ten times as long is long enough to say.
    return (position * intervalMs) / Math.max(left, 0.1);
  }

  totals(now: number): QueueTotals {
    return {
      accepted: this.#accepted,
      started: this.#waitMs.count,
      ...this.#ended,
      overrun: this.#overrun,
      waitMs: this.#waitMs.summary(),
      runMs: this.#runMs.summary(),
      throughputPerSecond: this.#throughput.perSecond(now),
    };
  }
}
