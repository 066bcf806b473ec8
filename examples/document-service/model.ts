import { compose, RateLimiter, Semaphore } from 'sluice';
import { parseRetryAfter } from 'sluice/http';
import { Agent } from 'undici';

import { HttpFailure } from './failure.ts';
import type { Settings } from './settings.ts';

export interface Prompt {
  readonly system: string;
  readonly text: string;
}

/** How often a request is made again that the model has no room for, … */
const MAX_RETRIES = 4;
/** … unless it asks for more patience than this. */
const MAX_RETRY_AFTER_MS = 10_000;
const MAX_ANSWER_BYTES = 1_048_576;

/**
 * The model behind its API. So many requests at once whatever they are for, so many a minute, and all
 * of them over the same few connections, which are kept open.
 */
export class Model {
  readonly calls: Semaphore;
  readonly quota: RateLimiter;
  readonly #agent: Agent;
  readonly #settings: Settings;

  constructor(settings: Settings) {
    const { modelCalls, callsPerMinute, callTimeoutMs } = settings;
    this.#settings = settings;
    this.calls = new Semaphore({ capacity: modelCalls });
    this.quota = new RateLimiter(perMinute(callsPerMinute));
    this.#agent = new Agent({
      // One more, so that a health check is never behind the calls.
      connections: modelCalls + 1,
      keepAliveTimeout: 30_000,
      connectTimeout: callTimeoutMs,
      headersTimeout: callTimeoutMs,
      bodyTimeout: callTimeoutMs,
      maxResponseSize: MAX_ANSWER_BYTES,
    });
  }

  /** Rejects with an HttpFailure, or with the signal's reason when that has ended the request. */
  async answer(prompt: Prompt, signal: AbortSignal): Promise<string> {
    // The quota inside: what it grants is used at once.
    const gate = compose(this.calls, this.quota);
    for (let retries = 0; ; retries += 1) {
      try {
        return await gate.run((call) => this.#complete(prompt, call.signal), { signal });
      } catch (error) {
        const { retryAfterMs = Infinity } = error as { retryAfterMs?: number };
        const hopeless = retries === MAX_RETRIES || retryAfterMs > MAX_RETRY_AFTER_MS;
        if (!(error instanceof HttpFailure) || hopeless) throw error;
        // Whoever else asks meanwhile would be told the same.
        this.quota.pause(retryAfterMs);
      }
    }
  }

  /** Asks the API for something that costs nothing. Rejects when it does not answer well, or in time. */
  async check(): Promise<{ readonly tookMs: number }> {
    const startedAt = performance.now();
    const signal = AbortSignal.timeout(this.#settings.healthTimeoutMs);
    const { statusCode, body } = await this.#send('GET', '/models', signal);
    await body.dump({ limit: MAX_ANSWER_BYTES, signal });
    if (statusCode !== 200) throw new HttpFailure(502, `STATUS_${statusCode}`, 'The model is ill.');
    return { tookMs: Math.round(performance.now() - startedAt) };
  }

  /** Ends what is open. Resolves when no connection is left. */
  close(): Promise<void> {
    return this.#agent.destroy();
  }

  async #complete({ system, text }: Prompt, signal: AbortSignal): Promise<string> {
    const { model, maxTokens } = this.#settings;
    try {
      const { statusCode, headers, body } = await this.#send('POST', '/chat/completions', signal, {
        model,
        max_completion_tokens: maxTokens,
        messages: [
          { role: 'system', content: system },
          { role: 'user', content: text },
        ],
      });
      const answer = await body.text();
      if (statusCode === 200) return contentOf(answer);
      if (statusCode !== 429 && statusCode !== 503) {
        throw new Error(`The model answered with ${statusCode}: ${answer.slice(0, 200)}`);
      }
      const retryAfterMs = parseRetryAfter(headers) ?? 1000;
      throw new HttpFailure(503, 'ERR_MODEL_BUSY', 'The model has no room.', { retryAfterMs });
    } catch (error) {
      signal.throwIfAborted();
      throw failure(error);
    }
  }

  #send(
    method: 'GET' | 'POST',
    path: string,
    signal: AbortSignal,
    body?: object,
  ): ReturnType<Agent['request']> {
    const { origin, pathname } = new URL(this.#settings.baseURL);
    return this.#agent.request({
      origin,
      path: pathname.replace(/\/$/, '') + path,
      method,
      headers: {
        authorization: `Bearer ${this.#settings.apiKey}`,
        ...(body && { 'content-type': 'application/json' }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal,
    });
  }
}

function contentOf(answer: string): string {
  const { choices } = JSON.parse(answer) as {
    choices?: { message?: { content?: unknown } }[];
  };
  const content = choices?.[0]?.message?.content;
  if (typeof content === 'string' && content !== '') return content;
  throw new TypeError('The model answered with something that is no completion.');
}

/** What a caller is told when the model fails; what exactly went wrong is the `cause`. */
function failure(cause: unknown): HttpFailure {
  if (cause instanceof HttpFailure) return cause;
  const late = /^UND_ERR_(?:CONNECT|HEADERS|BODY)_TIMEOUT$/.test(String(codeOf(cause)));
  return late
    ? new HttpFailure(504, 'ERR_MODEL_TIMEOUT', 'The model took too long.', { cause })
    : new HttpFailure(502, 'ERR_MODEL_FAILED', 'The model failed.', { cause });
}

function codeOf(error: unknown): unknown {
  return (error as { readonly code?: unknown } | null)?.code;
}

/** Never more than `calls` in any window of a minute: what may come at once counts against it. */
function perMinute(calls: number): { limit: number; intervalMs: number; burst: number } {
  const burst = Math.ceil(calls / 10);
  return { limit: calls - burst, intervalMs: 60_000, burst };
}
