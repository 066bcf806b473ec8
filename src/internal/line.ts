/** What something in a line carries: its neighbours. A node is in one line at a time at most. */
export interface LineNode<T> {
  previous: T | undefined;
  next: T | undefined;
}

/**
 * A first-in first-out line whose nodes carry the links, so that joining, leaving from anywhere and
 * being called are O(1) and allocate nothing.
 *
 *     first ──next──▶ node ──next──▶ last
 *           ◀previous──    ◀previous──
 */
export class Line<T extends LineNode<T>> {
  #first: T | undefined;
  #last: T | undefined;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  get first(): T | undefined {
    return this.#first;
  }

  get last(): T | undefined {
    return this.#last;
  }

  push(node: T): void {
    node.previous = this.#last;
    if (this.#last === undefined) this.#first = node;
    else this.#last.next = node;
    this.#last = node;
    this.#length++;
  }

  /** Puts `node` right in front of `other`, which is in this line. */
  insertBefore(other: T, node: T): void {
    node.next = other;
    node.previous = other.previous;
    if (other.previous === undefined) this.#first = node;
    else other.previous.next = node;
    other.previous = node;
    this.#length++;
  }

  /** Takes out `node`, which is in this line. */
  remove(node: T): void {
    if (node.previous === undefined) this.#first = node.next;
    else node.previous.next = node.next;
    if (node.next === undefined) this.#last = node.previous;
    else node.next.previous = node.previous;
    // A node that is kept by someone keeps no neighbours alive.
    node.previous = undefined;
    node.next = undefined;
    this.#length--;
  }

  *[Symbol.iterator](): IterableIterator<T> {
    for (let node = this.#first; node !== undefined;) {
      // Taken before the yield: the consumer may take the node out.
      const next: T | undefined = node.next;
      yield node;
      node = next;
    }
  }
}
