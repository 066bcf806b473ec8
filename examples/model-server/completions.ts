import { randomUUID } from 'node:crypto';

import type { ChatCompletion, ChatCompletionChunk } from 'openai/resources/chat/completions';
import type { CompletionUsage } from 'openai/resources/completions';

import type { Job } from './engine.ts';
import type { QuotaCount } from './quota.ts';
import { MODEL } from './request.ts';

interface Identity {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

/** What all parts of one answer have in common. */
export function identify(fingerprint: string): Identity {
  return {
    id: `chatcmpl-${randomUUID().replaceAll('-', '')}`,
    created: Math.floor(Date.now() / 1000),
    model: MODEL,
    system_fingerprint: fingerprint,
  };
}

/** The whole answer at once. */
export function completion(identity: Identity, job: Job): ChatCompletion {
  return {
    ...identity,
    object: 'chat.completion',
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: job.tokens.join(''), refusal: null },
        logprobs: null,
        finish_reason: job.finishReason,
      },
    ],
    usage: usage(job),
  };
}

/**
 * A streamed answer as server-sent events: the role, one chunk a token, the reason for the end,
 * the usage if it is asked for, `[DONE]`. Throws as soon as `signal` aborts.
 */
export async function* completionEvents(
  identity: Identity,
  job: Job,
  includeUsage: boolean,
  signal: AbortSignal,
): AsyncGenerator<string, void, void> {
  // Where usage is asked for, every other chunk says that it has none.
  const common = {
    ...identity,
    object: 'chat.completion.chunk' as const,
    ...(includeUsage ? { usage: null } : {}),
  };
  const chunk = (
    delta: ChatCompletionChunk.Choice.Delta,
    finish: ChatCompletionChunk.Choice['finish_reason'] = null,
  ): string => {
    const choice = { index: 0, delta, logprobs: null, finish_reason: finish };
    return event({ ...common, choices: [choice] });
  };
  yield chunk({ role: 'assistant', content: '' });
  for await (const token of job.decode(signal)) yield chunk({ content: token });
  yield chunk({}, job.finishReason);
  if (includeUsage) yield event({ ...common, choices: [], usage: usage(job) });
  yield 'data: [DONE]\n\n';
}

/** The rate-limit headers of this protocol, where resets are durations. */
export function quotaHeaders(counts: readonly QuotaCount[]): Record<string, string> {
  return Object.fromEntries(
    counts.flatMap(({ name, limit, remaining, resetMs }) => [
      [`x-ratelimit-limit-${name}`, String(limit)],
      [`x-ratelimit-remaining-${name}`, String(remaining)],
      [`x-ratelimit-reset-${name}`, durationOf(resetMs)],
    ]),
  );
}

/** `6m0s`, `1.25s`, `12ms`. */
function durationOf(ms: number): string {
  const whole = Math.ceil(ms);
  if (whole < 1000) return `${whole}ms`;
  const minutes = Math.floor(whole / 60_000);
  return `${minutes === 0 ? '' : `${minutes}m`}${(whole % 60_000) / 1000}s`;
}

function event(data: ChatCompletionChunk): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}

function usage(job: Job): CompletionUsage {
  return {
    prompt_tokens: job.promptTokens,
    completion_tokens: job.tokens.length,
    total_tokens: job.promptTokens + job.tokens.length,
  };
}
