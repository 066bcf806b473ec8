import type { SluiceError } from '../errors.ts';

/**
 * Under this name an error says that it is of this library: of any copy of it, since a bundler or a
 * dependency may bring a second one into the process, whose classes are others.
 */
export const ours: unique symbol = Symbol.for('sluice.error');

interface Brand {
  readonly [ours]?: unknown;
}

/** Whether it is an error of this library. */
export function isOurs(error: unknown): error is SluiceError {
  try {
    return (error as Brand)[ours] === true;
  } catch {
    // The reason of an abort may be anything: nothing at all, or a proxy that throws at whoever looks.
    return false;
  }
}
