import OpenAI, { APIConnectionError, RateLimitError } from 'openai';
import type { ChatCompletionCreateParamsBase } from 'openai/resources/chat/completions';
import { RateLimiter } from 'sluice';
import { parseRetryAfter } from 'sluice/http';

import type { Exchange } from './history.ts';
import { HttpFailure } from '../support/http.ts';
import type { Question } from './questions.ts';
import type { Settings } from './settings.ts';

const TUTOR =
  'You are a patient tutor. Answer in a few sentences, and end with a question that leads on.';

/** How many of a student's latest questions, with their answers, the model is told. */
const REMEMBERED = 3;

/** How often a request is made again that the model has no room for, … */
const MAX_RETRIES = 4;
/** … at first soon, whatever it says: it may not have noticed yet that somebody has just left. */
const SOON_MS = [25, 250];
/** A longer `Retry-After` is not waited for. */
const MAX_RETRY_AFTER_MS = 10_000;

/** The model behind its API, asked no more often than its quota allows. */
export class Model {
  readonly #client: OpenAI;
  readonly #quota: RateLimiter;
  readonly #settings: Settings;

  constructor(settings: Settings) {
    const { baseURL, apiKey, answerTimeoutMs, requestsPerMinute } = settings;
    this.#settings = settings;
    this.#quota = new RateLimiter(perMinute(requestsPerMinute));
    // Retries of its own would not count against the quota, and the line minds the time.
    this.#client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 2 * answerTimeoutMs });
  }

  /** Rejects with an HttpFailure, or with the signal's reason when that has ended the request. */
  async answer(
    asked: Question,
    history: readonly Exchange[],
    signal: AbortSignal,
  ): Promise<string> {
    try {
      const completion = await this.#request(
        () => this.#client.chat.completions.create(this.#ask(asked, history), { signal }),
        signal,
      );
      return completion.choices[0]?.message.content ?? '';
    } catch (error) {
      signal.throwIfAborted();
      throw failure(error);
    }
  }

  /** As `answer`, token by token. Leaving the loop ends the request as the signal does. */
  async *tokens(
    asked: Question,
    history: readonly Exchange[],
    signal: AbortSignal,
  ): AsyncGenerator<string, void, void> {
    try {
      const body = { ...this.#ask(asked, history), stream: true } as const;
      const stream = await this.#request(
        () => this.#client.chat.completions.create(body, { signal }),
        signal,
      );
      let finished = false;
      for await (const { choices } of stream) {
        const [choice] = choices;
        if (choice?.delta.content) yield choice.delta.content;
        finished ||= typeof choice?.finish_reason === 'string';
      }
      // A connection that is closed too soon ends the loop as the end of the answer does.
      if (!finished) throw new Error('The stream of the model ended without a reason.');
    } catch (error) {
      signal.throwIfAborted();
      throw failure(error);
    }
  }

  /** Whoever has come this far has waited for it: a model without room is asked again. */
  async #request<T>(send: () => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let retries = 0; ; retries += 1) {
      try {
        return await this.#quota.run(send, { signal });
      } catch (error) {
        if (!(error instanceof RateLimitError) || retries === MAX_RETRIES) throw error;
        const retryAfterMs = SOON_MS[retries] ?? retryAfterMsOf(error);
        if (retryAfterMs > MAX_RETRY_AFTER_MS) throw error;
        // Whoever else asks meanwhile would be told the same.
        this.#quota.pause(retryAfterMs);
      }
    }
  }

  #ask(
    asked: Question,
    history: readonly Exchange[],
  ): Omit<ChatCompletionCreateParamsBase, 'stream'> {
    const { model, maxTokens } = this.#settings;
    return {
      model,
      max_completion_tokens: Math.min(asked.maxTokens ?? maxTokens, maxTokens),
      messages: [
        { role: 'system', content: TUTOR },
        ...history.slice(-REMEMBERED).flatMap(({ question, answer }) => [
          { role: 'user' as const, content: question },
          { role: 'assistant' as const, content: answer },
        ]),
        { role: 'user', content: asked.question },
      ],
    };
  }
}

/** Never more than `requests` in any window of a minute: what may come at once counts against it. */
function perMinute(requests: number): { limit: number; intervalMs: number; burst: number } {
  const burst = Math.ceil(requests / 10);
  return { limit: requests - burst, intervalMs: 60_000, burst };
}

function retryAfterMsOf({ headers }: RateLimitError): number {
  return parseRetryAfter(headers ?? {}) ?? 1000;
}

/** What a visitor is told when the model fails; what exactly went wrong is the `cause`. */
function failure(cause: unknown): HttpFailure {
  const options = { cause };
  if (cause instanceof RateLimitError) {
    const headers = { 'retry-after': String(Math.ceil(retryAfterMsOf(cause) / 1000)) };
    return new HttpFailure(503, 'ERR_MODEL_BUSY', 'The model has no room.', headers, options);
  }
  if (cause instanceof APIConnectionError) {
    const message = 'The model cannot be reached.';
    return new HttpFailure(502, 'ERR_MODEL_UNREACHABLE', message, {}, options);
  }
  return new HttpFailure(502, 'ERR_MODEL_FAILED', 'The model failed.', {}, options);
}
