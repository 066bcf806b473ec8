import type OpenAI from 'openai';
import { APIError, RateLimitError } from 'openai';
import type { ChatCompletionChunk } from 'openai/resources/chat/completions';
import type { CompletionUsage } from 'openai/resources/completions';
import { parseRetryAfter } from 'sluice/http';

import { Failure } from './failure.ts';
import type { ChatRequest } from './request.ts';
import { MODELS } from './settings.ts';

export type FinishReason = ChatCompletionChunk.Choice['finish_reason'];

/** An answer that has begun to arrive. */
export class Upstream {
  readonly #chunks: AsyncIterator<string>;
  readonly #first: IteratorResult<string>;
  readonly #end: AnswerEnd;

  private constructor(
    chunks: AsyncIterator<string>,
    first: IteratorResult<string>,
    end: AnswerEnd,
  ) {
    this.#chunks = chunks;
    this.#first = first;
    this.#end = end;
  }

  /**
   * Asks a provider and waits for its first token: only then has it let the request in. Rejects with
   * a Failure, or with the signal's reason when that has ended the request.
   */
  static async open(
    client: OpenAI,
    { model, params }: ChatRequest,
    signal: AbortSignal,
  ): Promise<Upstream> {
    const end: AnswerEnd = { finishReason: null, usage: undefined };
    const body = {
      ...params,
      model: MODELS.get(model)!.upstream,
      stream: true,
      stream_options: { include_usage: true },
    } as const;
    const chunks = read(client, body, end, signal);
    return new Upstream(chunks, await chunks.next(), end);
  }

  /** Once. Throws as `open` rejects; an answer that breaks off does not look like one that ended. */
  async *tokens(): AsyncGenerator<string, void, void> {
    let { done, value } = this.#first;
    try {
      while (done !== true) {
        yield value as string;
        ({ done, value } = await this.#chunks.next());
      }
    } finally {
      await this.#chunks.return?.();
    }
  }

  /** These two when the last token is there. */
  get finishReason(): FinishReason {
    return this.#end.finishReason;
  }

  get usage(): CompletionUsage | undefined {
    return this.#end.usage;
  }
}

/** What comes after the last token. */
interface AnswerEnd {
  finishReason: FinishReason;
  usage: CompletionUsage | undefined;
}

async function* read(
  client: OpenAI,
  body: Parameters<OpenAI['chat']['completions']['create']>[0] & { readonly stream: true },
  end: AnswerEnd,
  signal: AbortSignal,
): AsyncGenerator<string, void, void> {
  try {
    const stream = await client.chat.completions.create(body, { signal });
    for await (const { choices, usage } of stream) {
      const [choice] = choices;
      if (choice?.delta.content) yield choice.delta.content;
      end.finishReason = choice?.finish_reason ?? end.finishReason;
      end.usage = usage ?? end.usage;
    }
    // An abort, and a connection that is closed too soon, end the loop as the end of the answer does.
    if (end.finishReason === null) throw new Error('The answer ended without a reason.');
  } catch (error) {
    signal.throwIfAborted();
    throw failureOf(error);
  }
}

function failureOf(cause: unknown): Failure {
  if (cause instanceof RateLimitError) {
    const retryAfterMs = parseRetryAfter(cause.headers ?? {}) ?? 1000;
    const message = 'The provider has no room.';
    return new Failure(503, 'ERR_PROVIDER_BUSY', message, { retryAfterMs, cause });
  }
  const status = cause instanceof APIError ? (cause.status as number | undefined) : undefined;
  if (status === 400 || status === 413 || status === 422) {
    return new Failure(status, 'ERR_BAD_REQUEST', (cause as APIError).message, { cause });
  }
  const message = 'The provider failed.';
  return new Failure(502, 'ERR_PROVIDER_FAILED', message, { fault: true, cause });
}
