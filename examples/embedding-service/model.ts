import {
  AdmissionQueue,
  compose,
  type ResourceLoadFailedEvent,
  SharedResource,
  type SharedResourceStats,
} from 'sluice';

import { readCorpus } from '../model-server/corpus.ts';
import { buildEmbedding, type Embedding, plainEmbedding } from './embedding.ts';
import { HttpFailure } from '../support/http.ts';
import type { LiveSettings, Settings } from './settings.ts';
import { SharedCalls } from './shared-calls.ts';

export interface Vector {
  readonly vector: Float32Array;
  /** The name of the model that it is of: vectors of two models are not to be compared. */
  readonly model: string;
}

export interface ModelStats extends SharedResourceStats {
  readonly maxWaiting: number;
  /** Callers who were turned away because too many waited. */
  readonly turnedAway: number;
  /** Different texts that are being embedded or wait, and callers who came for one of them. */
  readonly texts: number;
  readonly joined: number;
}

/**
 * An embedding model that is loaded when it is first needed and shared by everybody: so many use it
 * at once, so many wait, for it or for their turn, and the next one is told to come again. The same
 * text is embedded once for everybody who asks for it at the same time.
 */
export class Model {
  readonly resource: SharedResource<Embedding>;
  readonly #door: AdmissionQueue;
  readonly #vectors: SharedCalls<Vector>;
  readonly #settings: Settings;
  #loadMs: number;

  constructor(settings: Settings) {
    const { maxUsers, maxWaiting, accessTimeoutMs, loadTimeoutMs } = settings;
    this.#settings = settings;
    this.#loadMs = settings.loadMs;
    this.resource = new SharedResource<Embedding>({
      load: ({ signal }) => this.#load(signal),
      fallback: settings.fallback ? () => plainEmbedding(settings) : undefined,
      maxUsers,
      accessTimeoutMs,
      loadTimeoutMs,
    });
    this.resource.on('loadFailed', logFailure);
    // The line of a SharedResource is bounded by time alone: whoever finds this full never gets there.
    this.#door = new AdmissionQueue({ concurrency: maxUsers + maxWaiting, maxWaiting: 0 });
    const gate = compose(this.#door, this.resource);
    this.#vectors = new SharedCalls((text, caller) =>
      gate.run(
        async ({ resource, signal }) => ({
          vector: await resource.embed(text, signal),
          model: resource.name,
        }),
        { signal: caller },
      ),
    );
  }

  /** The vectors of all the texts, or what the first of them failed of: then the others are left. */
  async embed(texts: readonly string[], caller: AbortSignal): Promise<Vector[]> {
    const left = new AbortController();
    const leave = (): void => left.abort(caller.reason);
    caller.addEventListener('abort', leave, { once: true });
    try {
      caller.throwIfAborted();
      return await Promise.all(texts.map((text) => this.#vectors.get(text, left.signal)));
    } catch (error) {
      left.abort(error);
      throw error;
    } finally {
      caller.removeEventListener('abort', leave);
    }
  }

  /** Counts at once for how many use it, for the next callers or for the next load. */
  configure({ loadMs = this.#loadMs, ...others }: LiveSettings): void {
    this.#loadMs = loadMs;
    this.resource.configure(others);
    this.#door.resize(this.resource.stats().maxUsers + this.#settings.maxWaiting);
  }

  stats(): ModelStats {
    const { calls: texts, joined } = this.#vectors.stats();
    const { maxWaiting } = this.#settings;
    const turnedAway = this.#door.stats().refused;
    return { ...this.resource.stats(), maxWaiting, turnedAway, texts, joined };
  }

  async #load(signal: AbortSignal): Promise<Embedding> {
    const { corpus, dimensions, useMs } = this.#settings;
    try {
      const texts = await readCorpus(corpus);
      return await buildEmbedding(texts, { dimensions, useMs, loadMs: this.#loadMs, signal });
    } catch (cause) {
      signal.throwIfAborted();
      const message = 'The model cannot be loaded.';
      const headers = { 'retry-after': '5' };
      throw new HttpFailure(503, 'ERR_MODEL_UNAVAILABLE', message, headers, { cause });
    }
  }
}

/** For whoever runs the service: with a fallback, no caller is told. */
function logFailure({ error }: ResourceLoadFailedEvent): void {
  const { message, cause } = error as Error;
  console.error(message, cause instanceof Error ? cause.message : '');
}
