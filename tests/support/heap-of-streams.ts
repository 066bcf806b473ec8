/**
 * Run with --expose-gc: what forty thousand streams under one signal that outlives them all, such as
 * that of a server, leave behind. Prints a line of JSON, for tests/token-streamer.heap.test.ts.
 */
import { getEventListeners } from 'node:events';

import { compose, Semaphore, SessionManager, TokenStreamer } from '../../src/index.ts';
import { encodeEvents, toResponse } from '../../src/http/index.ts';

const STREAMS = 40_000;
/** How many there are at once. */
const BATCH = 100;

const shutdown = new AbortController();
const { signal } = shutdown;
const streamer = new TokenStreamer();
const semaphore = new Semaphore(BATCH);
const sessions = new SessionManager({ history: 0 });
const gates = [undefined, semaphore, compose(sessions, semaphore)];
const kept: WeakRef<object>[] = [];
let mostListeners = 0;

async function* source(): AsyncGenerator<string> {
  yield 'a';
  yield 'b';
}

/** One stream, read in one of the ways in which they are, to its end or left before. */
async function play(i: number): Promise<void> {
  const gate = gates[i % gates.length];
  const stream = gate
    ? streamer.stream(source, { gate, signal })
    : streamer.stream(source, { signal });
  if (i % 1000 === 0) kept.push(new WeakRef(stream));
  switch (i % 5) {
    case 0: {
      for await (const event of stream) if (event.type === 'token') break;
      break;
    }
    case 1: {
      await Array.fromAsync(encodeEvents(stream));
      break;
    }
    case 2: {
      await (await toResponse(stream)).body!.cancel();
      break;
    }
    case 3: {
      // Never read.
      stream.cancel();
      break;
    }
    default: {
      const [one, other] = stream.tee(2);
      await Promise.all([Array.fromAsync(one!), Array.fromAsync(other!)]);
    }
  }
  await stream.finished;
}

async function playAll(count: number): Promise<void> {
  for (let i = 0; i < count; i += BATCH) {
    const batch = Array.from({ length: BATCH }, (_, j) => play(i + j));
    mostListeners = Math.max(mostListeners, getEventListeners(signal, 'abort').length);
    await Promise.all(batch);
  }
}

/** What is used when everything is gone that can go, compiled code included. */
async function heapUsed(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => void setImmediate(resolve));
    globalThis.gc!({ type: 'major', flavor: 'last-resort', execution: 'sync' });
  }
  return process.memoryUsage().heapUsed;
}

await playAll(STREAMS / 10);
const before = await heapUsed();
await playAll(STREAMS);
const growthBytes = (await heapUsed()) - before;
process.stdout.write(
  JSON.stringify({
    growthBytes,
    mostListeners,
    listeners: getEventListeners(signal, 'abort').length,
    resources: process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap'),
    retained: kept.filter((stream) => stream.deref() !== undefined).length,
    streams: streamer.stats().active,
    permits: semaphore.active,
    sessions: sessions.active,
    aborted: signal.aborted,
  }),
);
