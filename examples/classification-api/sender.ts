/** The thread that sends: of its own, so that what it takes is not taken from the server. */
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';

import type { Load, Outcome } from './overload.ts';

const ROUTES: readonly [path: string, body: object][] = [
  ['/classify', { text: 'Who gets a permit, and in which order, when weights differ?' }],
  ['/moderate', { text: 'How many tokens may be saved up?' }],
  ['/explain', { text: 'What happens to a stream whose client is gone?' }],
  ['/classify/batch', { texts: ['Which phase is next?', 'When is a ticket shed?'] }],
];

const TICK_MS = 10;

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- A worker has none.
parentPort?.postMessage(await sendAll(workerData as Load));

/** Each as often as the load says, whatever becomes of those before it; resolves to all answers. */
async function sendAll({ url, perSecond, seconds, keys }: Load): Promise<Outcome[]> {
  const answers: Promise<Outcome>[] = [];
  const startedAt = performance.now();
  const total = perSecond * seconds;
  while (answers.length < total) {
    const due = Math.floor(((performance.now() - startedAt) * perSecond) / 1000);
    while (answers.length < Math.min(due, total)) {
      const [path, body] = ROUTES[answers.length % ROUTES.length]!;
      answers.push(send(url + path, body, keys[answers.length % keys.length]!));
    }
    await sleep(TICK_MS);
  }
  return Promise.all(answers);
}

async function send(url: string, body: object, key: string): Promise<Outcome> {
  const startedAt = performance.now();
  const status = await post(url, body, key);
  return { status, ms: performance.now() - startedAt };
}

async function post(url: string, body: object, key: string): Promise<number | 'lost'> {
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify(body),
    });
    await response.arrayBuffer();
    return response.status;
  } catch {
    return 'lost';
  }
}
