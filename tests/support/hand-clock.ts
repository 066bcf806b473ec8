import type { Clock } from 'sluice';

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/**
 * A clock whose timers fire within the call that moves it, between any two microtasks of whatever
 * else goes on; `ManualClock` lets everything settle first.
 */
export class HandClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  get timers(): number {
    return this.#timers.size;
  }

  now(): number {
    return this.#now;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    const timer = { at: this.#now + ms, callback };
    this.#timers.add(timer);
    return timer;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as Timer);
  }

  /** Moves on by `ms` and calls nothing, as time does while something keeps the event loop busy. */
  block(ms: number): void {
    this.#now += ms;
  }

  /** Moves on by `ms` and calls what is due then. */
  jump(ms: number): void {
    this.#now += ms;
    const due = [...this.#timers].filter(({ at }) => at <= this.#now);
    for (const timer of due.toSorted((a, b) => a.at - b.at)) {
      if (this.#timers.delete(timer)) timer.callback();
    }
  }
}
