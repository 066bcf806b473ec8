import {
  type ClientHttp2Stream,
  connect as connect2,
  createServer as createServer2,
} from 'node:http2';
import type { AddressInfo } from 'node:net';

import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { describe, expect, it } from 'vitest';

import { AdmissionQueue } from '../../src/admission-queue.ts';
import { QueueFullError, RateLimitedError } from '../../src/errors.ts';
import type { Gate, TaskContext } from '../../src/gate.ts';
import { pipeToResponse } from '../../src/http/index.ts';
import { Semaphore } from '../../src/semaphore.ts';
import { ManualClock } from '../../src/testing.ts';
import { type StreamReport, type TokenStream, TokenStreamer } from '../../src/token-streamer.ts';
import { rawGet, readAll, serve, type Served, until } from '../support/serve.ts';

interface Piped extends Served {
  readonly reports: StreamReport[];
}

/** A server that answers every request with the stream of that function. */
async function piped(
  stream: () => TokenStream<unknown>,
  options?: Parameters<typeof pipeToResponse>[2],
): Promise<Piped> {
  const reports: StreamReport[] = [];
  const served = await serve((_, response) => {
    void pipeToResponse(stream(), response, options).then((report) => reports.push(report));
  });
  return { ...served, reports };
}

async function events(response: Response): Promise<EventSourceMessage[]> {
  const all: EventSourceMessage[] = [];
  const parser = createParser({ onEvent: (event) => all.push(event) });
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) parser.feed(chunk);
  return all;
}

/** Gives one token and then waits for its signal. */
async function* oneToken({ signal }: TaskContext): AsyncGenerator<string> {
  yield 'a';
  await new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error));
  });
}

/** Gives one token, minds no signal, and is stuck. */
async function* stuck(): AsyncGenerator<string> {
  yield 'a';
  await new Promise(() => {});
}

/** As many tokens of 1 kB as anybody wants, each at once. */
function* flood(pulled: { count: number }): Generator<string> {
  for (;;) {
    pulled.count++;
    yield 'x'.repeat(1024);
  }
}

