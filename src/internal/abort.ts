/**
 * What a signal was aborted with, if it was; of one that cannot be looked at, what it throws. For
 * where somebody holds a place already, which must not be lost.
 */
export function abortOf(signal: AbortSignal): { readonly reason: unknown } | undefined {
  try {
    return signal.aborted ? { reason: signal.reason } : undefined;
  } catch (error) {
    return { reason: error };
  }
}

interface Watched<T> {
  readonly subjects: Set<T>;
  readonly listener: () => void;
}

/**
 * Watches abort signals on behalf of many subjects, with one DOM listener for each distinct signal
 * however many subjects share it: adding a listener costs O(listeners) in Node, and a listener left
 * behind on a long-lived signal is a leak. The listener goes with the last subject.
 *
 * `aborted` gets all subjects of the signal in one batch, in the order in which they were added;
 * all of them are forgotten already.
 */
export class AbortWatch<T> {
  readonly #aborted: (subjects: Set<T>, reason: unknown) => void;
  readonly #watched = new Map<AbortSignal, Watched<T>>();

  constructor(aborted: (subjects: Set<T>, reason: unknown) => void) {
    this.#aborted = aborted;
  }

  /** The number of signals with a listener of ours. */
  get size(): number {
    return this.#watched.size;
  }

  /**
   * Starts to watch. A signal that is aborted already never calls back: look before. `aborted` is
   * never called from within: a signal that aborts meanwhile, as a hostile one may, is reported in a
   * microtask. Where the signal throws, nothing is watched.
   */
  add(signal: AbortSignal, subject: T): void {
    const known = this.#watched.get(signal);
    if (known !== undefined) {
      known.subjects.add(subject);
      return;
    }
    const subjects = new Set([subject]);
    const listener = (): void => {
      if (this.#watched.get(signal) !== watched) return;
      this.#forget(signal, watched);
      this.#aborted(subjects, signal.reason);
    };
    const watched: Watched<T> = { subjects, listener };
    // Where this throws nothing is kept; where it calls the listener, nothing is there yet.
    signal.addEventListener('abort', listener);
    this.#watched.set(signal, watched);
    try {
      if (signal.aborted) queueMicrotask(listener);
    } catch (error) {
      this.#forget(signal, watched);
      throw error;
    }
  }

  /** Stops to watch for `subject`; does nothing where it is not watched. */
  remove(signal: AbortSignal, subject: T): void {
    const watched = this.#watched.get(signal);
    if (watched === undefined) return;
    watched.subjects.delete(subject);
    if (watched.subjects.size === 0) this.#forget(signal, watched);
  }

  #forget(signal: AbortSignal, watched: Watched<T>): void {
    this.#watched.delete(signal);
    try {
      signal.removeEventListener('abort', watched.listener);
    } catch {
      // A signal that cannot be left finds nobody to tell from now on.
    }
  }
}
