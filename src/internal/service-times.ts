/** How many of the latest service times the mean is taken over. */
const SAMPLES = 256;
/** Fewer than this say nothing yet. */
const ENOUGH = 5;

/** The mean of the latest service times: how long a place was held, in ms. */
export class ServiceTimes {
  readonly #ring = new Float64Array(SAMPLES);
  #count = 0;
  #sum = 0;

  add(ms: number): void {
    const slot = this.#count++ % SAMPLES;
    this.#sum += ms - this.#ring[slot]!;
    this.#ring[slot] = ms;
    // What adding and subtracting for ever loses is put right once a round.
    if (slot === SAMPLES - 1) this.#sum = this.#ring.reduce((sum, time) => sum + time, 0);
  }

  /** Undefined until there are enough of them. */
  get meanMs(): number | undefined {
    if (this.#count < ENOUGH) return undefined;
    // What is lost meanwhile may be more than there is.
    return Math.max(0, this.#sum) / Math.min(this.#count, SAMPLES);
  }
}
