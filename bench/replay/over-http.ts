import { setTimeout as sleep } from 'node:timers/promises';

import { readEvents } from 'sluice/read-events';

import { MAX_QUESTION_BYTES } from '../../examples/tutoring-chat/questions.ts';
import type { Call } from '../trace.ts';
import { follow, type Outcome } from './outcome.ts';
import type { Run } from './report.ts';

/**
 * Sends each call to the chat at `target` when it is due, whatever became of those before it: an open
 * loop, as the people in the trace did not know of each other. `modelUrl` is that of the model server
 * behind the chat, which tells how many calls it had at once.
 */
export async function replayOverHttp(
  calls: readonly Call[],
  speed: number,
  target: string,
  modelUrl: string | undefined,
): Promise<Run> {
  const { concurrency } = await getJson<{ concurrency: number }>(target, '/api/queue/stats');
  const url = new URL('/api/chat/stream', target);
  const start = performance.now();
  const now = (): number => performance.now() - start;
  const sent: Promise<Outcome>[] = [];
  for (const call of calls) {
    const leftMs = call.atMs / speed - now();
    if (leftMs > 0) await sleep(leftMs);
    sent.push(follow(async () => readEvents(await ask(url, call)), now));
  }
  const outcomes = await Promise.all(sent);
  const model =
    modelUrl === undefined
      ? undefined
      : await getJson<{ peak: number; rejected: number }>(modelUrl, '/health');
  return { outcomes, concurrency, peak: model?.peak, rejected: model?.rejected };
}

/** A single mark is a token for the model server. */
function ask(url: URL, { contextTokens, generatedTokens }: Call): Promise<Response> {
  const question = '?'.repeat(Math.min(Math.max(contextTokens, 1), MAX_QUESTION_BYTES));
  return fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ question, maxTokens: Math.max(generatedTokens, 1) }),
  });
}

async function getJson<T>(base: string, path: string): Promise<T> {
  const response = await fetch(new URL(path, base));
  if (!response.ok) throw new Error(`${base}${path} answered with ${response.status}.`);
  return (await response.json()) as T;
}
