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
  readonly #watched = new Map<AbortSignal, { subjects: Set<T>; listener: () => void }>();

  constructor(aborted: (subjects: Set<T>, reason: unknown) => void) {
    this.#aborted = aborted;
  }

  /** The number of signals with a listener of ours. */
  get size(): number {
    return this.#watched.size;
  }

  /** Starts to watch. A signal that is aborted already never calls back: look before. */
  add(signal: AbortSignal, subject: T): void {
    const watched = this.#watched.get(signal);
    if (watched !== undefined) {
      watched.subjects.add(subject);
      return;
    }
    const subjects = new Set([subject]);
    const listener = (): void => {
      if (this.#forget(signal)) this.#aborted(subjects, signal.reason);
    };
    // A hostile signal may throw here: nothing is kept then.
    signal.addEventListener('abort', listener);
    this.#watched.set(signal, { subjects, listener });
  }

  /** Stops to watch for `subject`; does nothing where it is not watched. */
  remove(signal: AbortSignal, subject: T): void {
    const watched = this.#watched.get(signal);
    if (watched === undefined) return;
    watched.subjects.delete(subject);
    if (watched.subjects.size === 0) this.#forget(signal);
  }

  #forget(signal: AbortSignal): boolean {
    const watched = this.#watched.get(signal);
    if (watched === undefined) return false;
    this.#watched.delete(signal);
    try {
      signal.removeEventListener('abort', watched.listener);
    } catch {
      // A signal that cannot be left finds nobody to tell from now on.
    }
    return true;
  }
}
