import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import compression from 'compression';
import { describe, expect, it } from 'vitest';

import { pipeToResponse } from '../../src/http/index.ts';
import { readEvents } from '../../src/http/read-events.ts';
import { Semaphore } from '../../src/semaphore.ts';
import { type StreamReport, TokenStreamer } from '../../src/token-streamer.ts';
import { rawGet, readAll, serve, type Served, until } from '../support/serve.ts';

/** Its types are for Express. */
const compress = compression() as unknown as (
  request: IncomingMessage,
  response: ServerResponse,
  next: () => void,
) => void;

const GZIP = { headers: { 'accept-encoding': 'gzip' } };

/** A server behind compressing middleware, whose streams do not ask to be left alone. */
async function compressed(
  source: () => Iterable<string> | AsyncIterable<string>,
): Promise<Served & { gate: Semaphore; reports: StreamReport[]; responses: ServerResponse[] }> {
  const gate = new Semaphore(1);
  const streamer = new TokenStreamer();
  const reports: StreamReport[] = [];
  const responses: ServerResponse[] = [];
  const served = await serve((request, response) => {
    responses.push(response);
    compress(request, response, () => {
      const headers = { 'cache-control': 'no-cache' };
      const stream = streamer.stream(source, { gate });
      void pipeToResponse(stream, response, { headers }).then((report) => reports.push(report));
    });
  });
  return { ...served, gate, reports, responses };
}

/** Tokens of 1 kB that cannot be made much smaller. */
function* noise(count: number): Generator<string> {
  for (let i = 0; i < count; i++) yield randomBytes(768).toString('base64');
}

describe('pipeToResponse() behind compressing middleware that it cannot keep off', () => {
  it('flushes, so that each token is there before the next is made (T-28)', async () => {
    const next = [0, 1, 2].map(() => Promise.withResolvers<string>());
    await using served = await compressed(async function* () {
      for (const { promise } of next) yield await promise;
    });
    const response = await fetch(served.url, GZIP);
    expect(response.headers.get('content-encoding')).toBe('gzip');
    const events = readEvents(response);
    expect((await events.next()).value).toEqual({ type: 'start' });
    for (const [index, { resolve }] of next.entries()) {
      resolve(`token ${index}`);
      expect((await events.next()).value).toMatchObject({ value: `token ${index}` });
    }
    expect((await events.next()).value).toMatchObject({ type: 'done', tokens: 3 });
  });

  it('waits for it hundreds of times, and leaves no listener for each (T-39, H319)', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on('warning', onWarning);
    await using served = await compressed(() => noise(5000));
    const socket = rawGet(served.port, 'Accept-Encoding: gzip\r\nConnection: close\r\n');
    // Slow to begin with, so that all that is between them is full.
    await until(() => served.gate.active === 1);
    for (let i = 0; i < 20; i++) await new Promise((resolve) => void setImmediate(resolve));
    expect(await readAll(socket)).toMatch(/^content-encoding: gzip\r\n/im);
    await until(() => served.reports.length === 1);
    expect(served.reports[0]).toMatchObject({ outcome: 'completed', tokens: 5000 });
    process.off('warning', onWarning);
    expect(warnings.map(({ message }) => message)).toEqual([]);
  });

  it('stops waiting for it when the client is gone (T-12, H319)', async () => {
    await using served = await compressed(() => noise(Infinity));
    const socket = rawGet(served.port, 'Accept-Encoding: gzip\r\n');
    socket.pause();
    await until(() => served.responses[0]?.writableNeedDrain === true);
    socket.resetAndDestroy();
    await until(() => served.reports.length === 1);
    expect(served.reports[0]).toMatchObject({ outcome: 'disconnected' });
    expect(served.gate.active).toBe(0);
  });
});
