import type { Classification } from './bayes.ts';
import { Failure } from './failure.ts';

/** The classifier behind its API. */
export class Model {
  readonly #url: string;

  /** @param url of the server, without a path. */
  constructor(url: string) {
    this.#url = url;
  }

  /** Rejects with a Failure (502), or with the signal's reason when that has ended the request. */
  async classify(
    texts: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly Classification[]> {
    try {
      const response = await fetch(`${this.#url}/classify`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ texts }),
        signal,
      });
      if (!response.ok) {
        await response.body?.cancel();
        throw new Error(`The model answered with ${response.status}.`);
      }
      const { results } = (await response.json()) as { readonly results?: unknown };
      if (isAnswer(results, texts.length)) return results;
      throw new Error('The model answered with something else.');
    } catch (cause) {
      signal.throwIfAborted();
      throw new Failure(502, 'ERR_MODEL_FAILED', 'The model failed.', { cause });
    }
  }
}

function isAnswer(results: unknown, length: number): results is readonly Classification[] {
  return Array.isArray(results) && results.length === length && results.every(isClassification);
}

function isClassification(value: unknown): boolean {
  const { label, probability, words } = (value ?? {}) as Partial<Classification>;
  return typeof label === 'string' && typeof probability === 'number' && Array.isArray(words);
}
