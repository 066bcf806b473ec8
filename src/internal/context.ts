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
