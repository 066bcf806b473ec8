import type { Line, Slotted } from './line.ts';

/**
 * Tells how many nodes of a line stand before a given one, in O(log n).
 *
 * It counts by the slots that the nodes have in the line. One bit a slot says who is there, 32 to a
 * word; a Fenwick tree (P. Fenwick, "A new data structure for cumulative frequency tables", 1994) over
 * the words counts the bits of whole ranges. A rank is then the tree's sum before the word plus the bits
 * below in the word:
 *
 *     slots   0 … 31 │ 32 … 63 │ 64 … 95         rank(70) = tree(words 0, 1) + ones(bits 64 … 69)
 *     word       0   │    1    │    2
 *
 * It has bits for twice the slots that the line spans when it is made. Slots are used up by arrivals:
 * when `append` finds that there is no bit left the owner makes a new index, which is O(n) once in at
 * least n arrivals. It has to, too, when the line has given its nodes new slots.
 */
export class RankIndex<T extends Slotted> {
  readonly #bits: Uint32Array;
  /**
   * `#tree[i]` counts the words that end with word `i - 1`, as many as the lowest set bit of `i`. Nobody
   * asks for the sum of all of them.
   */
  readonly #tree: Int32Array;
  /** The slot of the first bit. */
  readonly #base: number;

  constructor(line: Line<T>) {
    const { first, last } = line;
    this.#base = first?.slot ?? 0;
    const span = first === undefined ? 0 : last!.slot - first.slot + 1;
    const words = 1 << (32 - Math.clz32((2 * Math.max(span, 32) - 1) >>> 5));
    this.#bits = new Uint32Array(words);
    this.#tree = new Int32Array(words);
    for (const node of line) {
      const bit = node.slot - this.#base;
      this.#bits[bit >>> 5]! |= 1 << (bit & 31);
    }
    for (let word = 1; word < words; word++) {
      this.#tree[word]! += ones(this.#bits[word - 1]!);
      const parent = word + (word & -word);
      if (parent < words) this.#tree[parent]! += this.#tree[word]!;
    }
  }

  /** Counts `node`, the newest in the line; false when there is no bit for its slot. */
  append(node: T): boolean {
    const bit = node.slot - this.#base;
    if (bit >>> 5 >= this.#bits.length) return false;
    this.#bits[bit >>> 5]! |= 1 << (bit & 31);
    this.#add(bit, 1);
    return true;
  }

  /** Counts `node` no longer; it has its slot still. */
  remove(node: T): void {
    const bit = node.slot - this.#base;
    this.#bits[bit >>> 5]! &= ~(1 << (bit & 31));
    this.#add(bit, -1);
  }

  /** How many nodes stand before `node`. */
  rank(node: T): number {
    const bit = node.slot - this.#base;
    const word = bit >>> 5;
    let before = ones(this.#bits[word]! & ((1 << (bit & 31)) - 1));
    for (let i = word; i > 0; i &= i - 1) before += this.#tree[i]!;
    return before;
  }

  #add(bit: number, change: number): void {
    for (let i = (bit >>> 5) + 1; i < this.#tree.length; i += i & -i) this.#tree[i]! += change;
  }
}

/** How many bits are set; H. Warren, "Hacker's Delight", 5-1. */
function ones(word: number): number {
  let pairs = word - ((word >>> 1) & 0x55555555);
  pairs = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((pairs + (pairs >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
