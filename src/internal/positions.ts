import { deliver, type Emitter, heard, post } from './emitter.ts';
import type { Entry } from './entry.ts';

/** What is told of a change of place. */
export interface PositionEvent {
  readonly id: string;
  /** 1 = next, 0 = its task runs, -1 = over. */
  readonly position: number;
}

/**
 * Tells those who want to know when positions change: listeners of `position`, and iterators that
 * are waiting for their next value. A turn's changes are told once, in a microtask after it, so that
 * a burst of arrivals and departures costs one look: O(waiting) for listeners, O(log waiting) for
 * each iterator that waits. With neither, nothing is done at all.
 */
export class Positions {
  readonly #emitter: Emitter<{ position: PositionEvent }>;
  readonly #line: Iterable<Entry>;
  readonly #positionOf: (entry: Entry) => number;
  readonly #watching = new Set<PositionIterator>();
  /** What listeners have been told last. */
  #announced = new Map<Entry, number>();
  #scheduled = false;

  constructor(
    emitter: Emitter<{ position: PositionEvent }>,
    line: Iterable<Entry>,
    positionOf: (entry: Entry) => number,
  ) {
    this.#emitter = emitter;
    this.#line = line;
    this.#positionOf = positionOf;
  }

  /** Somebody joined, left, started or moved. */
  changed(): void {
    if (this.#scheduled) return;
    if (this.#watching.size === 0 && !heard(this.#emitter, 'position')) {
      if (this.#announced.size > 0) this.#announced = new Map();
      return;
    }
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      for (const iterator of this.#watching) iterator.look();
      if (heard(this.#emitter, 'position')) this.#announce();
      else this.#announced = new Map();
      deliver(this.#emitter);
    });
  }

  iterate(entry: Entry): AsyncIterableIterator<number> {
    return new PositionIterator(this.#watching, () => this.#positionOf(entry));
  }

  #announce(): void {
    const before = this.#announced;
    this.#announced = new Map();
    // Those who are not in line any more run, or are over: first, since an id may be in use again.
    for (const entry of before.keys()) {
      if (entry.status !== 'waiting') this.#tell(entry, this.#positionOf(entry), before);
    }
    let position = 0;
    for (const entry of this.#line) this.#tell(entry, ++position, before);
  }

  #tell(entry: Entry, position: number, before: ReadonlyMap<Entry, number>): void {
    if (position !== -1) this.#announced.set(entry, position);
    if (before.get(entry) !== position) post(this.#emitter, 'position', { id: entry.id, position });
  }
}

/** Yields each position once, the latest when asked; ends after 0, or when the entry has left. */
class PositionIterator implements AsyncIterableIterator<number> {
  readonly #watching: Set<PositionIterator>;
  readonly #position: () => number;
  readonly #asking: ((result: IteratorResult<number, undefined>) => void)[] = [];
  #last: number | undefined;
  #done = false;

  constructor(watching: Set<PositionIterator>, position: () => number) {
    this.#watching = watching;
    this.#position = position;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<number, undefined>> {
    return new Promise((resolve) => {
      this.#asking.push(resolve);
      this.#watching.add(this);
      this.look();
    });
  }

  return(): Promise<IteratorResult<number, undefined>> {
    this.#end();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Answers the first one asking if the position has changed since the last answer. */
  look(): void {
    const position = this.#done ? -1 : this.#position();
    if (position === -1) {
      this.#end();
    } else if (position !== this.#last) {
      this.#last = position;
      this.#asking.shift()!({ done: false, value: position });
      if (position === 0) this.#end();
      else if (this.#asking.length === 0) this.#watching.delete(this);
    }
  }

  #end(): void {
    this.#done = true;
    this.#watching.delete(this);
    for (const answer of this.#asking.splice(0)) answer({ done: true, value: undefined });
  }
}
