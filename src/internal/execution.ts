/**
 * Calls a task that nothing can interrupt: the same as an `Execution`, with less. What it holds is
 * given to `over` when it has settled, before the caller is answered.
 */
export function uninterrupted<T, Context, Hold>(
  task: (context: Context) => T | PromiseLike<T>,
  context: Context,
  over: (hold: Hold) => void,
  hold: Hold,
): Promise<T> {
  try {
    // The platform's own `then`: one that a promise brings along may do anything.
    return Promise.prototype.then.call(
      Promise.resolve(task(context)),
      (value: T) => {
        over(hold);
        return value;
      },
      (error: unknown) => {
        over(hold);
        throw error;
      },
    ) as Promise<T>;
  } catch (error) {
    over(hold);
    return Promise.reject(error);
  }
}

/**
 * One call of a user's task, from its start to its settlement.
 *
 * The place that it holds is given back in `settled`, which is called exactly once: when the task
 * has returned a value, thrown, or when what it returned has settled; a thenable may settle twice or
 * both ways, and only the first counts. Aborting the signal asks the task to stop and does not end
 * the execution.
 */
export abstract class Execution {
  #controller: AbortController | undefined;
  #abortedWith: { readonly reason: unknown } | undefined;

  /** What of it is called when the task is over. */
  protected abstract settled(ok: boolean, value: unknown): void;

  /** The task's own signal, made when first read. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#abortedWith !== undefined) this.#controller.abort(this.#abortedWith.reason);
    }
    return this.#controller.signal;
  }

  /** Aborts the task's signal. Runs the task's abort listeners, so the caller's state is final. */
  abort(reason: unknown): void {
    this.#abortedWith ??= { reason };
    this.#controller?.abort(reason);
  }

  /** Calls the task now, in the context of whoever calls this. */
  perform<Context>(task: (context: Context) => unknown, context: Context): void {
    try {
      // The platform's own `then`: one that a promise brings along may call back twice. The same as
      // `await` in an async function, with 240 bytes less garbage for each task.
      void Promise.prototype.then.call(
        Promise.resolve(task(context)),
        (value) => this.settled(true, value),
        (error: unknown) => this.settled(false, error),
      );
    } catch (error) {
      this.settled(false, error);
    }
  }
}
