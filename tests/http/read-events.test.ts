import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import { describe, expect, it } from 'vitest';

import { AdmissionQueue } from '../../src/admission-queue.ts';
import { QueueFullError } from '../../src/errors.ts';
import { pipeToResponse, toHttpError } from '../../src/http/index.ts';
import { ReadError, readEvents, type ReadEvent } from '../../src/http/read-events.ts';
import { ManualClock, settle } from '../../src/testing.ts';
import { type StreamReport, TokenStreamer } from '../../src/token-streamer.ts';
import { launchBrowser } from '../support/browser.ts';
import { serve, type Served, until } from '../support/serve.ts';
import { catchUncaught } from '../support/uncaught.ts';

const TEXT = 'content type text/plain;charset=UTF-8';
const JSON_HEADERS = { 'content-type': 'application/json' };
const JSON_TYPE = 'content type application/json';
const EVENT_STREAM = { 'content-type': 'text/event-stream; charset=utf-8' };

/** A refusal as JSON of so many characters. */
function refusalOf(length: number): string {
  const json = JSON.stringify({ error: { code: 'ERR_FULL', message: '' } });
  return json.replace('"message":""', `"message":"${'a'.repeat(length - json.length)}"`);
}

async function failureOf(response: Response): Promise<ReadError> {
  try {
    await Array.fromAsync(readEvents(response));
  } catch (error) {
    return error as ReadError;
  }
  throw new Error('The answer looked whole.');
}

/** A server that answers each request with a stream of what `source` gives, behind a queue of one. */
async function answering(
  source: (context: { signal: AbortSignal }) => AsyncIterable<unknown> | Iterable<unknown>,
): Promise<Served & { queue: AdmissionQueue; reports: StreamReport[]; sockets: Set<Socket> }> {
  const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 1 });
  const streamer = new TokenStreamer();
  const reports: StreamReport[] = [];
  const sockets = new Set<Socket>();
  const served = await serve((_, response) => {
    const stream = streamer.stream(source, { gate: queue });
    void pipeToResponse(stream, response).then((report) => reports.push(report));
  });
  served.server.on('connection', (socket) => sockets.add(socket));
  return { ...served, queue, reports, sockets };
}

/** Gives the tokens and then waits for its signal. */
async function* andNoEnd(
  { signal }: { signal: AbortSignal },
  ...tokens: string[]
): AsyncGenerator<string> {
  yield* tokens;
  await new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error));
  });
}

