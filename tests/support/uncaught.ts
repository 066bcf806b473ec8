/** What reached the process while this was in use. */
export interface Uncaught extends Disposable {
  readonly exceptions: unknown[];
  readonly rejections: unknown[];
}

/**
 * Listens to uncaught exceptions and unhandled rejections in the place of the test runner, which
 * would fail the run, until it is disposed of. What comes later is the runner's again.
 *
 * @example
 * ```ts
 * using uncaught = catchUncaught();
 * queueMicrotask(() => { throw failure; });
 * await settle();
 * expect(uncaught.exceptions).toEqual([failure]);
 * ```
 */
export function catchUncaught(): Uncaught {
  const exceptions: unknown[] = [];
  const rejections: unknown[] = [];
  const theirs = {
    uncaughtException: process.listeners('uncaughtException'),
    unhandledRejection: process.listeners('unhandledRejection'),
  };
  const onException = (error: unknown): void => void exceptions.push(error);
  const onRejection = (reason: unknown): void => void rejections.push(reason);
  process.removeAllListeners('uncaughtException').on('uncaughtException', onException);
  process.removeAllListeners('unhandledRejection').on('unhandledRejection', onRejection);
  return {
    exceptions,
    rejections,
    [Symbol.dispose](): void {
      process.off('uncaughtException', onException);
      process.off('unhandledRejection', onRejection);
      for (const listener of theirs.uncaughtException) process.on('uncaughtException', listener);
      for (const listener of theirs.unhandledRejection) process.on('unhandledRejection', listener);
    },
  };
}
