import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

import { describe, expect, it } from 'vitest';

import { AdmissionQueue } from '../../src/admission-queue.ts';
import { compose, type TaskContext } from '../../src/gate.ts';
import { gateFetch, pipeToResponse } from '../../src/http/index.ts';
import { RateLimiter } from '../../src/rate-limiter.ts';
import { Semaphore } from '../../src/semaphore.ts';
import { TokenStreamer } from '../../src/token-streamer.ts';
import { rawGet, serve, until } from '../support/serve.ts';
import { catchUncaught } from '../support/uncaught.ts';

const CLIENTS = 500;

/** At which moment a client leaves, and how. Some stay to the end, so that others get their turn. */
const MOMENTS = ['connected', 'waiting', 'started', 'token', 'stalled', 'never'] as const;
const WAYS = ['close', 'reset', 'half-close'] as const;

function leave(socket: Socket, how: (typeof WAYS)[number]): void {
  if (how === 'close') socket.destroy();
  else if (how === 'reset') socket.resetAndDestroy();
  else socket.end();
}

describe('500 clients that disconnect at any moment', () => {
  it('leave nothing behind: places, listeners, sockets, timers, requests upstream', async () => {
    using uncaught = catchUncaught();
    const process1 = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;

    // An upstream that answers with tokens for as long as it is asked to.
    let upstream = 0;
    await using model = await serve((_, response: ServerResponse) => {
      upstream++;
      let sent = 0;
      const timer = setInterval(() => {
        response.write(`token ${sent++} ${'x'.repeat(200)}`);
        if (sent === 20) response.end();
      }, 1);
      response.on('close', () => {
        clearInterval(timer);
        upstream--;
      });
    });

    const queue = new AdmissionQueue({ concurrency: 10, maxWaiting: 400 });
    const semaphore = new Semaphore(10);
    const limiter = new RateLimiter({ limit: 100_000, intervalMs: 1000 });
    const upstreamGate = new Semaphore(10);
    const get = gateFetch(upstreamGate);
    let most = 0;
    upstreamGate.on('acquired', ({ active }) => (most = Math.max(most, active)));
    const streamer = new TokenStreamer({ heartbeatMs: 100, idleTimeoutMs: 30_000 });
    const gate = compose(queue, limiter, semaphore);
    const shutdown = new AbortController();
    let piped = 0;
    const server = createServer((_, response) => {
      const source = async ({ signal }: TaskContext): Promise<ReadableStream<string>> => {
        const answer = await get(model.url, { signal });
        return answer.body!.pipeThrough(new TextDecoderStream());
      };
      const stream = streamer.stream(source, { gate, signal: shutdown.signal });
      piped++;
      void pipeToResponse(stream, response).finally(() => piped--);
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    const { port } = server.address() as AddressInfo;

    const ended: Record<string, number> = {};
    await Promise.all(
      Array.from({ length: CLIENTS }, async (_, i) => {
        const moment = MOMENTS[i % MOMENTS.length]!;
        const how = WAYS[(i >> 3) % WAYS.length]!;
        const socket = rawGet(port, 'Connection: close\r\n');
        socket.setEncoding('utf8');
        let received = '';
        socket.on('data', (chunk) => {
          received += String(chunk);
          const is = (what: string): boolean => received.includes(`event: ${what}`);
          if (
            (moment === 'waiting' && (is('position') || is('start'))) ||
            (moment === 'started' && is('start')) ||
            (moment === 'token' && received.includes(`"index":${i % 15}`))
          ) {
            leave(socket, how);
          }
          if (moment === 'stalled' && is('token')) {
            socket.pause();
            setTimeout(() => leave(socket, 'reset'), 20);
          }
        });
        if (moment === 'connected') socket.on('connect', () => leave(socket, how));
        await new Promise((resolve) => {
          socket.on('close', resolve);
        });
        const status = /^HTTP\/1\.1 (\d+)/u.exec(received)?.[1] ?? 'none';
        const end = received.includes('event: done') ? 'whole' : 'broken off';
        const answer = status === '200' ? end : status;
        ended[answer] = (ended[answer] ?? 0) + 1;
      }),
    );

    await until(() => piped === 0 && streamer.stats().active === 0 && upstream === 0);
    for (const primitive of [queue, semaphore, limiter, upstreamGate]) {
      expect([primitive.stats().active, primitive.stats().waiting]).toEqual([0, 0]);
    }
    expect(most).toBeLessThanOrEqual(10);
    // Every kind of end was met.
    const stats = streamer.stats();
    expect(ended['whole']).toBeGreaterThan(0);
    expect(stats.completed).toBeGreaterThan(0);
    expect(stats.disconnected).toBeGreaterThan(CLIENTS / 4);
    expect(stats.abandoned).toBe(0);
    expect(stats.completed + stats.disconnected + stats.failed).toBe(
      stats.completed + stats.disconnected + (ended['503'] ?? 0),
    );

    await new Promise((resolve) => {
      server.getConnections((_, count) => {
        expect(count).toBe(0);
        resolve(undefined);
      });
    });
    await new Promise((resolve) => {
      server.close(resolve);
    });
    const timers = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    expect(timers).toBeLessThanOrEqual(process1 + 1);
    shutdown.abort();
    expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
  });
});
