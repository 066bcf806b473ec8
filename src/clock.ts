/**
 * Where a primitive gets its time from: a monotonic reading and one-shot timers.
 *
 * `now()` is in milliseconds, may have a fraction and must not go back; what it counts from is the
 * clock's own affair. A primitive only subtracts readings of one clock from each other. A timer may
 * fire late or, as real ones do, a fraction of a millisecond early: primitives look at `now()` again.
 */
export interface Clock {
  /** A reading in milliseconds, never lower than the one before. */
  now(): number;
  /** Calls `callback` once, `ms` milliseconds from now. The handle may have `unref()`, as Node's has. */
  setTimeout(callback: () => void, ms: number): unknown;
  /** Cancels a timer; a handle that has fired or been cleared already is ignored. */
  clearTimeout(handle: unknown): void;
}

/** It never changes, and asking for it is slow. */
let origin: number | undefined;

/**
 * The process's own clock. It counts from the Unix epoch, so that a reading written down by one
 * process means the same to the next, but it only moves forward: it does not follow the wall clock
 * when that is set. The globals are looked up at each call, so that fake timers work.
 */
export const systemClock: Clock = {
  now: () => (origin ??= performance.timeOrigin) + performance.now(),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (handle) => clearTimeout(handle as Parameters<typeof clearTimeout>[0]),
};
