import { Alarm, type Time } from './time.ts';

/** An instant at which something becomes due. Made by `Deadlines.add`, given back to `remove`. */
export interface Deadline {
  readonly at: number;
}

class Node<T> implements Deadline {
  readonly at: number;
  readonly order: number;
  /** Undefined when it is due or taken back. */
  subject: T | undefined;

  constructor(at: number, order: number, subject: T) {
    this.at = at;
    this.order = order;
    this.subject = subject;
  }

  before(other: Node<T>): boolean {
    return this.at < other.at || (this.at === other.at && this.order < other.order);
  }
}

/**
 * The deadlines of one primitive behind one timer, armed for the earliest and off when there is none.
 *
 * `expire` gets what is due at one instant in one batch, in the order of `add`, removed already; a
 * timer that is late for several instants calls it for each of them, in their order. So what is
 * given back at one of them is there at the next, as if the timer had been on time.
 *
 *           0            A binary heap by (at, order): children of i at 2i + 1 and 2i + 2. Nearly all
 *        1     2         deadlines are taken back before they are due: such a one stays where it is,
 *       3 4   5 6        without its subject, until more than half of them are like that.
 *
 * `remove` is O(1), sorting out included: with a heap that each leaves at once, a hundred thousand callers
 * with a limit on their wait take a third longer to get through a semaphore. `add` is O(log n), and O(1)
 * in order of time, as one limit for all makes it.
 */
export class Deadlines<T> {
  #heap: Node<T>[] = [];
  #size = 0;
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
          this.#alarm.set(this.#first()?.at ?? Infinity);
        }
      },
      housekeeping,
    );
  }

  get size(): number {
    return this.#size;
  }

  add(subject: T, at: number): Deadline {
    const node = new Node(at, this.#added++, subject);
    this.#heap.push(node);
    this.#size++;
    this.#up(this.#heap.length - 1);
    if (this.#heap[0] === node) this.#alarm.set(at);
    return node;
  }

  /**
   * Takes a deadline back; one that is due or gone already is ignored. When the earliest one goes, its
   * timer stays: it finds nothing due and looks to the next.
   */
  remove(deadline: Deadline): void {
    const node = deadline as Node<T>;
    if (node.subject === undefined) return;
    node.subject = undefined;
    this.#size--;
    if (this.#size === 0) {
      this.#heap = [];
      this.#alarm.set(Infinity);
    } else if (this.#heap.length > 2 * this.#size) {
      this.#heap = this.#heap.filter(({ subject }) => subject !== undefined);
      for (let index = (this.#heap.length >> 1) - 1; index >= 0; index--) this.#down(index);
    }
  }

  /** Takes out what is due first, all of that instant. */
  #take(now: number, added: number): T[] {
    const due: T[] = [];
    const at = this.#first()?.at ?? Infinity;
    if (at > now) return due;
    for (let first = this.#first(); first?.at === at; first = this.#first()) {
      if (first.order >= added) break;
      due.push(first.subject!);
      first.subject = undefined;
      this.#size--;
    }
    return due;
  }

  /** The earliest one that there is; those before it are sorted out. */
  #first(): Node<T> | undefined {
    const heap = this.#heap;
    while (heap.length > 0 && heap[0]!.subject === undefined) {
      const last = heap.pop()!;
      if (heap.length === 0) break;
      heap[0] = last;
      this.#down(0);
    }
    return heap[0];
  }

  #up(index: number): void {
    const heap = this.#heap;
    const node = heap[index]!;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!node.before(heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = node;
  }

  #down(index: number): void {
    const heap = this.#heap;
    const node = heap[index]!;
    for (;;) {
      const left = 2 * index + 1;
      const right = left + 1;
      const least = right < heap.length && heap[right]!.before(heap[left]!) ? right : left;
      if (least >= heap.length || !heap[least]!.before(node)) break;
      heap[index] = heap[least]!;
      index = least;
    }
    heap[index] = node;
  }
}
