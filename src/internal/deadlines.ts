import { Alarm, type Time } from './time.ts';

/** An instant at which something becomes due. Made by `Deadlines.add`, given back to `remove`. */
export interface Deadline {
  readonly at: number;
}

/**
 *           0            A binary heap by (at, order): children of i at 2i + 1 and 2i + 2. Each node
 *        1     2         knows its index, so that any of them can be taken out.
 *       3 4   5 6
 */
class Node<T> implements Deadline {
  readonly at: number;
  readonly order: number;
  readonly subject: T;
  index: number;

  constructor(at: number, order: number, subject: T, index: number) {
    this.at = at;
    this.order = order;
    this.subject = subject;
    this.index = index;
  }

  before(other: Node<T>): boolean {
    return this.at < other.at || (this.at === other.at && this.order < other.order);
  }
}

/**
 * The deadlines of one primitive behind one timer, armed for the earliest and off when there is none.
 * `add` and `remove` are O(log n); adding in order of time, as a uniform timeout does, is O(1).
 *
 * `expire` gets what is due at one instant in one batch, in the order of `add`, removed already; a
 * timer that is late for several instants calls it for each of them, in their order. So what is
 * given back at one of them is there at the next, as if the timer had been on time.
 */
export class Deadlines<T> {
  readonly #heap: Node<T>[] = [];
  readonly #alarm: Alarm;
  #added = 0;

  constructor(time: Time, expire: (due: T[], now: number) => void, housekeeping = false) {
    this.#alarm = new Alarm(
      time,
      (now) => {
        // What is added meanwhile is for the next time, however soon it is due.
        const added = this.#added;
        try {
          for (let due = this.#take(now, added); due.length > 0; due = this.#take(now, added)) {
            expire(due, now);
          }
        } finally {
          this.#alarm.set(this.#heap[0]?.at ?? Infinity);
        }
      },
      housekeeping,
    );
  }

  get size(): number {
    return this.#heap.length;
  }

  add(subject: T, at: number): Deadline {
    const node = new Node(at, this.#added++, subject, this.#heap.length);
    this.#heap.push(node);
    this.#up(node);
    if (this.#heap[0] === node) this.#alarm.set(at);
    return node;
  }

  /** Takes a deadline back; one that is due or gone already is ignored. */
  remove(deadline: Deadline): void {
    const node = deadline as Node<T>;
    if (this.#heap[node.index] !== node) return;
    this.#unlink(node);
    // When the earliest one goes, its timer stays: it finds nothing due and looks to the next.
    if (this.#heap.length === 0) this.#alarm.set(Infinity);
    else if (node.at === this.#alarm.at) this.#alarm.set(this.#heap[0]!.at);
  }

  /** Takes out what is due first, all of that instant. */
  #take(now: number, added: number): T[] {
    const due: T[] = [];
    const at = this.#heap[0]?.at ?? Infinity;
    if (at > now) return due;
    for (let first = this.#heap[0]; first?.at === at; first = this.#heap[0]) {
      if (first.order >= added) break;
      this.#unlink(first);
      due.push(first.subject);
    }
    return due;
  }

  #unlink(node: Node<T>): void {
    const last = this.#heap.pop()!;
    if (last === node) return;
    this.#heap[node.index] = last;
    last.index = node.index;
    this.#up(last);
    this.#down(last);
  }

  #up(node: Node<T>): void {
    while (node.index > 0) {
      const parent = this.#heap[(node.index - 1) >> 1]!;
      if (!node.before(parent)) return;
      this.#swap(parent, node);
    }
  }

  #down(node: Node<T>): void {
    for (;;) {
      const left = this.#heap[2 * node.index + 1];
      const right = this.#heap[2 * node.index + 2];
      const least = right !== undefined && right.before(left!) ? right : left;
      if (least === undefined || !least.before(node)) return;
      this.#swap(node, least);
    }
  }

  /** `lower` moves up to where its parent `upper` is. */
  #swap(upper: Node<T>, lower: Node<T>): void {
    const index = upper.index;
    upper.index = lower.index;
    lower.index = index;
    this.#heap[upper.index] = upper;
    this.#heap[lower.index] = lower;
  }
}
