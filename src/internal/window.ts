const BUCKETS = 60;
const BUCKET_MS = 1000;

/**
 * How often something has happened per second over the last minute, in buckets of one second. No
 * `now` is before the one of an earlier call.
 */
export class RateWindow {
  readonly #counts = new Float64Array(BUCKETS);
  #startedAt: number | undefined;
  /** The bucket that was added to last, counted from the start. */
  #latest = 0;

  add(now: number): void {
    this.#startedAt ??= now;
    this.#advance(now);
    this.#counts[this.#latest % BUCKETS]! += 1;
  }

  /** Over the last 60 s, or the time since the first `add` where that is less; at least 1 s. */
  perSecond(now: number): number {
    if (this.#startedAt === undefined) return 0;
    this.#advance(now);
    const seconds = (now - this.#startedAt) / 1000;
    return this.#counts.reduce((sum, count) => sum + count, 0) / Math.min(Math.max(seconds, 1), 60);
  }

  #advance(now: number): void {
    const bucket = Math.floor((now - this.#startedAt!) / BUCKET_MS);
    const passed = Math.min(bucket - this.#latest, BUCKETS);
    for (let i = 1; i <= passed; i++) this.#counts[(this.#latest + i) % BUCKETS] = 0;
    this.#latest = bucket;
  }
}
