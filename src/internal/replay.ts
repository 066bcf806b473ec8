import { ReplayExpiredError } from '../errors.ts';
import type { Deadline } from './deadlines.ts';
import type { Due, Ending, Feed, Sink } from './feed.ts';
import { Fifo } from './fifo.ts';
import { Outlet, type OutletSettings } from './outlet.ts';
import { LAST_EVENT_ID } from './stream-handle.ts';

/**
 * Keeps the latest tokens of a feed for readers who come again. The feed goes on while nobody reads;
 * after `graceMs` of that, all is over.
 */
export class Recorder<T> implements Sink<T>, Due {
  readonly hasRoom = true;
  readonly #settings: OutletSettings;
  readonly #feed: Feed<T>;
  readonly #maxTokens: number;
  readonly #graceMs: number;
  readonly #tokens = new Fifo<T>();
  /** The index of the first token that there was, and of the first that is kept. */
  readonly #origin: number;
  #first: number;
  #isAdmitted: boolean;
  /** Whether there was a place in line to tell of. */
  #hasMoved: boolean;
  /** How the feed ended: after its tokens, or with the loss of them. */
  #last: Ending | undefined;
  #isStopped = false;
  #readers = 0;
  #isExpired = false;
  #grace: Deadline | undefined;
  #expire!: () => void;
  /** Resolves when nothing can be read any more but how it ended. */
  readonly expired: Promise<void> = new Promise((resolve) => {
    this.#expire = resolve;
  });

  /** In the place of `outlet`, of which nothing has been read: others of the feed may have been. */
  constructor(outlet: Outlet<T>, feed: Feed<T>, maxTokens: number, graceMs: number) {
    const { settings, ending } = outlet;
    const { index, hasMoved, isStartDue, last, tokens } = outlet.origin;
    this.#settings = settings;
    this.#feed = feed;
    this.#maxTokens = maxTokens;
    this.#graceMs = graceMs;
    this.#origin = index;
    this.#first = index;
    this.#isAdmitted = isStartDue;
    this.#hasMoved = hasMoved;
    this.#last = last;
    for (const token of tokens) this.token(token);
    if (ending === undefined) feed.attach(this);
    else this.stopped(ending);
    if (!this.#isExpired) this.#wait();
  }

  /** Ends it for those to come; false where it had ended. */
  cancel(reason: unknown): boolean {
    if (this.#isStopped || this.#isExpired) return false;
    const ending = { outcome: 'cancelled', error: reason } as const;
    this.stopped(ending);
    this.#feed.detach(this, ending);
    return true;
  }

  /** What comes after the event with that id; everything where there is none. */
  from(lastEventId: string | undefined): Outlet<T> {
    const outlet = this.#outletAfter(lastEventId);
    this.#readers++;
    if (this.#grace !== undefined) this.#settings.housekeeping.remove(this.#grace);
    this.#grace = undefined;
    void outlet.finished.then(() => {
      this.#readers--;
      if (this.#readers === 0 && !this.#isExpired) this.#wait();
    });
    return outlet;
  }

  /** Readers are told themselves. */
  moved(): void {
    this.#hasMoved = true;
  }

  admitted(): void {
    this.#isAdmitted = true;
  }

  token(value: T): void {
    this.#tokens.push(value);
    if (this.#tokens.length <= this.#maxTokens) return;
    this.#tokens.shift();
    this.#first++;
  }

  ended(ending: Ending): void {
    this.#last = ending;
  }

  stopped(ending: Ending): void {
    this.#last = ending;
    this.#isStopped = true;
    this.#tokens.clear();
    // The gate has let in nobody: who comes again is to ask it again, not to be told of this refusal.
    const isRefusal = !this.#isAdmitted && !this.#hasMoved && ending.outcome !== 'cancelled';
    if (isRefusal) this.#forget();
  }

  due(): void {
    this.#tokens.clear();
    this.#forget();
    const error = new DOMException('Nobody has come back to read the stream.', 'AbortError');
    this.#feed.detach(this, { outcome: 'disconnected', error });
  }

  #forget(): void {
    this.#isExpired = true;
    if (this.#grace !== undefined) this.#settings.housekeeping.remove(this.#grace);
    this.#expire();
  }

  #wait(): void {
    const { housekeeping, time } = this.#settings;
    this.#grace = housekeeping.add(this, time.now() + this.#graceMs);
  }

  #outletAfter(lastEventId: string | undefined): Outlet<T> {
    const isOver = lastEventId === LAST_EVENT_ID && this.#last !== undefined;
    const index = isOver ? this.#feed.brought : this.#indexAfter(lastEventId);
    const isKept = index >= this.#first && index <= this.#feed.brought && !this.#isExpired;
    const outlet = new Outlet(this.#settings, this.#feed, {
      index,
      tokens: isKept ? this.#tokens.slice(index - this.#first) : [],
      hasMoved: true,
      isStartDue: this.#isAdmitted && lastEventId === undefined,
      last: this.#last,
      isOver,
      hasIds: true,
    });
    if (this.#isStopped) outlet.end(this.#last!);
    else if (!isKept) outlet.end({ outcome: 'failed', error: new ReplayExpiredError() });
    return outlet;
  }

  /** What a client says may be anything: NaN, which is nowhere, for what is no id of ours. */
  #indexAfter(lastEventId: string | undefined): number {
    if (lastEventId === undefined) return this.#origin;
    return /^\d{1,15}$/.test(lastEventId) ? Number(lastEventId) + 1 : NaN;
  }
}
