import { setTimeout as sleep } from 'node:timers/promises';

import { EventSourceParserStream } from 'eventsource-parser/stream';

const QUESTIONS = [
  'What does a semaphore promise to those who wait?',
  'Why does a queue tell everybody their position?',
  'How long is a permit held?',
  'What is the difference between a limit and a burst?',
  'Who goes first when two priorities meet?',
  'When is a request refused, and what is it told?',
  'How does a server drain before it closes?',
  'What happens to the tokens of a caller who gives up?',
  'Why should a timeout not free the place of a running task?',
  'How can a client know when to try again?',
  'What is a session good for?',
  'Can a stream be read twice?',
];

/** A visitor thinks at least so long between two questions, … */
const LEAST_THINKING_MS = 5000;
/** … and on average so much longer, … */
const MORE_THINKING_MS = 10_000;
/** … waits in line for so long at most, on average, … */
const PATIENCE_MS = 60_000;
/** … and one in so many closes the tab in the middle of an answer. */
const FICKLE = 12;

export interface Visitors {
  /** Those who wait leave, those who read an answer finish it, and nobody asks anything more. */
  leave(): void;
}

/** Starts `count` visitors who ask the chat at `url`, again and again, as people do. */
export function startVisitors(url: string, count: number): Visitors {
  const leaving = new AbortController();
  for (let i = 0; i < count; i += 1) void visit(url, leaving.signal);
  return { leave: () => leaving.abort() };
}

async function visit(url: string, leaving: AbortSignal): Promise<void> {
  try {
    // They do not all come at once.
    await sleep(Math.random() * (LEAST_THINKING_MS + MORE_THINKING_MS), undefined, {
      signal: leaving,
    });
    while (!leaving.aborted) {
      const retryAfterMs = await ask(url, leaving);
      const thinkingMs = LEAST_THINKING_MS + exponential(MORE_THINKING_MS);
      await sleep(Math.max(retryAfterMs, thinkingMs), undefined, { signal: leaving });
    }
  } catch (error) {
    if (!leaving.aborted) throw error;
  }
}

/** Asks and reads the answer; resolves to how long the server wants to be left alone. */
async function ask(url: string, leaving: AbortSignal): Promise<number> {
  const tab = new AbortController();
  const close = (): void => tab.abort();
  const patience = setTimeout(close, exponential(PATIENCE_MS));
  const settleDown = (): void => {
    clearTimeout(patience);
    leaving.removeEventListener('abort', close);
  };
  leaving.addEventListener('abort', close);
  try {
    const response = await fetch(`${url}/api/chat/stream`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ question: QUESTIONS[Math.floor(Math.random() * QUESTIONS.length)] }),
      signal: tab.signal,
    });
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      return Number(response.headers.get('retry-after')) * 1000;
    }
    const leavesAt = Math.random() * FICKLE < 1 ? '"index":20,' : undefined;
    const events = response.body
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new EventSourceParserStream());
    for await (const { event, data } of events) {
      if (event === 'start') settleDown();
      if (leavesAt !== undefined && data.includes(leavesAt)) break;
    }
  } catch (error) {
    if (!tab.signal.aborted) throw error;
  } finally {
    settleDown();
    close();
  }
  return 0;
}

/** Of this mean; what times between independent happenings look like. */
function exponential(meanMs: number): number {
  return -Math.log(1 - Math.random()) * meanMs;
}
