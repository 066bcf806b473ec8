import { ApiError } from './api-error.ts';

/** The one model there is. */
export const MODEL = 'trigram';

/** Asked for or not, no answer is longer. */
const MAX_TOKENS = 1024;

const ROLES = ['developer', 'system', 'user', 'assistant', 'tool', 'function'];

/** What this server uses of a request, of either protocol, checked and with defaults. */
export interface ChatRequest {
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Everything said so far: what has to be read, and part of the seed. */
  readonly conversation: string;
  /** The last thing a user said: what the answer is about. */
  readonly question: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly seed: number | undefined;
  readonly stop: readonly string[];
}

type Json = Readonly<Record<string, unknown>>;

/** Throws an ApiError (400, or 404 for another model) that names the parameter. */
export function parseChatRequest(body: unknown): ChatRequest {
  if (!isObject(body)) throw new ApiError(400, 'Expected the body to be a JSON object.');
  checkModel(body);
  const messages = messagesOf(body['messages'], ROLES);
  const maxTokens =
    numberOf(body, 'max_completion_tokens', 1, Infinity, true) ??
    numberOf(body, 'max_tokens', 1, Infinity, true) ??
    MAX_TOKENS;
  // One is all that this model gives: refused rather than silently cut down.
  numberOf(body, 'n', 1, 1, true);
  const streamOptions = body['stream_options'] ?? {};
  if (!isObject(streamOptions)) throw invalid('stream_options', 'an object');
  return {
    stream: flagOf(body, 'stream'),
    includeUsage: flagOf(streamOptions, 'include_usage'),
    ...spoken(messages),
    maxTokens: Math.min(maxTokens, MAX_TOKENS),
    temperature: numberOf(body, 'temperature', 0, 2, false) ?? 1,
    seed: numberOf(body, 'seed', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, true),
    stop: stopOf(body['stop']),
  };
}

/** The same of a request to the Messages API. It has no seed. */
export function parseMessagesRequest(body: unknown): ChatRequest {
  if (!isObject(body)) throw new ApiError(400, 'Expected the body to be a JSON object.');
  checkModel(body);
  const system = body['system'] ?? undefined;
  const messages = messagesOf(body['messages'], ['user', 'assistant']);
  if (system !== undefined) messages.unshift({ role: 'system', text: textOf('system', system) });
  const maxTokens = numberOf(body, 'max_tokens', 1, Infinity, true);
  if (maxTokens === undefined) throw invalid('max_tokens', 'an integer of at least 1');
  const stops = body['stop_sequences'] ?? [];
  // Its answers say which one it was, which this model does not know.
  if (!Array.isArray(stops) || stops.length > 0) throw invalid('stop_sequences', 'empty');
  return {
    stream: flagOf(body, 'stream'),
    includeUsage: true,
    ...spoken(messages),
    maxTokens: Math.min(maxTokens, MAX_TOKENS),
    temperature: numberOf(body, 'temperature', 0, 1, false) ?? 1,
    seed: undefined,
    stop: [],
  };
}

interface SpokenMessage {
  readonly role: string;
  readonly text: string;
}

function checkModel(body: Json): void {
  const model = body['model'];
  if (typeof model !== 'string') throw invalid('model', 'a string');
  if (model !== MODEL) {
    throw new ApiError(404, `The model ${show(model)} does not exist; there is "${MODEL}".`, {
      code: 'model_not_found',
      param: 'model',
    });
  }
}

function spoken(
  messages: readonly SpokenMessage[],
): Pick<ChatRequest, 'conversation' | 'question'> {
  return {
    conversation: messages.map(({ role, text }) => `${role}: ${text}`).join('\n'),
    question: messages.findLast(({ role }) => role === 'user')?.text ?? '',
  };
}

function messagesOf(value: unknown, roles: readonly string[]): SpokenMessage[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw invalid('messages', 'a non-empty array of messages');
  }
  return value.map((message: unknown, index) => {
    const path = `messages[${index}]`;
    if (!isObject(message)) throw invalid(path, 'an object');
    const role = message['role'];
    if (typeof role !== 'string' || !roles.includes(role)) {
      throw invalid(`${path}.role`, `one of ${roles.join(', ')}`);
    }
    // An assistant that called a tool said nothing.
    if (role === 'assistant' && (message['content'] ?? null) === null) return { role, text: '' };
    return { role, text: textOf(`${path}.content`, message['content']) };
  });
}

function textOf(path: string, content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) throw invalid(path, 'a string or an array of parts');
  return content
    .map((part: unknown, index) => {
      if (isObject(part) && part['type'] === 'text' && typeof part['text'] === 'string') {
        return part['text'];
      }
      throw invalid(`${path}[${index}]`, 'a part of type "text"');
    })
    .join('\n');
}

function stopOf(value: unknown): string[] {
  if (value === undefined || value === null) return [];
  const stops: unknown[] = Array.isArray(value) ? value : [value];
  if (stops.length <= 4 && stops.every((stop) => typeof stop === 'string' && stop !== '')) {
    return stops as string[];
  }
  throw invalid('stop', 'a non-empty string or an array of up to 4 of them');
}

function numberOf(
  body: Json,
  name: string,
  min: number,
  max: number,
  integer: boolean,
): number | undefined {
  const value = body[name] ?? undefined;
  if (value === undefined) return undefined;
  const fits = integer ? Number.isSafeInteger(value) : Number.isFinite(value);
  if (fits && (value as number) >= min && (value as number) <= max) return value as number;
  const kind = integer ? 'an integer' : 'a number';
  const range = max === Infinity ? `of at least ${min}` : `from ${min} to ${max}`;
  throw invalid(name, `${kind} ${range}`, value);
}

function flagOf(body: Json, name: string): boolean {
  const value = body[name] ?? false;
  if (typeof value !== 'boolean') throw invalid(name, 'a boolean', value);
  return value;
}

function invalid(param: string, expected: string, value?: unknown): ApiError {
  const got = value === undefined ? '' : `, got ${show(value)}`;
  return new ApiError(400, `Expected ${param} to be ${expected}${got}.`, { param });
}

/** A JSON value, cut: a message is no place for a megabyte. */
function show(value: unknown): string {
  return JSON.stringify(value).slice(0, 66);
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
