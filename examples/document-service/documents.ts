import { AdmissionQueue } from 'sluice';

import { Model } from './model.ts';
import type { Settings } from './settings.ts';

type StepName = (typeof STEPS)[number]['name'];

export interface Processed extends Readonly<Record<StepName, string>> {
  readonly id: string;
  /** In line, and from there to the end. */
  readonly waitedMs: number;
  readonly tookMs: number;
}

/** Each step is given what the one before it has made, and the first one the text. */
const STEPS = [
  { name: 'points', system: 'List the key points of this text, one sentence each.' },
  { name: 'summary', system: 'Write a summary of a text that has these key points.' },
  { name: 'title', system: 'Write a title for a text that has this summary.' },
] as const;

/**
 * Documents in line for three steps of a model. A document holds one of few places from its first step
 * to its last one, and a call within each of them: two limits, of which the inner one is shared by all
 * documents and the outer one keeps those that have been begun few.
 */
export class Documents {
  readonly queue: AdmissionQueue;
  readonly model: Model;

  constructor(settings: Settings) {
    const { documents: concurrency, maxWaiting, waitTimeoutMs, documentTimeoutMs } = settings;
    this.queue = new AdmissionQueue({
      concurrency,
      maxWaiting,
      waitTimeoutMs,
      runTimeoutMs: documentTimeoutMs,
    });
    this.model = new Model(settings);
  }

  get calls(): Model['calls'] {
    return this.model.calls;
  }

  /** Rejects with an HttpFailure, an error of the queue, or the reason of the signal. */
  process(id: string, text: string, signal: AbortSignal): Promise<Processed> {
    const arrivedAt = performance.now();
    return this.queue.run(
      async (place) => {
        const startedAt = performance.now();
        const results: Partial<Record<StepName, string>> = {};
        let input = text;
        for (const { name, system } of STEPS) {
          input = await this.model.answer({ system, text: input }, place.signal);
          results[name] = input;
        }
        return {
          id,
          ...(results as Record<StepName, string>),
          waitedMs: Math.round(startedAt - arrivedAt),
          tookMs: Math.round(performance.now() - startedAt),
        };
      },
      { id, signal },
    );
  }

  /** Takes no more documents; resolves when those that were taken are done, or have been left. */
  async drain(): Promise<void> {
    await this.queue.drain();
    await this.calls.idle();
    await this.model.close();
  }
}
