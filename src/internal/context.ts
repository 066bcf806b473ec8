import { AsyncLocalStorage } from 'node:async_hooks';

/** Calls a function in the async context that it was made in. */
export type InContext = <R>(fn: () => R) => R;

/** Takes hold of the async context of whoever calls this. */
export function captureContext(): InContext {
  const captured = AsyncLocalStorage.snapshot();
  // Entered as a copy: on Node 22, a storage's `run()` within it would change it until that returns, and
  // with it what it is for who enters it meanwhile.
  return (fn) => captured(() => AsyncLocalStorage.snapshot()(fn));
}

/** What one owner has put into an async context, on top of what others have. */
interface Frame {
  readonly owner: object;
  readonly value: unknown;
  readonly below: Frame | undefined;
}

/**
 * One for all owners, made with the first use. On Node 22 every storage that was ever used makes every
 * promise of the process slower, for good: after two thousand of them an `await` took 0.4 ms.
 */
let frames: AsyncLocalStorage<Frame> | undefined;

/** The frames without that of `owner`; there is one at most. */
function without(owner: object, frame: Frame | undefined): Frame | undefined {
  if (frame === undefined) return undefined;
  if (frame.owner === owner) return frame.below;
  const below = without(owner, frame.below);
  return below === frame.below ? frame : { ...frame, below };
}

/** A value of the async context. O(owners that the context has been through). */
export class ContextValue<T> {
  /** Calls `fn` in a context that has the value, and nothing of the one before. */
  run<R>(value: T, fn: () => R): R {
    frames ??= new AsyncLocalStorage();
    return frames.run({ owner: this, value, below: without(this, frames.getStore()) }, fn);
  }

  /** The value in the context of whoever calls this. */
  get(): T | undefined {
    let frame = frames?.getStore();
    while (frame !== undefined && frame.owner !== this) frame = frame.below;
    return frame?.value as T | undefined;
  }
}
