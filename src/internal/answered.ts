/**
 * Under this name the context of a gate of ours is told by `compose` that a gate inside has answered the
 * caller while the task still runs: the promise of the task says so only when that is over.
 */
export const answered: unique symbol = Symbol('sluice.answered');

/** A context that wants to know of it. */
export interface Answerable {
  [answered](ok: boolean, value: unknown): void;
}

/** Tells all of them that want to know. */
export function tellAnswered(contexts: readonly object[], ok: boolean, value: unknown): void {
  for (const context of contexts as readonly Partial<Answerable>[]) context[answered]?.(ok, value);
}
