import { systemClock, type Clock } from '../clock.ts';
import { withMethods } from './assert.ts';

/** What `setTimeout` can hold; Node turns anything longer into 1 ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The clock that a primitive was given, or the process's own. */
export function checkedClock(clock: Clock = systemClock): Clock {
  return withMethods('clock', clock, 'now', 'setTimeout', 'clearTimeout');
}

/** The clock's reading in ms, checked. */
export function readingOf(clock: Clock): number {
  const now = clock.now();
  if (!Number.isFinite(now)) {
    throw new RangeError('Expected `clock.now()` to be a finite number of milliseconds.');
  }
  return now;
}

/** A clock as the primitives see it: checked, and never going back. */
export class Time {
  readonly clock: Clock;
  #latest: number;

  /** `latest` is the highest reading that has been seen already. Throws where the clock tells no time. */
  constructor(clock?: Clock, latest?: number) {
    this.clock = checkedClock(clock);
    this.#latest = latest ?? readingOf(this.clock);
  }

  /**
   * The clock's reading in ms, or the highest one seen where it has gone back. Throws for what is no
   * time: for newcomers, who can be refused.
   */
  read(): number {
    return this.#take(readingOf(this.clock));
  }

  /**
   * The same where somebody is let in or let go, which must not fail: a clock that tells no time any
   * more has stood still.
   */
  now(): number {
    const now = this.clock.now();
    return Number.isFinite(now) ? this.#take(now) : this.#latest;
  }

  #take(now: number): number {
    if (now > this.#latest) this.#latest = now;
    return this.#latest;
  }
}

/**
 * One timer for one instant at a time. `ring` is called at that instant or later, never before it,
 * however early the clock's timers fire and however far off it is, and never from within `set`.
 */
export class Alarm {
  readonly #time: Time;
  readonly #ring: (now: number) => void;
  readonly #housekeeping: boolean;
  #at = Infinity;
  #timer: { readonly firesAt: number; handle: unknown } | undefined;

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
    } else if (this.#timer === undefined || at < this.#timer.firesAt) {
      // A timer that fires too early is left to look again: moving the alarm on costs nothing.
      this.#disarm();
      this.#arm(this.#time.now());
    }
  }

  #arm(now: number): void {
    const delay = Math.min(Math.max(Math.ceil(this.#at - now), 0), MAX_TIMER_MS);
    const timer = { firesAt: now + delay, handle: undefined as unknown };
    // A timer that was cleared or replaced and fires all the same is nobody's.
    const fire = (): void => {
      if (this.#timer === timer) this.#fire();
    };
    let arming = true;
    // A clock may call back at once, in the middle of what the caller is doing.
    const handle = this.#time.clock.setTimeout(() => {
      if (arming) queueMicrotask(fire);
      else fire();
    }, delay);
    arming = false;
    timer.handle = handle;
    this.#timer = timer;
    if (this.#housekeeping) (handle as { unref?: () => void } | undefined)?.unref?.();
  }

  #disarm(): void {
    if (this.#timer === undefined) return;
    this.#time.clock.clearTimeout(this.#timer.handle);
    this.#timer = undefined;
  }

  #fire(): void {
    this.#timer = undefined;
    const now = this.#time.now();
    if (now < this.#at) {
      this.#arm(now);
    } else {
      this.#at = Infinity;
      this.#ring(now);
    }
  }
}
