import { setTimeout as sleep } from 'node:timers/promises';

import { ReadError, readEvents } from 'sluice/read-events';

/** What a class has seen; times are in ms. */
export interface ClassReport {
  readonly students: number;
  /** Who has a whole answer: every token of it, in order, and an end that counts as many. */
  readonly answered: number;
  /** Who has none, and why. */
  readonly lost: readonly string[];
  /** How often somebody was refused and came again. */
  readonly refusals: number;
  /** From the question that was let in to its turn. */
  readonly waitsMs: readonly number[];
  readonly elapsedMs: number;
}

/** `students` who all ask at the same time; who is refused comes again when they are told to. */
export async function askTogether(url: string, students: number): Promise<ClassReport> {
  const start = performance.now();
  const waitsMs: number[] = [];
  const lost: string[] = [];
  let refusals = 0;
  const attend = async (number: number): Promise<void> => {
    for (;;) {
      try {
        waitsMs.push(await ask(url, `What is question ${number} about?`));
        return;
      } catch (error) {
        const retryAfterMs = retryAfterOf(error);
        if (retryAfterMs === undefined) return void lost.push(String(error));
        refusals += 1;
        await sleep(retryAfterMs);
      }
    }
  };
  await Promise.all(Array.from({ length: students }, (_, number) => attend(number)));
  const elapsedMs = performance.now() - start;
  return { students, answered: waitsMs.length, lost, refusals, waitsMs, elapsedMs };
}

/**
 * Asks and reads the answer to its end; resolves to the time in line. Rejects unless all of it has
 * come: what is cut off is an error of `readEvents`.
 */
async function ask(url: string, question: string): Promise<number> {
  const askedAt = performance.now();
  const response = await fetch(`${url}/api/chat/stream`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ question }),
  });
  let place = Infinity;
  let startedAt = askedAt;
  let tokens = 0;
  for await (const event of readEvents(response)) {
    if (event.type === 'position') {
      // All ask with the same priority, so that nobody can be overtaken.
      if (event.position >= place) throw new Error(`From place ${place} to ${event.position}.`);
      place = event.position;
    } else if (event.type === 'start') {
      startedAt = performance.now();
    } else if (event.type === 'token') {
      if (event.index !== tokens) throw new Error(`Token ${event.index} came as number ${tokens}.`);
      tokens += 1;
    } else if (event.tokens !== tokens) {
      throw new Error(`${tokens} of ${event.tokens} tokens came.`);
    }
  }
  if (tokens === 0) throw new Error('The answer is empty.');
  return startedAt - askedAt;
}

/** When to come again; undefined for what is no refusal for want of room. */
function retryAfterOf(error: unknown): number | undefined {
  return error instanceof ReadError && error.code === 'ERR_QUEUE_FULL'
    ? error.retryAfterMs
    : undefined;
}
