import { randomUUID } from 'node:crypto';

import type {
  Message,
  RawMessageStreamEvent,
  StopReason,
  TextBlock,
  Usage,
} from '@anthropic-ai/sdk/resources/messages';

import type { ApiError } from './api-error.ts';
import type { Job } from './engine.ts';
import type { QuotaCount } from './quota.ts';
import { MODEL } from './request.ts';

/** The whole answer at once. */
export function message(job: Job): Message {
  return {
    ...opening(job),
    content: [textBlock(job.tokens.join(''))],
    stop_reason: stopReason(job),
    usage: usage(job, job.tokens.length),
  };
}

/**
 * A streamed answer as server-sent events: the message without its content, one text block with one
 * delta a token, the reason for the end and the usage, `message_stop`. Throws as soon as `signal`
 * aborts.
 */
export async function* messageEvents(
  job: Job,
  signal: AbortSignal,
): AsyncGenerator<string, void, void> {
  yield event({ type: 'message_start', message: opening(job) });
  yield event({ type: 'content_block_start', index: 0, content_block: textBlock('') });
  for await (const text of job.decode(signal)) {
    yield event({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } });
  }
  yield event({ type: 'content_block_stop', index: 0 });
  yield event({
    type: 'message_delta',
    delta: {
      stop_reason: stopReason(job),
      stop_sequence: null,
      stop_details: null,
      container: null,
    },
    usage: usage(job, job.tokens.length),
  });
  yield event({ type: 'message_stop' });
}

/** A refusal in the words of this protocol. */
export function messageError({ status, message: text }: ApiError): object {
  return { type: 'error', error: { type: ERROR_TYPES.get(status) ?? 'api_error', message: text } };
}

const ERROR_TYPES: ReadonlyMap<number, string> = new Map([
  [400, 'invalid_request_error'],
  [401, 'authentication_error'],
  [404, 'not_found_error'],
  [405, 'invalid_request_error'],
  [413, 'request_too_large'],
  [429, 'rate_limit_error'],
]);

/** The rate-limit headers of this protocol, where resets are times. */
export function messageQuotaHeaders(counts: readonly QuotaCount[]): Record<string, string> {
  return Object.fromEntries(
    counts.flatMap(({ name, limit, remaining, resetMs }) => {
      const prefix = `anthropic-ratelimit-${name}`;
      // In whole seconds, as theirs are; later rather than too early.
      const resetAt = new Date(Math.ceil((Date.now() + resetMs) / 1000) * 1000);
      return [
        [`${prefix}-limit`, String(limit)],
        [`${prefix}-remaining`, String(remaining)],
        [`${prefix}-reset`, resetAt.toISOString().replace('.000Z', 'Z')],
      ];
    }),
  );
}

function opening(job: Job): Message {
  return {
    id: `msg_${randomUUID().replaceAll('-', '')}`,
    type: 'message',
    role: 'assistant',
    model: MODEL,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    stop_details: null,
    container: null,
    diagnostics: null,
    usage: usage(job, 0),
  };
}

function textBlock(text: string): TextBlock {
  return { type: 'text', text, citations: null };
}

function stopReason(job: Job): StopReason {
  return job.finishReason === 'length' ? 'max_tokens' : 'end_turn';
}

function usage(job: Job, outputTokens: number): Usage {
  return {
    input_tokens: job.promptTokens,
    output_tokens: outputTokens,
    output_tokens_details: null,
    cache_creation: null,
    cache_creation_input_tokens: null,
    cache_read_input_tokens: null,
    inference_geo: null,
    server_tool_use: null,
    service_tier: null,
    speed: null,
  };
}

function event(data: RawMessageStreamEvent): string {
  return `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`;
}
