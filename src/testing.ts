/**
 * Time that a test moves.
 *
 * @module sluice/testing
 */

import type { Clock } from './clock.ts';
import { tick } from './internal/tick.ts';

/**
 * Lets everything happen that needs no time: resolves when every promise that can settle has
 * settled and its reactions have run.
 */
export function settle(): Promise<void> {
  return tick();
}

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/**
 * A clock that a test moves by hand. It starts at 0 and stands still until told.
 *
 * @example
 * ```ts
 * const clock = new ManualClock();
 * const limiter = new RateLimiter({ limit: 1, intervalMs: 1000, clock });
 * limiter.tryAcquire();
 * const granted = limiter.acquire();
 * await clock.advance(1000);
 * await granted;
 * ```
 */
export class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  /** Milliseconds since the clock was made, by its own reckoning. */
  now(): number {
    return this.#now;
  }

  /** How many timers are armed. */
  get timers(): number {
    return this.#timers.size;
  }

  /** `ms` below 0 counts as 0. What no timer can hold is refused here, where it is noticed. */
  setTimeout(callback: () => void, ms: number): unknown {
    if (!Number.isFinite(ms)) {
      throw new RangeError(`Expected \`ms\` to be a finite number, got ${String(ms)}.`);
    }
    const timer = { at: this.#now + Math.max(ms, 0), callback };
    this.#timers.add(timer);
    return timer;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as Timer);
  }

  /**
   * Moves on by `ms`. What becomes due on the way fires at its own instant, in the order of the
   * instants and, at the same instant, in the order of `setTimeout`; promises settle before the
   * first, in between, and at the end.
   */
  async advance(ms: number): Promise<void> {
    if (!(ms >= 0 && ms < Infinity)) {
      throw new RangeError(`Expected \`ms\` to be a non-negative number, got ${String(ms)}.`);
    }
    const end = this.#now + ms;
    await settle();
    for (let next = this.#next(); next !== undefined && next.at <= end; next = this.#next()) {
      this.#fire(next);
      await settle();
    }
    this.#now = Math.max(this.#now, end);
    await settle();
  }

  /** Moves on from timer to timer until none is armed. Fails after `limit` of them. */
  async runAll(limit = 100_000): Promise<void> {
    await settle();
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      if (limit-- === 0) throw new Error('Timers are still being armed: this would never end.');
      this.#fire(next);
      await settle();
    }
  }

  #fire(timer: Timer): void {
    this.#timers.delete(timer);
    this.#now = Math.max(this.#now, timer.at);
    timer.callback();
  }

  #next(): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      // A set keeps the order of insertion: the first of equal instants stays.
      if (next === undefined || timer.at < next.at) next = timer;
    }
    return next;
  }
}
