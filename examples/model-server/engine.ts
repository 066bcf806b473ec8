import { setTimeout as sleep } from 'node:timers/promises';

import { ApiError } from './api-error.ts';
import { Quota, type QuotaCount, type QuotaRefusal } from './quota.ts';
import type { ChatRequest } from './request.ts';
import type { Settings } from './settings.ts';
import { tokenize, type TrigramModel } from './trigram.ts';

/** `setTimeout` takes a longer one for 1 ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;

type FinishReason = 'stop' | 'length';

export interface EngineStats {
  /** Requests that hold a place now, and the most that ever did: never above `parallel`. */
  readonly active: number;
  readonly peak: number;
  /** Since the start: answered wholly, refused for want of a place, and left by their client. */
  readonly served: number;
  readonly rejected: number;
  readonly aborted: number;
  /** Refused for want of quota. */
  readonly limited: number;
}

/**
 * A model with as many places as requests are decoded at once. It has no line: who finds no place
 * free is refused, with the time until one should be.
 *
 * To draw a token costs microseconds. The time that a GPU would need is spent when they are handed
 * out.
 */
export class Engine {
  readonly #model: TrigramModel;
  readonly #settings: Settings;
  readonly #quota: Quota;
  readonly #jobs = new Set<Job>();
  readonly #left = { served: 0, aborted: 0 };
  #rejected = 0;
  #limited = 0;
  #peak = 0;

  constructor(model: TrigramModel, settings: Settings) {
    this.#model = model;
    this.#settings = settings;
    const { requestsPerWindow, tokensPerWindow, quotaWindowMs } = settings;
    this.#quota = new Quota(requestsPerWindow, tokensPerWindow, quotaWindowMs);
  }