describe('readEvents()', () => {
  it('reads the place in line, the start, the tokens and the end', async () => {
    await using served = await answering(() => ['Hel', 'lo', { n: 1 }, '']);
    const ahead = Promise.withResolvers<void>();
    void served.queue.run(() => ahead.promise);
    const events: ReadEvent<unknown>[] = [];
    for await (const event of readEvents<unknown>(await fetch(served.url))) {
      events.push(event);
      if (event.type === 'position') ahead.resolve();
    }
    expect(events).toEqual([
      { type: 'position', position: 1 },
      { type: 'start' },
      { type: 'token', index: 0, value: 'Hel' },
      { type: 'token', index: 1, value: 'lo' },
      { type: 'token', index: 2, value: { n: 1 } },
      { type: 'token', index: 3, value: '' },
      { type: 'done', tokens: 4, elapsedMs: expect.any(Number) },
    ]);
  });

  it('gives each token when it comes, and leaves the connection to the next request', async () => {
    const next = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
    await using served = await answering(async function* () {
      for (const { promise } of next) yield await promise;
    });
    for (let round = 0; round < 3; round++) {
      next.splice(0, 2, Promise.withResolvers<string>(), Promise.withResolvers<string>());
      const events = readEvents(await fetch(served.url));
      expect(await events.next()).toMatchObject({ value: { type: 'start' } });
      next[0]!.resolve('a');
      expect(await events.next()).toMatchObject({ value: { value: 'a' } });
      next[1]!.resolve('b');
      // Left at `done`, as many loops are: that is no disconnection.
      for await (const { type } of events) if (type === 'done') break;
      await until(() => served.reports.length === round + 1);
      expect(served.reports[round]).toMatchObject({ outcome: 'completed' });
      await settle();
    }
    expect(served.sockets.size).toBe(1);
  });

  it('answers calls of next() in their order, and nothing after the end', async () => {
    await using served = await answering(() => ['a']);
    const events = readEvents(await fetch(served.url));
    const results = await Promise.all(Array.from({ length: 5 }, () => events.next()));
    expect(results.map(({ value }) => (value as { type: string } | undefined)?.type)).toEqual([
      'start',
      'token',
      'done',
      undefined,
      undefined,
    ]);
    expect(await events.return!()).toEqual({ done: true, value: undefined });
  });

  it('reads a hundred thousand events that come in one piece in time', async () => {
    const event = 'event: token\ndata: {"index":0,"value":"x"}\n\n';
    const text = `${event.repeat(100_000)}event: done\ndata: {}\n\n`;
    const events = await Array.fromAsync(readEvents(new Response(text, { headers: EVENT_STREAM })));
    expect(events).toHaveLength(100_001);
    expect(events.at(-1)).toEqual({ type: 'done' });
  });

  it('leaves out signs of life, and events of other names', async () => {
    const body =
      ':\n\nevent: start\ndata: {}\n\ndata: {"x":1}\n\nevent: ping\ndata: -\n\nretry: 5\n\n';
    const end = 'event: done\ndata: {"tokens":0,"elapsedMs":1}\n\n';
    const events = readEvents(new Response(body + end, { headers: EVENT_STREAM }));
    expect(await Array.fromAsync(events, ({ type }) => type)).toEqual(['start', 'done']);
  });

  describe('throws', () => {
    it('a refusal, with its code and when to come again', async () => {
      await using served = await answering(() => ['a']);
      const ahead = Promise.withResolvers<void>();
      void served.queue.run(() => ahead.promise);
      void served.queue.run(() => {});
      const error = await failureOf(await fetch(served.url));
      expect(error).toBeInstanceOf(ReadError);
      expect(error).toMatchObject({
        name: 'ReadError',
        status: 503,
        code: 'ERR_QUEUE_FULL',
        message: 'The line is full: 1 are waiting, at most 1 may.',
        retryAfterMs: expect.any(Number),
      });
      ahead.resolve();
      await served.queue.idle();
    });

    it('all that toHttpError tells', async () => {
      const { status, headers, body } = toHttpError(
        new QueueFullError({
          waiting: 10,
          maxWaiting: 10,
          estimatedWaitMs: 41_234.5,
          retryAfterMs: 41_001,
        }),
      )!;
      const response = new Response(JSON.stringify(body), { status, headers });
      expect(await failureOf(response)).toMatchObject({
        status: 503,
        code: 'ERR_QUEUE_FULL',
        retryAfterMs: 41_001,
        estimatedWaitMs: 41_235,
      });
    });

    it.each<[string, () => Response, string, number | undefined]>([
      ['the page of a proxy', () => new Response('<h1>Bad', { status: 502 }), TEXT, undefined],
      [
        'one that says when to come again',
        () => new Response('busy', { status: 503, headers: { 'retry-after': '7' } }),
        TEXT,
        7000,
      ],
      [
        'JSON of somebody else',
        () => Response.json({ error: 'no' }, { status: 400 }),
        JSON_TYPE,
        undefined,
      ],
      [
        'JSON of somebody else that has a code',
        () => Response.json({ error: { code: 'no' } }, { status: 400 }),
        JSON_TYPE,
        undefined,
      ],
      [
        'JSON of somebody else that has a message',
        () => Response.json({ error: { message: 'no' } }, { status: 400 }),
        JSON_TYPE,
        undefined,
      ],
      [
        'JSON that is none',
        () => new Response('{', { headers: { 'content-type': 'application/json' } }),
        JSON_TYPE,
        undefined,
      ],
      [
        'JSON that is too long',
        () => new Response(refusalOf(64 * 1024 + 1), { headers: JSON_HEADERS }),
        JSON_TYPE,
        undefined,
      ],
      ['nothing', () => new Response(null, { status: 204 }), 'no content type', undefined],
      [
        'a login page',
        () => new Response('<form>', { headers: { 'content-type': 'text/html' } }),
        'content type text/html',
        undefined,
      ],
      [
        'events of another type',
        () => new Response('', { headers: { 'content-type': 'x-text/event-stream' } }),
        'content type x-text/event-stream',
        undefined,
      ],
      [
        'a refusal of another type',
        () => new Response(refusalOf(100), { headers: { 'content-type': 'x-application/json' } }),
        'content type x-application/json',
        undefined,
      ],
    ])('an answer that is something else: %s', async (_, answer, type, retryAfterMs) => {
      const response = answer();
      const { status } = response;
      const error = await failureOf(response);
      expect(error).toMatchObject({ code: 'ERR_NOT_EVENTS', status, retryAfterMs });
      expect(error.message).toBe(
        `Expected an event stream, got an answer with status ${status} and ${type}.`,
      );
    });

    it('a refusal that is as long as one may be', async () => {
      const response = new Response(refusalOf(64 * 1024), { headers: JSON_HEADERS });
      expect(await failureOf(response)).toMatchObject({ code: 'ERR_FULL' });
    });

    it('an event stream without a body, as cut off before its end', async () => {
      for (const body of [null, '']) {
        const error = await failureOf(new Response(body, { headers: EVENT_STREAM }));
        expect(error).toMatchObject({
          code: 'ERR_STREAM_CUT',
          message: 'The answer was cut off before its end.',
        });
        expect(error.cause).toBeUndefined();
      }
    });

    it('data that is no JSON, after what came before', async () => {
      const body = 'event: start\ndata: {}\n\nevent: token\ndata: {\n\n';
      const events = readEvents(new Response(body, { headers: EVENT_STREAM }));
      expect(await events.next()).toEqual({ done: false, value: { type: 'start' } });
      await expect(events.next()).rejects.toMatchObject({
        code: 'ERR_NOT_EVENTS',
        message: 'Expected the data of an event `token` to be JSON.',
        cause: expect.any(SyntaxError),
      });
      expect(await events.next()).toEqual({ done: true, value: undefined });
    });

    it('what the stream failed with, after its tokens', async () => {
      await using served = await answering(async function* () {
        yield 'a';
        throw new Error('secret');
      });
      const events = readEvents(await fetch(served.url));
      const types = [(await events.next()).value.type, (await events.next()).value.type];
      expect(types).toEqual(['start', 'token']);
      await expect(events.next()).rejects.toMatchObject({
        code: 'ERR_STREAM_FAILED',
        message: 'The stream failed.',
        status: 200,
      });
      expect(await events.next()).toEqual({ done: true, value: undefined });
    });

    it.each(['destroys the connection', 'ends the response', 'resets the connection'])(
      'when the server %s before the end',
      async (how) => {
        using uncaught = catchUncaught();
        await using served = await serve((_, response) => {
          response.writeHead(200, EVENT_STREAM);
          response.write(
            'event: start\ndata: {}\n\nevent: token\ndata: {"index":0,"value":"a"}\n\n',
          );
          setTimeout(() => {
            if (how === 'ends the response') response.end('event: done\ndata: {}\n');
            else if (how === 'resets the connection') response.socket!.resetAndDestroy();
            else response.destroy();
          }, 5);
        });
        const events = readEvents(await fetch(served.url));
        await events.next();
        expect(await events.next()).toMatchObject({ value: { type: 'token', value: 'a' } });
        const error = (await events.next().catch((thrown: unknown) => thrown)) as ReadError;
        expect(error).toMatchObject({ name: 'ReadError', code: 'ERR_STREAM_CUT', status: 200 });
        expect(error.cause === undefined).toBe(how === 'ends the response');
        expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
      },
    );

    it('the reason of the abort of its request, untouched', async () => {
      await using served = await answering((context) => andNoEnd(context, 'a'));
      for (const reason of [undefined, new Error('mine'), 'a string']) {
        const controller = new AbortController();
        const events = readEvents(await fetch(served.url, { signal: controller.signal }));
        await events.next();
        await events.next();
        const pending = events.next();
        controller.abort(reason);
        await expect(pending).rejects.toBe(controller.signal.reason);
        // Or the next one would have to wait in line, and be told so.
        await until(() => served.queue.active === 0);
      }
      await until(() => served.reports.length === 3);
      expect(served.queue.active).toBe(0);
    });

    it('a TypeError for what is no response, or is read by somebody else', async () => {
      for (const wrong of [undefined, null, 'text', {}, fetch]) {
        expect(() => readEvents(wrong as never)).toThrow(
          new TypeError('Expected `response` to be a Response, such as fetch resolves to.'),
        );
      }
      const response = new Response('x', { headers: EVENT_STREAM });
      readEvents(response);
      expect(() => readEvents(response)).toThrow(TypeError);
    });
  });

  it.each([
    ['done', '{"tokens":0}', 'done'],
    ['error', '{"code":"ERR_STREAM_FAILED","message":"The stream failed."}', 'ERR_STREAM_FAILED'],
  ])(
    'reads what comes after `%s` to its end: the connection is used again',
    async (last, data, heard) => {
      for (const left of [true, false]) {
        const seen = { cancelled: false, ended: false };
        const isLeft = Promise.withResolvers<void>();
        const chunks = [new TextEncoder().encode(`event: ${last}\ndata: ${data}\n\n`)];
        const body = new ReadableStream(
          {
            async pull(controller) {
              const chunk = chunks.shift();
              if (chunk !== undefined) return controller.enqueue(chunk);
              await isLeft.promise;
              seen.ended = true;
              controller.close();
            },
            cancel: () => void (seen.cancelled = true),
          },
          { highWaterMark: 0 },
        );
        const events = readEvents(new Response(body, { headers: EVENT_STREAM }));
        const told = events.next().then(
          ({ value }) => (value as ReadEvent<string>).type,
          (error: ReadError) => error.code,
        );
        expect(await told).toBe(heard);
        const end = left ? events.return!() : events.next();
        expect(await end).toEqual({ done: true, value: undefined });
        isLeft.resolve();
        await settle();
        expect(seen).toEqual({ cancelled: false, ended: true });
      }
    },
  );

  describe('lets go of the answer, and so of the place at the gate,', () => {
    it('when its loop is left', async () => {
      await using served = await answering((context) => andNoEnd(context, 'a'));
      for await (const event of readEvents(await fetch(served.url))) {
        if (event.type === 'token') break;
      }
      await until(() => served.reports.length === 1);
      expect(served.reports[0]).toMatchObject({ outcome: 'disconnected' });
      expect(served.queue.active).toBe(0);
    });

    it.each<[string, (events: AsyncIterableIterator<unknown>) => PromiseLike<unknown>]>([
      ['return()', (events) => events.return!()],
      ['throw()', (events) => events.throw!(new Error('enough')).catch(() => undefined)],
      ['disposal', (events) => (events as unknown as AsyncDisposable)[Symbol.asyncDispose]()],
    ])('by %s, also while a next() waits', async (_, end) => {
      await using served = await answering((context) => andNoEnd(context, 'a'));
      const events = readEvents(await fetch(served.url));
      await events.next();
      await events.next();
      const pending = events.next();
      await settle();
      await end(events);
      expect(await pending).toEqual({ done: true, value: undefined });
      expect(await events.next()).toEqual({ done: true, value: undefined });
      await until(() => served.reports.length === 1);
      expect(served.queue.active).toBe(0);
    });

    it('and gives back what return() and throw() are given', async () => {
      const events = (): AsyncIterableIterator<unknown> =>
        readEvents(new Response('', { headers: EVENT_STREAM }));
      expect(await events().return!(7)).toEqual({ done: true, value: 7 });
      const reason = new Error('enough');
      await expect(events().throw!(reason)).rejects.toBe(reason);
    });

    it('before anything was read', async () => {
      await using served = await answering((context) => andNoEnd(context, 'a'));
      const events = readEvents(await fetch(served.url));
      await events.return!();
      expect(await events.next()).toEqual({ done: true, value: undefined });
      await until(() => served.reports.length === 1);
      expect(served.queue.active).toBe(0);
    });

    it('while the body of a refusal has not come', async () => {
      let cancelled = false;
      const body = new ReadableStream({ cancel: () => void (cancelled = true) });
      const headers = { 'content-type': 'application/json' };
      const events = readEvents(new Response(body, { status: 503, headers }));
      const pending = events.next();
      await settle();
      await events.return!();
      expect(await pending).toEqual({ done: true, value: undefined });
      expect(cancelled).toBe(true);
    });

    it('when what comes is none of ours', async () => {
      let cancelled = false;
      const body = new ReadableStream({ cancel: () => void (cancelled = true) });
      await failureOf(new Response(body, { status: 502 }));
      expect(cancelled).toBe(true);
    });
  });

  it('goes on after the last token that it has, with the answer to a Last-Event-ID', async () => {
    const replay = new TokenStreamer({ clock: new ManualClock() }).stream(['a', 'b', 'c']).replay();
    let requests = 0;
    await using served = await serve((request, response) => {
      const id = request.headers['last-event-id'] as string | undefined;
      const write = response.write.bind(response) as (chunk: string) => boolean;
      // The first connection breaks behind the second token.
      if (requests++ === 0) {
        response.write = response.end = ((chunk: string) => {
          const taken = write(chunk.split('id: 2')[0]!);
          if (chunk.includes('id: 2')) setTimeout(() => response.destroy(), 5);
          return taken;
        }) as never;
      }
      void pipeToResponse(replay.from(id), response);
    });
    const tokens: string[] = [];
    const headers: Record<string, string> = {};
    const cuts: string[] = [];
    for (let whole = false; !whole;) {
      try {
        for await (const event of readEvents(await fetch(served.url, { headers }))) {
          if (event.type === 'token') {
            tokens.push(event.value);
            headers['last-event-id'] = String(event.index);
          }
        }
        whole = true;
      } catch (error) {
        cuts.push((error as ReadError).code);
      }
    }
    expect(cuts).toEqual(['ERR_STREAM_CUT']);
    expect([tokens, requests]).toEqual([['a', 'b', 'c'], 2]);
  });

  it('works in Chromium, without anything of Node', async () => {
    const entry = fileURLToPath(new URL('../../src/http/read-events.ts', import.meta.url));
    const { outputFiles } = await build({
      entryPoints: [entry],
      bundle: true,
      format: 'iife',
      globalName: 'reader',
      platform: 'browser',
      write: false,
    });
    const queue = new AdmissionQueue({ concurrency: 1 });
    const streamer = new TokenStreamer();
    const reports: StreamReport[] = [];
    await using served = await serve((request, response) => {
      if (request.url === '/reader.js') {
        response.setHeader('content-type', 'text/javascript').end(outputFiles[0]!.text);
      } else if (request.method === 'POST') {
        const source = ({ signal }: { signal: AbortSignal }): AsyncGenerator<string> =>
          andNoEnd({ signal }, 'Grüße', ' 😀');
        const stream =
          request.url === '/whole'
            ? streamer.stream(() => ['Grüße', ' 😀'], { gate: queue })
            : streamer.stream(source, { gate: queue });
        void pipeToResponse(stream, response).then((report) => reports.push(report));
      } else {
        response.setHeader('content-type', 'text/html').end('<script src="/reader.js"></script>');
      }
    });
    const browser = await launchBrowser();
    try {
      const page = await browser.newPage();
      await page.goto(served.url);
      const seen = await page.evaluate(async () => {
        const { reader } = globalThis as unknown as { reader: { readEvents: typeof readEvents } };
        const whole: string[] = [];
        for await (const event of reader.readEvents(await fetch('/whole', { method: 'POST' }))) {
          whole.push(event.type === 'token' ? event.value : event.type);
        }
        for await (const event of reader.readEvents(await fetch('/left', { method: 'POST' }))) {
          if (event.type === 'token') break;
        }
        return whole;
      });
      expect(seen).toEqual(['start', 'Grüße', ' 😀', 'done']);
      await until(() => reports.length === 2);
      expect(reports.map(({ outcome }) => outcome)).toEqual(['completed', 'disconnected']);
      expect(queue.active).toBe(0);
    } finally {
      await browser.close();
    }
  });
});
