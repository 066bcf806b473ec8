/** What something in a line carries: its slot. A node is in one line at a time at most. */
export interface Slotted {
  slot: number;
}

/** An array of fewer slots is not worth packing. */
const SMALL = 64;

/**
 * A first-in first-out line in one array. Nodes get slots in the order in which they join; one who
 * leaves from the middle leaves its slot empty:
 *
 *     slots   7   8   9   10   11        #base 7: the slot of #nodes[0]
 *     nodes   ·   a   ·   b    c         #head 1: the index of the first node
 *
 * Joining, leaving from anywhere and being called are O(1): when more than half of the array has
 * become empty the rest is packed, O(n) once in at least n leaves. Links in the nodes would do the
 * same, but copying a hundred thousand linked nodes costs the garbage collector more: bursts through
 * a semaphore took a quarter longer with them (bench/semaphore.ts).
 */
export class Line<T extends Slotted> {
  #nodes: (T | undefined)[] = [];
  #base = 0;
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  get first(): T | undefined {
    return this.#nodes[this.#head];
  }

  get last(): T | undefined {
    return this.#length === 0 ? undefined : this.#nodes[this.#nodes.length - 1];
  }

  /** Whether nobody has left from between those who are here: then their slots follow each other. */
  get gapless(): boolean {
    return this.#nodes.length - this.#head === this.#length;
  }

  push(node: T): void {
    node.slot = this.#base + this.#nodes.length;
    this.#nodes.push(node);
    this.#length++;
  }

  /** Puts `node` right in front of `other`, which is in this line. O(those behind). */
  insertBefore(other: T, node: T): void {
    const index = other.slot - this.#base;
    this.#nodes.splice(index, 0, node);
    this.#length++;
    this.#number(index);
  }

  /** The node right in front of `other`, which is in this line. O(the empty slots between). */
  before(other: T): T | undefined {
    let index = other.slot - this.#base - 1;
    while (index >= this.#head && this.#nodes[index] === undefined) index--;
    return index < this.#head ? undefined : this.#nodes[index];
  }

  has(node: T): boolean {
    return this.#nodes[node.slot - this.#base] === node;
  }

  /** Takes out `node`, which is in this line. True where others have got new slots with it. */
  remove(node: T): boolean {
    const nodes = this.#nodes;
    nodes[node.slot - this.#base] = undefined;
    this.#length--;
    // An array that is popped keeps its room, so that a line of one at a time allocates nothing.
    while (nodes.length > 0 && nodes[nodes.length - 1] === undefined) nodes.pop();
    if (nodes.length === 0) {
      this.#base = 0;
      this.#head = 0;
      return false;
    }
    while (nodes[this.#head] === undefined) this.#head++;
    return this.#pack();
  }

  #pack(): boolean {
    const occupied = this.#nodes.length - this.#head;
    if (occupied > SMALL && occupied > 2 * this.#length) {
      this.#nodes = this.#nodes.filter((node) => node !== undefined);
      this.#head = 0;
      this.#number(0);
      return true;
    }
    if (this.#head > SMALL && this.#head > occupied) {
      // Those who are there keep their slots.
      this.#nodes = this.#nodes.slice(this.#head);
      this.#base += this.#head;
      this.#head = 0;
    }
    return false;
  }

  #number(from: number): void {
    for (let index = from; index < this.#nodes.length; index++) {
      const node = this.#nodes[index];
      if (node !== undefined) node.slot = this.#base + index;
    }
  }

  /** Those who are there now; one who leaves before its turn is not shown. O(n) at the start. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (const node of this.#nodes.slice(this.#head)) {
      if (node !== undefined && this.has(node)) yield node;
    }
  }
}