  /**
   * Takes a place until the job leaves, and quota; throws an ApiError (429) if there is none. What a
   * job that is left by its client has not used of its quota is lost.
   */
  admit(request: ChatRequest): Job {
    const { parallel, prefillMsPerToken, decodeMsPerToken, minTokens, seed } = this.#settings;
    if (this.#jobs.size >= parallel) {
      this.#rejected += 1;
      throw this.#overloaded();
    }
    const promptTokens = tokenize(request.conversation).length;
    const reserved = promptTokens + request.maxTokens;
    const refusal = this.#quota.take(reserved);
    if (refusal !== undefined) {
      this.#limited += 1;
      throw overQuota(refusal);
    }
    const job: Job = new Job({
      promptTokens,
      ...compose(this.#model, request, request.seed ?? seed, minTokens),
      firstTokenAt: performance.now() + promptTokens * prefillMsPerToken,
      decodeMsPerToken,
      onLeave: (outcome) => {
        this.#jobs.delete(job);
        this.#left[outcome] += 1;
        if (outcome === 'served') this.#quota.giveBack(reserved - promptTokens - job.tokens.length);
      },
    });
    this.#jobs.add(job);
    this.#peak = Math.max(this.#peak, this.#jobs.size);
    return job;
  }

  /** How the quotas stand, if there are any. */
  quota(): readonly QuotaCount[] {
    return this.#quota.counts();
  }

  stats(): EngineStats {
    return {
      active: this.#jobs.size,
      peak: this.#peak,
      ...this.#left,
      rejected: this.#rejected,
      limited: this.#limited,
    };
  }

  /** The answers are drawn already, so that it is known when the first place falls free. */
  #overloaded(): ApiError {
    const freeAt = Math.min(...[...this.#jobs].map((job) => job.endsAt));
    const seconds = Math.max(1, Math.ceil((freeAt - performance.now()) / 1000));
    const { parallel } = this.#settings;
    return new ApiError(429, `All ${parallel} places are taken. Try again in ${seconds} s.`, {
      type: 'rate_limit_exceeded',
      code: 'rate_limit_exceeded',
      headers: { 'Retry-After': String(seconds) },
    });
  }
}

function overQuota({ count, requested, retryAfterMs }: QuotaRefusal): ApiError {
  const { name, limit, remaining } = count;
  const details = { type: name, code: 'rate_limit_exceeded' };
  const message = `Rate limit reached for ${name}: limit ${limit}, left ${remaining}, requested ${requested}.`;
  if (retryAfterMs === Infinity) return new ApiError(429, message, details);
  return new ApiError(429, message, {
    ...details,
    headers: {
      'Retry-After': String(Math.ceil(retryAfterMs / 1000)),
      'Retry-After-Ms': String(Math.ceil(retryAfterMs)),
    },
  });
}

interface JobOptions {
  readonly promptTokens: number;
  readonly tokens: readonly string[];
  readonly finishReason: FinishReason;
  readonly firstTokenAt: number;
  readonly decodeMsPerToken: number;
  readonly onLeave: (outcome: 'served' | 'aborted') => void;
}

/** One request on the engine. */
export class Job {
  readonly promptTokens: number;
  readonly tokens: readonly string[];
  readonly finishReason: FinishReason;
  readonly #firstTokenAt: number;
  readonly #decodeMsPerToken: number;
  readonly #onLeave: (outcome: 'served' | 'aborted') => void;
  #here = true;

  constructor(options: JobOptions) {
    this.promptTokens = options.promptTokens;
    this.tokens = options.tokens;
    this.finishReason = options.finishReason;
    this.#firstTokenAt = options.firstTokenAt;
    this.#decodeMsPerToken = options.decodeMsPerToken;
    this.#onLeave = options.onLeave;
  }

  /** When the last token is due, on the clock of `performance.now()`. */
  get endsAt(): number {
    return this.#dueAt(Math.max(0, this.tokens.length - 1));
  }

  /** Each token when it is due, then as `finish`. */
  async *decode(signal: AbortSignal): AsyncGenerator<string, void, void> {
    for (const [index, token] of this.tokens.entries()) {
      await sleepUntil(this.#dueAt(index), signal);
      yield token;
    }
    await this.finish(signal);
  }

  /**
   * Waits until the last token is due and gives the place back as served: before the client can
   * know it, so that its next request finds a place. Rejects as soon as `signal` aborts.
   */
  async finish(signal: AbortSignal): Promise<void> {
    await sleepUntil(this.endsAt, signal);
    this.leave('served');
  }

  /** Gives the place back; only the first call counts. */
  leave(outcome: 'served' | 'aborted'): void {
    if (!this.#here) return;
    this.#here = false;
    this.#onLeave(outcome);
  }

  /** From the start, not from the token before: delays do not add up. */
  #dueAt(index: number): number {
    return this.#firstTokenAt + index * this.#decodeMsPerToken;
  }
}

function compose(
  model: TrigramModel,
  request: ChatRequest,
  seed: number,
  minTokens: number,
): { tokens: string[]; finishReason: FinishReason } {
  const tokens: string[] = [];
  let text = '';
  const answer = model.generate({
    about: request.question,
    seed: `${seed}\n${request.conversation}`,
    temperature: request.temperature,
    minTokens,
  });
  for (const token of answer) {
    const known = text.length;
    tokens.push(token);
    text += token;
    const ends = request.stop
      .map((stop) => text.indexOf(stop, Math.max(0, known - stop.length + 1)))
      .filter((end) => end !== -1);
    if (ends.length > 0) return { tokens: cut(tokens, Math.min(...ends)), finishReason: 'stop' };
    if (tokens.length === request.maxTokens) return { tokens, finishReason: 'length' };
  }
  return { tokens, finishReason: 'stop' };
}

/** The tokens of the first `length` characters. */
function cut(tokens: readonly string[], length: number): string[] {
  const kept: string[] = [];
  for (const token of tokens) {
    if (length <= 0) break;
    kept.push(token.slice(0, length));
    length -= token.length;
  }
  return kept;
}

async function sleepUntil(dueAt: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  for (;;) {
    // A timer may fire a little early.
    const leftMs = Math.ceil(dueAt - performance.now());
    if (leftMs <= 0) return;
    await sleep(Math.min(leftMs, MAX_TIMER_MS), undefined, { signal });
  }
}
