import { AsyncLocalStorage } from 'node:async_hooks';

/** Calls a function in the async context that it was made in. */
export type InContext = <R>(fn: () => R) => R;

/** Takes hold of the async context of whoever calls this. */
export function captureContext(): InContext {
  return AsyncLocalStorage.snapshot();
}
