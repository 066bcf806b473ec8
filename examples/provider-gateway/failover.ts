import { type Gate, SluiceError } from 'sluice';

import { Failure } from './failure.ts';
import type { AttemptContext, AttemptOptions, Provider } from './provider.ts';

/**
 * Several providers as one gate: whoever is refused by one goes to the next. A task is called once:
 * what happens after a provider has let it in is not tried again.
 *
 * Places in line are not told: what is promised by one provider may be kept by another. So a refusal
 * is one in time to be a status.
 */
export class Failover implements Gate<AttemptContext, AttemptOptions> {
  readonly #providers: readonly Provider[];

  constructor(providers: readonly Provider[]) {
    this.#providers = providers;
  }

  /** Rejects, where all have refused, with the refusal that ends the soonest. */
  async run<T>(
    task: (context: AttemptContext) => T | PromiseLike<T>,
    options?: AttemptOptions,
  ): Promise<T> {
    const { request, requestId, metadata, signal } = options!;
    const refusals: unknown[] = [];
    for (const provider of this.#providers) {
      let called = false;
      const once = (context: AttemptContext): T | PromiseLike<T> => {
        called = true;
        return task(context);
      };
      const attempt = refusals.length + 1;
      try {
        return await provider.run(once, {
          request,
          requestId,
          metadata: { ...metadata, attempt },
          signal,
        });
      } catch (error) {
        if (called || signal?.aborted === true || !isRefusal(error)) throw error;
        refusals.push(error);
      }
    }
    throw refusals.toSorted((a, b) => retryAfterOf(a) - retryAfterOf(b))[0];
  }
}

/** Whether another provider may think otherwise. */
function isRefusal(error: unknown): boolean {
  if (error instanceof Failure) return error.code !== 'ERR_BAD_REQUEST';
  const isOurs = error instanceof SluiceError;
  return isOurs && error.code !== 'ERR_CLOSED' && error.code !== 'ERR_METADATA_TOO_LARGE';
}

function retryAfterOf(error: unknown): number {
  return (error as { readonly retryAfterMs?: number }).retryAfterMs ?? Number.MAX_VALUE;
}
