import type { ChatCompletionCreateParamsBase } from 'openai/resources/chat/completions';

import { Failure } from './failure.ts';
import { MODELS } from './settings.ts';

/** What of a request goes on to the providers. */
type Params = Omit<ChatCompletionCreateParamsBase, 'model' | 'stream' | 'metadata'>;

export interface ChatRequest {
  /** One of the gateway's. */
  readonly model: string;
  readonly stream: boolean;
  readonly params: Params;
  /** Of the client, to be kept with the session. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** Everything else is accepted and has no effect. */
const PASSED_ON = ['messages', 'temperature', 'top_p', 'seed', 'stop', 'n'];

/** The request in a body; throws a Failure (400, 404) that says what is wrong. */
export function parseRequest(body: unknown): ChatRequest {
  if (!isRecord(body)) throw bad('Expected the body to be a JSON object.');
  const { model, messages, stream = false, metadata = {} } = body;
  if (typeof model !== 'string') throw bad('Expected `model` to be a string.');
  const known = MODELS.get(model);
  if (known === undefined) {
    const message = `There is no model ${JSON.stringify(model.slice(0, 64))}.`;
    throw new Failure(404, 'model_not_found', message);
  }
  if (!Array.isArray(messages)) throw bad('Expected `messages` to be an array.');
  if (typeof stream !== 'boolean') throw bad('Expected `stream` to be true or false.');
  if (!isRecord(metadata) || Object.values(metadata).some((value) => typeof value !== 'string')) {
    throw bad('Expected `metadata` to be an object of strings.');
  }
  const passedOn = PASSED_ON.filter((name) => name in body).map((name) => [name, body[name]]);
  return {
    model,
    stream,
    params: {
      ...(Object.fromEntries(passedOn) as Params),
      max_completion_tokens: maxTokensOf(body, known.maxTokens),
    },
    metadata: metadata as Record<string, string>,
  };
}

function maxTokensOf(body: Readonly<Record<string, unknown>>, most: number): number {
  const asked = body['max_completion_tokens'] ?? body['max_tokens'] ?? most;
  if (!Number.isSafeInteger(asked) || (asked as number) < 1) {
    throw bad('Expected `max_completion_tokens` to be a positive integer.');
  }
  return Math.min(asked as number, most);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function bad(message: string): Failure {
  return new Failure(400, 'ERR_BAD_REQUEST', message);
}
