import type { Line, LineNode } from './line.ts';

/** A node with a place to remember its slot in. */
export interface RankedNode<T> extends LineNode<T> {
  slot: number;
}

/**
 * Tells how many nodes of a line stand before a given one, in O(log n).
 *
 * Nodes get slots in the order in which they join, and keep them; a slot whose node has left stays
 * empty. One bit a slot says who is there, 32 to a word; a Fenwick tree (P. Fenwick, "A new data
 * structure for cumulative frequency tables", 1994) over the words counts the bits of whole ranges.
 * A rank is then the tree's sum before the word plus the bits below in the word:
 *
 *     slots   0 … 31 │ 32 … 63 │ 64 … 95         rank(70) = tree(words 0, 1) + ones(bits 64 … 69)
 *     word       0   │    1    │    2
 *
 * Slots are used up by arrivals: when `append` finds none left the owner builds a new index, which
 * packs those still there. That is O(n) once in at least n arrivals.
 */
export class RankIndex<T extends RankedNode<T>> {
  readonly #bits: Uint32Array;
  /** `#tree[i]` counts the words that end with word `i - 1`, as many as the lowest set bit of `i`. */
  readonly #tree: Int32Array;
  #nextSlot = 0;

  constructor(line: Line<T>) {
    const words = 1 << (32 - Math.clz32((2 * Math.max(line.length, 32) - 1) >>> 5));
    this.#bits = new Uint32Array(words);
    this.#tree = new Int32Array(words + 1);
    for (const node of line) {
      node.slot = this.#nextSlot++;
      this.#bits[node.slot >>> 5]! |= 1 << (node.slot & 31);
    }
    for (let word = 1; word <= words; word++) {
      this.#tree[word]! += ones(this.#bits[word - 1]!);
      const parent = word + (word & -word);
      if (parent <= words) this.#tree[parent]! += this.#tree[word]!;
    }
  }

  /** Gives `node`, the newest in the line, its slot; false when there is none left. */
  append(node: T): boolean {
    if (this.#nextSlot >>> 5 === this.#bits.length) return false;
    node.slot = this.#nextSlot++;
    this.#bits[node.slot >>> 5]! |= 1 << (node.slot & 31);
    this.#add(node.slot, 1);
    return true;
  }

  /** `node` leaves its slot. */
  remove(node: T): void {
    this.#bits[node.slot >>> 5]! &= ~(1 << (node.slot & 31));
    this.#add(node.slot, -1);
  }

  /** How many nodes stand before `node`. */
  rank(node: T): number {
    const word = node.slot >>> 5;
    let before = ones(this.#bits[word]! & ((1 << (node.slot & 31)) - 1));
    for (let i = word; i > 0; i &= i - 1) before += this.#tree[i]!;
    return before;
  }

  #add(slot: number, change: number): void {
    for (let i = (slot >>> 5) + 1; i < this.#tree.length; i += i & -i) this.#tree[i]! += change;
  }
}

/** How many bits are set; H. Warren, "Hacker's Delight", 5-1. */
function ones(word: number): number {
  let pairs = word - ((word >>> 1) & 0x55555555);
  pairs = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((pairs + (pairs >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