describe('pipeToResponse()', () => {
  it('sends start, tokens and done as named events with one line of JSON each', async () => {
    const streamer = new TokenStreamer({ clock: new ManualClock() });
    await using served = await piped(() => streamer.stream(['Hel', 'lo\r\n\n', { n: 1 }, '']));
    const response = await fetch(served.url);
    expect(response.status).toBe(200);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    });
    expect(await events(response)).toEqual([
      { event: 'start', id: undefined, data: '{}' },
      { event: 'token', id: undefined, data: '{"index":0,"value":"Hel"}' },
      { event: 'token', id: undefined, data: String.raw`{"index":1,"value":"lo\r\n\n"}` },
      { event: 'token', id: undefined, data: '{"index":2,"value":{"n":1}}' },
      { event: 'token', id: undefined, data: '{"index":3,"value":""}' },
      { event: 'done', id: undefined, data: '{"tokens":4,"elapsedMs":0}' },
    ]);
    await until(() => served.reports.length === 1);
    expect(served.reports[0]).toMatchObject({ outcome: 'completed', tokens: 4 });
  });

  it('tells the place in line first, once the line has it, with the headers at once (T-27)', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    let leave!: () => void;
    const ahead = [
      queue.run(() => new Promise<void>((resolve) => (leave = resolve))),
      queue.run(() => undefined),
    ];
    const streamer = new TokenStreamer();
    await using served = await piped(() => streamer.stream(() => ['a'], { gate: queue }));
    // fetch resolves with the headers, though nobody has left the line.
    const response = await fetch(served.url);
    expect(response.status).toBe(200);
    expect(queue.waiting).toBe(2);
    leave();
    const received = await events(response);
    expect(received.map(({ event }) => event)).toEqual(['position', 'start', 'token', 'done']);
    expect(JSON.parse(received[0]!.data)).toEqual({ position: 2 });
    await Promise.all(ahead);
  });

  it('answers a refusal with a status, Retry-After and a JSON body, and nothing else', async () => {
    const refuse = (error: Error): Gate => ({
      run: async () => {
        throw error;
      },
    });
    const streamer = new TokenStreamer();
    let error: Error = new QueueFullError({
      waiting: 10,
      maxWaiting: 10,
      estimatedWaitMs: 41_234.5,
      retryAfterMs: 41_001,
    });
    await using served = await piped(() => streamer.stream(() => ['a'], { gate: refuse(error) }));
    const full = await fetch(served.url);
    expect(full.status).toBe(503);
    expect(full.headers.get('retry-after')).toBe('42');
    expect(full.headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(full.headers.get('cache-control')).toBe('no-store');
    expect(await full.json()).toEqual({
      error: {
        code: 'ERR_QUEUE_FULL',
        message: 'The line is full: 10 are waiting, at most 10 may.',
        retryAfterMs: 41_001,
        estimatedWaitMs: 41_235,
      },
    });
    error = new RateLimitedError(300, 'to"kens');
    const limited = await fetch(served.url);
    expect(limited.status).toBe(429);
    expect(limited.headers.get('retry-after')).toBe('1');
    expect(limited.headers.get('ratelimit')).toBe('"to\\"kens";r=0;t=1');
    error = new Error('secret');
    const failed = await fetch(served.url);
    expect(failed.status).toBe(500);
    expect(await failed.json()).toEqual({
      error: { code: 'ERR_STREAM_FAILED', message: 'The stream failed.' },
    });
  });

  describe('when the client disconnects', () => {
    it('leaves the line, and never opens the source (T-25)', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      void queue.run(() => new Promise(() => {}));
      let opened = 0;
      const source = (): string[] => [`${opened++}`];
      const streamer = new TokenStreamer();
      await using served = await piped(() => streamer.stream(source, { gate: queue }));
      const socket = rawGet(served.port);
      await until(() => queue.waiting === 1);
      socket.destroy();
      await until(() => served.reports.length === 1);
      expect(queue.waiting).toBe(0);
      expect(served.reports[0]).toMatchObject({
        outcome: 'disconnected',
        tokens: 0,
        error: { name: 'AbortError', message: 'The client has disconnected.' },
      });
      expect(opened).toBe(0);
    });

    it('aborts the source that flows and frees the place (T-10)', async () => {
      const gate = new Semaphore(1);
      const streamer = new TokenStreamer();
      await using served = await piped(() => streamer.stream(oneToken, { gate }));
      const socket = rawGet(served.port);
      socket.resume();
      await until(() => gate.active === 1);
      socket.destroy();
      await until(() => served.reports.length === 1);
      expect(gate.active).toBe(0);
      expect(served.reports[0]).toMatchObject({ outcome: 'disconnected', abandoned: false });
    });

    it('frees the place after the grace when the source is stuck (T-11)', async () => {
      const gate = new Semaphore(1);
      const clock = new ManualClock();
      const streamer = new TokenStreamer({ clock });
      let aborted = false;
      await using served = await piped(() =>
        streamer.stream(
          ({ signal }) => {
            signal.addEventListener('abort', () => (aborted = true));
            return stuck();
          },
          { gate },
        ),
      );
      const socket = rawGet(served.port);
      socket.resume();
      await until(() => streamer.stats().active === 1 && gate.active === 1);
      socket.resetAndDestroy();
      await until(() => aborted);
      await clock.advance(999);
      expect(gate.active).toBe(1);
      await clock.advance(1);
      await until(() => served.reports.length === 1);
      expect(gate.active).toBe(0);
      expect(served.reports[0]).toMatchObject({ outcome: 'disconnected', abandoned: true });
      expect(clock.timers).toBe(0);
    });

    it('stops waiting for drain, and the source that would never pause (T-12, T-14, H305, H319)', async () => {
      const pulled = { count: 0 };
      const streamer = new TokenStreamer();
      await using served = await piped(() => streamer.stream(flood(pulled)));
      const socket = rawGet(served.port);
      // The client takes nothing: the buffers of both sockets fill up, and then it stops.
      await stopsGrowing(() => pulled.count);
      socket.destroy();
      await until(() => served.reports.length === 1);
      expect(served.reports[0]!.outcome).toBe('disconnected');
      const { count } = pulled;
      await stopsGrowing(() => pulled.count);
      expect(pulled.count).toBe(count);
    });

    it('lets the response be closed already', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const streamer = new TokenStreamer();
      const outcomes: string[] = [];
      await using served = await serve((_, response) => {
        response.on('close', () => {
          const stream = streamer.stream(oneToken, { gate: queue });
          void pipeToResponse(stream, response).then(({ outcome }) => outcomes.push(outcome));
        });
      });
      const socket = rawGet(served.port);
      await new Promise((resolve) => served.server.once('request', resolve));
      socket.destroy();
      await until(() => outcomes.length === 1);
      expect(outcomes).toEqual(['disconnected']);
      expect(queue.active + queue.waiting).toBe(0);
    });

    it('does not take the end of the request’s body for it (T-23)', async () => {
      const streamer = new TokenStreamer();
      await using served = await serve((request, response) => {
        request.resume().on('end', () => {
          void pipeToResponse(streamer.stream(['a']), response);
        });
      });
      const response = await fetch(served.url, { method: 'POST', body: 'x'.repeat(100_000) });
      expect((await events(response)).at(-1)?.event).toBe('done');
    });
  });

  describe('when the client is slow', () => {
    it('reads no more than the high-water mark and the sockets hold, and loses nothing (T-13, T-15)', async () => {
      const pulled = { count: 0 };
      const total = 20_000;
      const source = function* (): Generator<string> {
        for (const token of flood(pulled)) {
          if (pulled.count > total) return;
          yield token;
        }
      };
      const streamer = new TokenStreamer();
      await using served = await piped(() => streamer.stream(source()));
      const socket = rawGet(served.port, 'Connection: close\r\n');
      await stopsGrowing(() => pulled.count);
      expect(pulled.count).toBeLessThan(total);
      const all = await readAll(socket);
      expect(all.match(/^event: token$/gmu)).toHaveLength(total);
      expect(all).toMatch(/event: done\ndata: \{"tokens":20000/u);
      expect(all.endsWith('0\r\n\r\n')).toBe(true);
    });

    it('cuts one off that takes nothing for `stallMs`, and frees the place', async () => {
      const gate = new Semaphore(1);
      const clock = new ManualClock();
      const pulled = { count: 0 };
      const streamer = new TokenStreamer({ clock, stallMs: 5000 });
      await using served = await piped(() => streamer.stream(() => flood(pulled), { gate }));
      const socket = rawGet(served.port);
      await stopsGrowing(() => pulled.count);
      await clock.advance(4999);
      expect(gate.active).toBe(1);
      await clock.advance(1);
      await until(() => served.reports.length === 1);
      expect(gate.active).toBe(0);
      expect(served.reports[0]).toMatchObject({ outcome: 'timeout', error: { phase: 'stall' } });
      // Its response is not at its end: it cannot take it for a whole one.
      expect((await readAll(socket)).endsWith('0\r\n\r\n')).toBe(false);
      expect(clock.timers).toBe(0);
    });

    it('cuts one off that does not take the last of it either', async () => {
      const clock = new ManualClock();
      const streamer = new TokenStreamer({ clock, stallMs: 5000 });
      await using served = await piped(() => streamer.stream(['x'.repeat(20_000_000)]));
      const socket = rawGet(served.port);
      await until(() => clock.timers === 1);
      await clock.advance(5000);
      await until(() => served.reports.length === 1);
      expect(served.reports[0]!.outcome).not.toBe('completed');
      expect((await readAll(socket)).endsWith('0\r\n\r\n')).toBe(false);
    });
  });

  it('ends with one error record when the source fails (T-16)', async () => {
    const failing = function* (): Generator<string> {
      yield 'a';
      throw new Error('secret');
    };
    const streamer = new TokenStreamer();
    await using served = await piped(() => streamer.stream(failing()));
    const received = await events(await fetch(served.url));
    expect(received.map(({ event }) => event)).toEqual(['start', 'token', 'error']);
    expect(JSON.parse(received[2]!.data)).toEqual({
      code: 'ERR_STREAM_FAILED',
      message: 'The stream failed.',
    });
    expect(served.reports[0]!.outcome).toBe('failed');
  });

  it('sends what came before a failure that the format cannot tell, and then breaks off', async () => {
    const failing = function* (): Generator<string> {
      yield* ['a', 'b', 'c'];
      throw new Error('secret');
    };
    const streamer = new TokenStreamer();
    await using served = await piped(() => streamer.stream(failing()), { format: 'text' });
    const all = await readAll(rawGet(served.port));
    expect(all).toMatch(/\r\n\r\n1\r\na\r\n2\r\nbc\r\n$/u);
    expect(served.reports[0]!.outcome).toBe('failed');
  });

  it('ends with one error record when the stream is cancelled on the server', async () => {
    const streamer = new TokenStreamer();
    const stream = streamer.stream(stuck);
    await using served = await piped(() => stream);
    const response = await fetch(served.url);
    stream.cancel();
    const received = await events(response);
    expect(received.at(-1)).toMatchObject({ event: 'error' });
    expect(received.filter(({ event }) => event === 'error')).toHaveLength(1);
  });

  it('fails where a token cannot be sent, after those that could', async () => {
    const circle: unknown[] = [];
    circle.push(circle);
    const untold = 'Expected a token that JSON can hold, got a value of type';
    for (const [token, message] of [
      [1n, expect.stringContaining('BigInt')],
      [undefined, `${untold} undefined.`],
      [circle, expect.stringContaining('circular')],
      [() => {}, `${untold} function.`],
    ] as const) {
      const streamer = new TokenStreamer();
      await using served = await piped(() => streamer.stream<unknown>(['a', token, 'b']));
      const received = await events(await fetch(served.url));
      expect(received.map(({ event }) => event)).toEqual(['start', 'token', 'error']);
      await until(() => served.reports.length === 1);
      expect(served.reports[0]).toMatchObject({ outcome: 'failed', error: expect.any(TypeError) });
      expect(served.reports[0]).toMatchObject({ error: { message } });
    }
  });

  it('shows signs of life in the line and between tokens, and only then (T-38, T-41, H318)', async () => {
    const clock = new ManualClock();
    const gate = new AdmissionQueue({ concurrency: 1, clock });
    let leave!: () => void;
    void gate.run(() => new Promise<void>((resolve) => (leave = resolve)));
    const streamer = new TokenStreamer({ clock, heartbeatMs: 100 });
    await using served = await piped(() => streamer.stream(oneToken, { gate }));
    const socket = rawGet(served.port);
    let received = '';
    socket.setEncoding('utf8').on('data', (chunk) => {
      received += String(chunk);
    });
    await until(() => received.includes('event: position'));
    expect(received).not.toContain('\n:');
    await clock.advance(100);
    await until(() => received.endsWith(':\n\n\r\n'));
    await clock.advance(50);
    leave();
    await until(() => received.includes('event: token'));
    received = '';
    await clock.advance(99);
    expect(received).toBe('');
    await clock.advance(1);
    await until(() => received === '3\r\n:\n\n\r\n');
    socket.destroy();
    await until(() => served.reports.length === 1);
    expect(clock.timers).toBe(0);
  });

  it('sends the first token at once and what comes together together (H326)', async () => {
    const source = async function* (): AsyncGenerator<string> {
      yield 'first';
      await new Promise((resolve) => {
        setTimeout(resolve, 5);
      });
      yield* ['a', 'b', 'c', 'd'];
      await new Promise((resolve) => {
        setTimeout(resolve, 5);
      });
    };
    const streamer = new TokenStreamer();
    await using served = await piped(() => streamer.stream(source()));
    const all = await readAll(rawGet(served.port, 'Connection: close\r\n'));
    const chunks = all.split('\r\n').filter((line) => line.includes('event:'));
    const told = chunks.map((chunk) => chunk.match(/^event: \w+$/gmu)!);
    // The start and the first token come one right after the other: Node 26 sends them as one.
    const [others, done] = told.slice(-2);
    expect(told.slice(0, -2).flat()).toEqual(['event: start', 'event: token']);
    expect(others).toEqual(['event: token', 'event: token', 'event: token', 'event: token']);
    expect(done).toEqual(['event: done']);
  });

  it('keeps the headers that are set, and lets options go before the format’s own', async () => {
    const streamer = new TokenStreamer();
    await using served = await serve((_, response) => {
      response.setHeader('x-request-id', '7').setHeader('content-type', 'application/json');
      void pipeToResponse(streamer.stream(['a']), response, {
        status: 203,
        headers: { 'Cache-Control': 'no-store, no-transform' },
      });
    });
    const response = await fetch(served.url);
    expect(response.status).toBe(203);
    expect(response.headers.get('x-request-id')).toBe('7');
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(response.headers.get('cache-control')).toBe('no-store, no-transform');
    expect((await events(response)).at(-1)?.event).toBe('done');
  });

  it('has the headers of the options whatever the answer, and those that a refusal needs', async () => {
    const replay = new TokenStreamer().stream(['a']).replay();
    const closed = new Semaphore(1);
    closed.close();
    const streams = [
      () => replay.from(),
      () => replay.from('end'),
      () => new TokenStreamer().stream(['a'], { gate: closed }),
    ];
    await using served = await piped(() => streams.shift()!(), {
      headers: [
        ['Access-Control-Allow-Origin', 'https://chat.test'],
        ['Content-Type', 'text/event-stream'],
        ['Set-Cookie', 'a=1'],
        ['Set-Cookie', 'b=2'],
      ],
    });
    for (const status of [200, 204, 503]) {
      const answer = await fetch(served.url);
      await answer.text();
      expect(answer.status).toBe(status);
      expect(answer.headers.get('access-control-allow-origin')).toBe('https://chat.test');
      expect(answer.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
      expect(answer.headers.get('content-type')).toBe(
        status === 503 ? 'application/json; charset=utf-8' : 'text/event-stream',
      );
    }
  });

  it('ends the stream where the response throws, and rejects with that', async () => {
    const gate = new Semaphore(1);
    const failures: unknown[] = [];
    await using served = await serve((_, response) => {
      const stream = new TokenStreamer().stream(oneToken, { gate });
      const headers = { 'x-note': '\u0001' };
      void pipeToResponse(stream, response, { headers }).catch(async (error: unknown) => {
        failures.push(error, await stream.finished);
        response.writeHead(500).end('mine');
      });
    });
    const response = await fetch(served.url);
    expect([response.status, await response.text()]).toEqual([500, 'mine']);
    expect(failures).toMatchObject([
      { code: 'ERR_INVALID_CHAR' },
      { outcome: 'failed', error: failures[0] },
    ]);
    expect(gate.active).toBe(0);
  });

  it('rejects for what it cannot work with, and leaves the response alone', async () => {
    const streamer = new TokenStreamer();
    const failures: unknown[] = [];
    await using served = await serve((_, response) => {
      const note = (error: unknown): void => void failures.push(error);
      const read = streamer.stream(['a']);
      read.tokens();
      void (async () => {
        await pipeToResponse(['a'] as never, response).catch(note);
        for (const other of [undefined, {}, new Response()]) {
          await pipeToResponse(streamer.stream(['a']), other as never).catch(note);
        }
        await pipeToResponse(read, response).catch(note);
        await pipeToResponse(streamer.stream(['a']), response, { format: 'x' as never }).catch(
          note,
        );
        await pipeToResponse(streamer.stream(['a']), response, { status: 99 }).catch(note);
        await pipeToResponse(streamer.stream(['a']), response, { headers: { 'a b': 'c' } }).catch(
          note,
        );
        response.flushHeaders();
        await pipeToResponse(streamer.stream(['a']), response).catch(note);
        response.end('mine');
      })();
    });
    expect(await (await fetch(served.url)).text()).toBe('mine');
    const noResponse = 'TypeError: Expected `response` to be a ServerResponse.';
    expect(failures.map(String)).toEqual([
      'TypeError: Expected `stream` to be a TokenStream.',
      noResponse,
      noResponse,
      noResponse,
      'TypeError: The stream is being read already: it has one reader.',
      expect.stringMatching(/^TypeError: Expected `format` to be one of "events", .*, got "x"\.$/u),
      expect.stringMatching(
        /^RangeError: Expected `status` to be an integer from \d+ to 599, got 99/u,
      ),
      expect.stringMatching(/^TypeError: /u),
      'TypeError: Expected `response` to be one of which nothing has been sent.',
    ]);
  });

  it('ends the stream where somebody else has answered before, and asks no gate for it', async () => {
    const gate = new Semaphore(1);
    const reported = Promise.withResolvers<StreamReport>();
    await using served = await serve((_, response) => {
      response.writeHead(503).end('mine');
      const stream = new TokenStreamer().stream(oneToken, { gate });
      pipeToResponse(stream, response).then(reported.resolve, reported.reject);
    });
    expect(await (await fetch(served.url)).text()).toBe('mine');
    expect(await reported.promise).toMatchObject({ outcome: 'disconnected', tokens: 0 });
    expect(gate.stats()).toMatchObject({ acquired: 0, active: 0 });
  });

  it('ends the stream where somebody else answers before there is a verdict', async () => {
    for (const answer of ['write', 'end'] as const) {
      const gate = new Semaphore(1);
      const permit = gate.tryAcquire()!;
      const reported = Promise.withResolvers<StreamReport>();
      await using served = await serve((_, response) => {
        const stream = new TokenStreamer().stream(oneToken, { gate });
        pipeToResponse(stream, response).then(reported.resolve, reported.reject);
        response.writeHead(503)[answer]('mine');
        permit.release();
      });
      const response = await fetch(served.url);
      expect(response.status).toBe(503);
      expect(await reported.promise).toMatchObject({ outcome: 'disconnected' });
      expect(gate.active).toBe(0);
      await response.body!.cancel();
    }
  });

  it('answers a HEAD with the headers, and ends the stream with them', async () => {
    const gate = new Semaphore(1);
    await using served = await piped(() => new TokenStreamer().stream(oneToken, { gate }));
    const response = await fetch(served.url, { method: 'HEAD' });
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    await until(() => served.reports.length === 1);
    const error = new DOMException('A HEAD request asks for the headers alone.', 'AbortError');
    expect(served.reports[0]).toMatchObject({ outcome: 'cancelled', error });
    expect(served.reports[0]!.error).toHaveProperty('name', 'AbortError');
    expect(gate.active).toBe(0);
  });

  describe('over HTTP/2', () => {
    interface Answer {
      readonly status: number | undefined;
      readonly text: string;
      readonly code: number | undefined;
    }

    async function get2(
      stream: () => TokenStream<unknown>,
      options?: Parameters<typeof pipeToResponse>[2],
      leave?: (request: ClientHttp2Stream) => void,
      method = 'GET',
    ): Promise<Answer & { report: StreamReport }> {
      let reported!: Promise<StreamReport>;
      const server = createServer2((_, response) => {
        reported = pipeToResponse(stream(), response, options);
      });
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
      });
      const session = connect2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
      const request = session.request({ ':path': '/', ':method': method });
      let status: number | undefined;
      let text = '';
      request.setEncoding('utf8');
      request.on('response', (headers) => (status = headers[':status']));
      request.on('data', (chunk) => (text += String(chunk)));
      request.on('error', () => {});
      leave?.(request);
      await new Promise((resolve) => request.on('close', resolve));
      const report = await reported;
      session.close();
      await new Promise((resolve) => server.close(resolve));
      return { status, text, code: request.rstCode, report };
    }

    it('sends what it sends over HTTP/1, and no header that is not of HTTP/2 (T-29)', async () => {
      const warnings: unknown[] = [];
      const warn = (warning: unknown): void => void warnings.push(warning);
      process.on('warning', warn);
      const answer = await get2(() => new TokenStreamer().stream(['a', 'b']));
      expect(answer).toMatchObject({ status: 200, code: 0, report: { outcome: 'completed' } });
      expect(answer.text).toMatch(/^event: start[^]*event: done/u);
      const gate = new Semaphore({ capacity: 1, maxWaiting: 0 });
      gate.tryAcquire();
      const refused = await get2(() => new TokenStreamer().stream(['a'], { gate }));
      expect(refused).toMatchObject({ status: 503, code: 0, report: { outcome: 'failed' } });
      expect(JSON.parse(refused.text)).toMatchObject({ error: { code: 'ERR_QUEUE_FULL' } });
      process.off('warning', warn);
      expect(warnings).toEqual([]);
    });

    it('answers a HEAD with the headers, and ends the stream with them', async () => {
      const gate = new Semaphore(1);
      const stream = (): TokenStream<string> => new TokenStreamer().stream(oneToken, { gate });
      const answer = await get2(stream, {}, (request) => request.resume(), 'HEAD');
      expect(answer).toMatchObject({ status: 200, text: '', report: { outcome: 'cancelled' } });
      expect(gate.active).toBe(0);
    });

    it('resets the stream where the format cannot tell an error', async () => {
      const failing = function* (): Generator<string> {
        yield* ['a', 'b', 'c'];
        throw new Error('broken');
      };
      const answer = await get2(() => new TokenStreamer().stream(failing()), { format: 'text' });
      expect(answer).toMatchObject({ status: 200, text: 'abc', report: { outcome: 'failed' } });
      expect(answer.code).not.toBe(0);
    });

    it('lets the stream be reset already, and leaves the response alone', async () => {
      let opened = 0;
      const source = (): string[] => [`${opened++}`];
      let report: Promise<StreamReport> | undefined;
      const server = createServer2((_, response) => {
        response.on('error', (error) => expect.fail(String(error)));
        response.stream.on('close', () => {
          report = pipeToResponse(new TokenStreamer().stream(source), response);
        });
      });
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
      });
      const session = connect2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
      const request = session.request({ ':path': '/' });
      request.on('error', () => {});
      server.once('request', () => request.close(8));
      await until(() => report !== undefined);
      expect(await report).toMatchObject({ outcome: 'disconnected', tokens: 0 });
      expect(opened).toBe(0);
      session.close();
      await new Promise((resolve) => server.close(resolve));
    });

    it('lets the stream be destroyed while it is let in', async () => {
      const report = Promise.withResolvers<StreamReport>();
      const server = createServer2((_, response) => {
        const source = (): string[] => {
          response.stream.destroy();
          return ['a'];
        };
        pipeToResponse(new TokenStreamer().stream(source), response).then(
          report.resolve,
          report.reject,
        );
      });
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
      });
      const session = connect2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
      session.request({ ':path': '/' }).on('error', () => {});
      expect(await report.promise).toMatchObject({ outcome: 'disconnected' });
      session.close();
      await new Promise((resolve) => server.close(resolve));
    });

    it('notices that the client resets the stream', async () => {
      const gate = new Semaphore(1);
      const answer = await get2(
        () => new TokenStreamer().stream(oneToken, { gate }),
        {},
        (request) => request.once('data', () => request.close(8)),
      );
      expect(answer.report.outcome).toBe('disconnected');
      expect(gate.active).toBe(0);
    });
  });
});

/** Resolves when a number has been the same for 50 ms of turns of the event loop. */
async function stopsGrowing(number: () => number): Promise<void> {
  let last = -1;
  while (last !== number() || last === 0) {
    last = number();
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  }
}
