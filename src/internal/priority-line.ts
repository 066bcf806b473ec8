import { Line, type Slotted } from './line.ts';
import { RankIndex } from './rank-index.ts';

/** The most priorities that there can be: one bit each in a 32-bit mask. */
export const MAX_PRIORITIES = 32;

/** What waits in a priority line. `priority` may only be changed while the node is not in one. */
export interface PriorityNode extends Slotted {
  priority: number;
}

/** Those who wait with one priority. */
class Band<T extends PriorityNode> extends Line<T> {
  /** Made by the first question for a rank: who never asks does not pay. */
  ranks: RankIndex<T> | undefined;
  /** Whether anybody has asked since the index was made. */
  asked = false;
}

/**
 * A line in order of priority, 1 first, and first come first served within each: one `Line` per
 * priority, and a mask whose bit p - 1 says that somebody waits with priority p. Joining, leaving
 * and finding the head are O(1) whatever the length. A position is O(1) in a band from which nobody has
 * left but in its turn, which needs no index (with a million waiting a third of the time); elsewhere it is
 * O(log n), and the first question for one in a band O(n). The first after a change is O(priorities) more.
 */
export class PriorityLine<T extends PriorityNode> {
  readonly #bands: readonly Band<T>[];
  #occupied = 0;
  #length = 0;
  /** What makes a position of a slot, for each band; undefined for those that have gaps. */
  readonly #shifts: (number | undefined)[];
  /** Whether the shifts are those of now: the first question after a change makes them so. */
  #shifted = false;

  constructor(priorities: number) {
    this.#bands = Array.from({ length: priorities }, () => new Band<T>());
    this.#shifts = this.#bands.map(() => undefined);
  }

  get length(): number {
    return this.#length;
  }

  /** The one whose turn is next. */
  get head(): T | undefined {
    // The lowest set bit is the most urgent band with anybody in it.
    return this.#occupied === 0
      ? undefined
      : this.#bands[31 - Math.clz32(this.#occupied & -this.#occupied)]!.first;
  }

  /** How many wait with `priority`. */
  lengthOf(priority: number): number {
    return this.#bands[priority - 1]!.length;
  }

  /** How many wait with `priority` or more urgently. */
  lengthUpTo(priority: number): number {
    let length = 0;
    for (let index = 0; index < priority; index++) length += this.#bands[index]!.length;
    return length;
  }

  /** The newest one in the least urgent band that is less urgent than `priority`. */
  lastBelow(priority: number): T | undefined {
    const band = 31 - Math.clz32(this.#occupied);
    return band > priority - 1 ? this.#bands[band]!.last : undefined;
  }

  /** Joins at the end of its band. */
  push(node: T): void {
    const band = this.#bands[node.priority - 1]!;
    band.push(node);
    this.#occupied |= 1 << (node.priority - 1);
    this.#length++;
    this.#shifted = false;
    if (band.ranks !== undefined && !band.ranks.append(node)) {
      // Out of bits. Nobody asked since the last time: then the next question makes a new index.
      band.ranks = band.asked ? new RankIndex(band) : undefined;
      band.asked = false;
    }
  }

  /**
   * Joins its band in front of the first one that `isBehind` it, which holds for a run of nodes at
   * the end of the band. O(that run), since it is looked for from the end.
   */
  insert(node: T, isBehind: (other: T) => boolean): void {
    const band = this.#bands[node.priority - 1]!;
    let other: T | undefined;
    for (let last = band.last; last !== undefined && isBehind(last); last = band.before(last)) {
      other = last;
    }
    if (other === undefined) {
      this.push(node);
      return;
    }
    band.insertBefore(other, node);
    // Those behind it have got new slots.
    band.ranks = undefined;
    this.#length++;
    this.#shifted = false;
  }

  /** Takes out `node`, which is in this line. */
  remove(node: T): void {
    const band = this.#bands[node.priority - 1]!;
    band.ranks?.remove(node);
    const moved = band.remove(node);
    this.#length--;
    this.#shifted = false;
    if (band.length === 0) this.#occupied &= ~(1 << (node.priority - 1));
    if (moved || band.length === 0) band.ranks = undefined;
  }

  /** How many are called before `node`, plus one. */
  position(node: T): number {
    if (!this.#shifted) this.#shift();
    const shift = this.#shifts[node.priority - 1];
    if (shift !== undefined) return node.slot + shift;
    const band = this.#bands[node.priority - 1]!;
    band.asked = true;
    band.ranks ??= new RankIndex(band);
    return this.lengthUpTo(node.priority - 1) + band.ranks.rank(node) + 1;
  }

  #shift(): void {
    let before = 0;
    for (let index = 0; index < this.#bands.length; index++) {
      const band = this.#bands[index]!;
      const first = band.first?.slot ?? 0;
      this.#shifts[index] = band.gapless ? before + 1 - first : undefined;
      before += band.length;
    }
    this.#shifted = true;
  }

  /** In the order in which they are called. Those who leave meanwhile may or may not be shown. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (const band of this.#bands) yield* band;
  }
}
