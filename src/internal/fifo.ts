/**
 * First in, first out, in O(1) a piece, whatever the length; `shift` of an array copies all that is
 * left of a long one. Two stacks, of which the second is turned over when the first is empty:
 *
 *     shift <- out  3 2 1 |  in  4 5 <- push        the tops are 1 and 5
 *
 * The arrays keep their room, so that a list of a few at a time allocates nothing.
 */
export class Fifo<T> {
  #out: T[] = [];
  #in: T[] = [];

  get length(): number {
    return this.#out.length + this.#in.length;
  }

  push(value: T): void {
    this.#in.push(value);
  }

  /** The oldest one; undefined where there is none. */
  shift(): T | undefined {
    if (this.#out.length === 0) {
      [this.#out, this.#in] = [this.#in, this.#out];
      this.#out.reverse();
    }
    return this.#out.pop();
  }

  /** All but the `skipped` oldest ones, the oldest first. O(what is copied). */
  slice(skipped = 0): T[] {
    const left = this.#out.length - skipped;
    return left > 0
      ? this.#out.slice(0, left).toReversed().concat(this.#in)
      : this.#in.slice(-left);
  }

  clear(): void {
    this.#out = [];
    this.#in = [];
  }
}
