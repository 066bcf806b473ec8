/**
 * The last `limit` things that finished, by id: a map and a ring, so that memory is bounded and
 * adding is O(1). An id that comes up again counts from its latest time.
 */
export class History<V> {
  readonly #limit: number;
  readonly #entries = new Map<string, { slot: number; value: V }>();
  readonly #ring: string[] = [];
  #next = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#entries.size;
  }

  add(id: string, value: V): void {
    if (this.#limit === 0) return;
    const slot = this.#next;
    this.#next = (slot + 1) % this.#limit;
    const oldest = this.#ring[slot];
    // The ring may still name an id that has come up again since.
    if (oldest !== undefined && this.#entries.get(oldest)!.slot === slot) {
      this.#entries.delete(oldest);
    }
    this.#ring[slot] = id;
    this.#entries.set(id, { slot, value });
  }

  has(id: string): boolean {
    return this.#entries.has(id);
  }

  get(id: string): V | undefined {
    return this.#entries.get(id)?.value;
  }

  /** In no particular order. */
  *values(): IterableIterator<V> {
    for (const { value } of this.#entries.values()) yield value;
  }
}
