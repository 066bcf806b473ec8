/** Mean and maximum of what has been counted, as `stats()` shows them; undefined before the first. */
export interface Summary {
  readonly count: number;
  readonly mean: number | undefined;
  readonly max: number | undefined;
}

/** Counts values and keeps what a `Summary` needs of them. */
export class Tally {
  #count = 0;
  #sum = 0;
  #max = -Infinity;

  get count(): number {
    return this.#count;
  }

  add(value: number): void {
    this.#count++;
    this.#sum += value;
    if (value > this.#max) this.#max = value;
  }

  summary(): Summary {
    return this.#count === 0
      ? { count: 0, mean: undefined, max: undefined }
      : { count: this.#count, mean: this.#sum / this.#count, max: this.#max };
  }
}
