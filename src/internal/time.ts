import { systemClock, type Clock } from '../clock.ts';

/** What `setTimeout` can hold; Node turns anything longer into 1 ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A clock as the primitives see it: checked, and never going back. */
export class Time {
  readonly clock: Clock;
  #latest = -Infinity;

  constructor(clock: Clock = systemClock) {
    for (const method of ['now', 'setTimeout', 'clearTimeout'] as const) {
      if (typeof clock?.[method] !== 'function') {
        throw new TypeError(`Expected \`clock\` to have a method \`${method}\`.`);
      }
    }
    this.clock = clock;
  }

  /** The clock's reading in ms, or the highest one seen where it has gone back. */
  now(): number {
    const now = this.clock.now();
    if (now >= this.#latest) return (this.#latest = now);
    if (Number.isNaN(now) || typeof now !== 'number') {
      throw new RangeError('Expected `clock.now()` to be a number of milliseconds.');
    }
    return this.#latest;
  }
}

/**
 * One timer for one instant at a time. `ring` is called at that instant or later, never before it,
 * however early the clock's timers fire and however far off it is.
 */
export class Alarm {
  readonly #time: Time;
  readonly #ring: (now: number) => void;
  readonly #housekeeping: boolean;
  #at = Infinity;
  #handle: unknown;
  #firesAt = Infinity;

  /** A `housekeeping` alarm does not keep the process alive: nobody's promise hangs on it. */
  constructor(time: Time, ring: (now: number) => void, housekeeping = false) {
    this.#time = time;
    this.#ring = ring;
    this.#housekeeping = housekeeping;
  }

  /** The instant that it is set for; Infinity when it is not set. */
  get at(): number {
    return this.#at;
  }

  /** Moves the alarm to the instant `at` (ms of the same clock); Infinity turns it off. */
  set(at: number): void {
    this.#at = at;
    if (at === Infinity) {
      this.#disarm();
    } else if (at < this.#firesAt) {
      // A timer that fires too early is left to look again: moving the alarm on costs nothing.
      this.#disarm();
      this.#arm(this.#time.now());
    }
  }

  #arm(now: number): void {
    const delay = Math.min(Math.max(Math.ceil(this.#at - now), 0), MAX_TIMER_MS);
    this.#firesAt = now + delay;
    const handle = this.#time.clock.setTimeout(() => this.#fire(), delay);
    // A clock may fire at once, and then there is nothing left to clear.
    if (this.#firesAt !== Infinity) this.#handle = handle;
    if (this.#housekeeping) (handle as { unref?: () => void } | undefined)?.unref?.();
  }

  #disarm(): void {
    if (this.#firesAt === Infinity) return;
    this.#time.clock.clearTimeout(this.#handle);
    this.#handle = undefined;
    this.#firesAt = Infinity;
  }

  #fire(): void {
    this.#handle = undefined;
    this.#firesAt = Infinity;
    const now = this.#time.now();
    if (now < this.#at) {
      this.#arm(now);
    } else {
      this.#at = Infinity;
      this.#ring(now);
    }
  }
}
