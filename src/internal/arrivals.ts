/** Over how many of the latest arrivals the rate is taken. */
const SAMPLES = 256;

/** How many callers of each priority come per millisecond, over the latest 256 of all arrivals. */
export class Arrivals {
  readonly #times = new Float64Array(SAMPLES);
  readonly #priorities = new Uint8Array(SAMPLES);
  /** How many of the latest arrivals have each priority; index 0 is priority 1. */
  readonly #counts: Float64Array;
  #count = 0;

  constructor(priorities: number) {
    this.#counts = new Float64Array(priorities);
  }

  add(now: number, priority: number): void {
    const slot = this.#count++ % SAMPLES;
    if (this.#count > SAMPLES) this.#counts[this.#priorities[slot]! - 1]! -= 1;
    this.#times[slot] = now;
    this.#priorities[slot] = priority;
    this.#counts[priority - 1]! += 1;
  }

  /** How many more urgent than `priority` come per ms; 0 while there is too little to go by. */
  ratePerMsAbove(priority: number, now: number): number {
    if (this.#count < SAMPLES) return 0;
    const spanMs = now - this.#times[this.#count % SAMPLES]!;
    let above = 0;
    for (let index = 0; index < priority - 1; index++) above += this.#counts[index]!;
    return spanMs > 0 ? above / spanMs : 0;
  }
}
