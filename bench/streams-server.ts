// The servers that bench/streams.ts measures, one process each: node bench/streams-server.ts SUBJECT
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as turn } from 'node:timers/promises';

import { getRequestListener } from '@hono/node-server';
import { createSession } from 'better-sse';
import { Hono } from 'hono';
import { streamSSE } from 'hono/streaming';
import { AdmissionQueue, TokenStreamer } from 'sluice';
import { pipeToResponse } from 'sluice/http';

const TOKENS = 500;

type Pace = 'fast' | 'turns';
type Handler = (request: IncomingMessage, response: ServerResponse, pace: Pace) => unknown;

/** An answer of 500 tokens: all that can be had, or one in each turn of the event loop. */
async function* answer(pace: Pace): AsyncGenerator<string> {
  for (let i = 0; i < TOKENS; i++) {
    if (pace === 'turns') await turn();
    yield ` token ${i}`;
  }
}

const queue = new AdmissionQueue({ concurrency: 100, maxWaiting: Infinity });
/** Nobody gets through this one: whoever comes waits and hears of its place. */
const stuck = new AdmissionQueue({ concurrency: 1, maxWaiting: Infinity, history: 0 });
const streamer = new TokenStreamer();
const waiting = new TokenStreamer({ heartbeatMs: Infinity });

const hono = new Hono();
hono.get('/:pace', (context) =>
  streamSSE(context, async (stream) => {
    let index = 0;
    for await (const value of answer(context.req.param('pace') as Pace)) {
      await stream.writeSSE({ event: 'token', data: JSON.stringify({ index: index++, value }) });
    }
  }),
);
const honoListener = getRequestListener(hono.fetch);

const subjects: Record<string, Handler> = {
  sluice: (_, response, pace) =>
    pipeToResponse(
      streamer.stream(() => answer(pace), { gate: queue }),
      response,
    ),
  bare: async (_, response, pace) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    let index = 0;
    for await (const value of answer(pace)) {
      response.write(`event: token\ndata: ${JSON.stringify({ index: index++, value })}\n\n`);
    }
    response.end();
  },
  'better-sse': async (request, response, pace) => {
    const session = await createSession(request, response);
    let index = 0;
    for await (const value of answer(pace)) session.push({ index: index++, value }, 'token');
    response.end();
  },
  hono: (request, response) => void honoListener(request, response),
  'waiting sluice': (_, response) =>
    pipeToResponse(
      waiting.stream(() => answer('turns'), { gate: stuck }),
      response,
    ),
  'waiting bare': (_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    response.write('event: position\ndata: {"position":1}\n\n');
  },
};

const name = process.argv[2]!;
const handler = subjects[name]!;
if (name === 'waiting sluice') void stuck.run(() => new Promise(() => undefined));

const server = createServer((request, response) => {
  const path = request.url!.slice(1);
  if (path === 'memory') {
    globalThis.gc?.();
    const { heapUsed, external, rss } = process.memoryUsage();
    response.end(JSON.stringify({ heapUsed, external, rss }));
  } else if (path === 'moves') {
    void moves().then((figures) => response.end(JSON.stringify(figures)));
  } else {
    void handler(request, response, path as Pace);
  }
});
// A connection of a subject is idle while the others have their rounds.
server.keepAliveTimeout = 300_000;
server.listen(0, '127.0.0.1', () => process.send!((server.address() as AddressInfo).port));
process.on('disconnect', () => process.exit());

const ms = (ns: number): number => ns / 1e6;

/** Each second, for five, the first in line leaves, so that everybody moves up and is told. */
async function moves(): Promise<{ p50: number; p99: number; max: number; waiting: number }> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  for (let i = 0; i < 5; i++) {
    stuck.get([...stuck.tickets()][1]!.id)!.cancel();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  delay.disable();
  return {
    p50: ms(delay.percentile(50)),
    p99: ms(delay.percentile(99)),
    max: ms(delay.max),
    waiting: stuck.waiting,
  };
}
