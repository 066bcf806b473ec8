import { EventSourceParserStream } from 'eventsource-parser/stream';
import { ReadError, readEvents } from 'sluice/read-events';
import { describe, expect, it } from 'vitest';

import {
  Answers,
  type AnswersOptions,
  type Model,
  type Running,
  TEXT,
} from '../../examples/http/answers.ts';
import { start as express } from '../../examples/http/express.ts';
import { start as fastify } from '../../examples/http/fastify.ts';
import { start as honoNode } from '../../examples/http/hono-node.ts';
import { createApp } from '../../examples/http/hono-web.ts';
import { start as koa } from '../../examples/http/koa.ts';
import { start as nodeHttp } from '../../examples/http/node-http.ts';
import { rawGet, until } from '../support/serve.ts';
import { catchUncaught } from '../support/uncaught.ts';

/** A model whose answers say what they are told, when they are told. */
class ToldModel {
  readonly questions: string[] = [];
  /** Answers that are being given. */
  open = 0;
  #tokens: PromiseWithResolvers<string | undefined>[] = [];

  readonly answer: Model = (question, { signal }) => {
    this.questions.push(question);
    return this.#answer(signal);
  };

  /** Of the answer that has waited longest; the end without a token. Waits until it is asked. */
  async say(token?: string): Promise<void> {
    await until(() => this.#tokens.length > 0);
    this.#tokens.shift()!.resolve(token);
  }

  async *#answer(signal: AbortSignal): AsyncGenerator<string> {
    this.open++;
    try {
      for (;;) {
        const next = Promise.withResolvers<string | undefined>();
        this.#tokens.push(next);
        signal.addEventListener('abort', () => next.reject(signal.reason as Error));
        const token = await next.promise;
        if (token === undefined) return;
        yield token;
      }
    } finally {
      this.open--;
    }
  }
}

interface Example extends AsyncDisposable {
  readonly answers: Answers;
  readonly model: ToldModel;
  readonly fetch: (path: string, init?: RequestInit) => Promise<Response>;
}

/** What a client makes of a response that it did not get from a server. */
function decoded(response: Response): Response {
  if (response.headers.get('content-encoding') !== 'gzip') return response;
  const gunzip = new DecompressionStream('gzip') as TransformStream<Uint8Array, Uint8Array>;
  return new Response(response.body!.pipeThrough(gunzip), response);
}

type Start = (answers: Answers, port: number) => Promise<Running>;

async function run(start: Start | undefined, options: AnswersOptions = {}): Promise<Example> {
  const model = new ToldModel();
  const answers = new Answers(model.answer, { concurrency: 1, perSecond: 1000, ...options });
  if (start === undefined) {
    const app = createApp(answers);
    return {
      answers,
      model,
      fetch: async (path, init) =>
        decoded(await app.fetch(new Request(`http://localhost${path}`, init))),
      [Symbol.asyncDispose]: async () => {},
    };
  }
  const { url, close } = await start(answers, 0);
  return {
    answers,
    model,
    fetch: (path, init) => fetch(url + path, init),
    [Symbol.asyncDispose]: close,
  };
}

const gzip = { headers: { 'accept-encoding': 'gzip' } };

/** The text of chat-completion chunks, as they come; `[DONE]` is the last. */
async function* chunksOf(response: Response): AsyncGenerator<string> {
  const events = response
    .body!.pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  for await (const { data } of events) {
    if (data === '[DONE]') {
      yield data;
      continue;
    }
    const { choices } = JSON.parse(data) as { choices: { delta: { content?: string } }[] };
    const content = choices[0]!.delta.content ?? '';
    if (content !== '') yield content;
  }
}

const SERVERS: [string, Start][] = [
  ['node-http', nodeHttp],
  ['express', express],
  ['fastify', fastify],
  ['koa', koa],
  ['hono-node', honoNode],
];

describe.each<[string, Start | undefined]>([...SERVERS, ['hono-web', undefined]])(
  'examples/http/%s.ts',
  (_, start) => {
    it('compresses, and not what streams: each token is there before the next is made (T-28)', async () => {
      await using example = await run(start);
      const text = await example.fetch('/text', gzip);
      expect(text.headers.get('content-encoding')).toBe('gzip');

      const response = await example.fetch('/answer?question=Why%3F', gzip);
      const events = readEvents(response);
      expect((await events.next()).value).toEqual({ type: 'start' });
      for (const [index, value] of ['Because', ' of', ' it.'].entries()) {
        await example.model.say(value);
        expect((await events.next()).value).toEqual({ type: 'token', index, value });
      }
      await example.model.say();
      expect((await events.next()).value).toMatchObject({ type: 'done', tokens: 3 });
      expect(await events.next()).toMatchObject({ done: true });
      expect(example.model.questions).toEqual(['Why?']);
    });

    it('streams as the chat-completions API does, one by one', async () => {
      await using example = await run(start);
      const response = await example.fetch('/answer?question=Why%3F&format=openai', gzip);
      const chunks = chunksOf(response);
      for (const token of ['Because', ' of', ' it.']) {
        await example.model.say(token);
        expect((await chunks.next()).value).toBe(token);
      }
      await example.model.say();
      expect((await chunks.next()).value).toBe('[DONE]');
      expect(await chunks.next()).toMatchObject({ done: true });
    });

    it('shows the place in line, and answers when its turn has come', async () => {
      await using example = await run(start);
      const first = readEvents(await example.fetch('/answer?question=1'));
      const second = readEvents(await example.fetch('/answer?question=2'));
      expect((await second.next()).value).toMatchObject({ type: 'position', position: 1 });
      await example.model.say('one');
      await example.model.say();
      expect(await Array.fromAsync(first, ({ type }) => type)).toEqual(['start', 'token', 'done']);
      await example.model.say('two');
      await example.model.say();
      expect(await Array.fromAsync(second, ({ type }) => type)).toEqual(['start', 'token', 'done']);
    });

    it('refuses with 503 when the line is full, and says when to come again', async () => {
      await using example = await run(start, { maxWaiting: 0 });
      const first = readEvents(await example.fetch('/answer?question=1'));
      await first.next();
      const refused = await example.fetch('/answer?question=2', gzip);
      expect(refused.status).toBe(503);
      expect(refused.headers.get('content-type')).toBe('application/json; charset=utf-8');
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(await refused.json()).toMatchObject({ error: { code: 'ERR_QUEUE_FULL' } });
      await first.return!();
      await until(() => example.model.open === 0);
    });

    it('refuses with 429 who asks too soon, and says when to come again', async () => {
      await using example = await run(start, { perSecond: 1 });
      const first = readEvents(await example.fetch('/answer?question=1'));
      await first.next();
      const refused = await example.fetch('/answer?question=2', gzip);
      expect(refused.status).toBe(429);
      expect(refused.headers.get('content-type')).toMatch(/^application\/json\b/);
      expect(refused.headers.get('retry-after')).toBe('1');
      const error = await Array.fromAsync(readEvents(refused)).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ReadError);
      expect(error).toMatchObject({ code: 'ERR_RATE_LIMITED', retryAfterMs: expect.any(Number) });
      expect(example.model.questions).toEqual(['1']);
      await first.return!();
      await until(() => example.model.open === 0);
    });

    it('answers a HEAD with the headers, and keeps no place for it', async () => {
      await using server = await run(start);
      const response = await server.fetch('/answer?question=a', { method: 'HEAD' });
      expect(response.status).toBe(200);
      expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
      expect(await response.text()).toBe('');
      await until(() => server.answers.queue.active === 0);
      expect(server.model.open).toBe(0);
    });

    it('lets go of clients that leave: in line, and in the middle of a token', async () => {
      using uncaught = catchUncaught();
      await using example = await run(start);
      const { queue } = example.answers;
      const leaving = [new AbortController(), new AbortController(), new AbortController()];
      const [flowing, waiting, last] = await Promise.all(
        leaving.map(async ({ signal }, i) => {
          // One after the other, so that it is certain who is first.
          await until(() => queue.active + queue.waiting === i);
          const events = readEvents(await example.fetch(`/answer?question=${i}`, { signal }));
          await events.next();
          return events;
        }),
      );
      await example.model.say('a');
      expect((await flowing!.next()).value).toMatchObject({ type: 'token' });
      expect([queue.active, queue.waiting, example.model.open]).toEqual([1, 2, 1]);
      // In line: by the request, and by its body.
      leaving[1]!.abort();
      await expect(Array.fromAsync(waiting!)).rejects.toThrow(/aborted|cancelled/);
      await until(() => queue.waiting === 1);
      await last!.return!();
      await until(() => queue.waiting === 0);
      expect([queue.active, example.model.open]).toEqual([1, 1]);
      leaving[0]!.abort();
      await until(() => queue.active === 0 && example.model.open === 0);
      expect(example.model.questions).toEqual(['0']);
      expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
    });
  },
);

describe('a server of examples/http', () => {
  it.each(SERVERS)('lets go of a connection that is reset: %s', async (_, start) => {
    const model = new ToldModel();
    const answers = new Answers(model.answer);
    const { url, close } = await start(answers, 0);
    const socket = rawGet(Number(new URL(url).port), '', '/answer?question=1');
    await model.say('a');
    let received = '';
    socket.on('data', (chunk) => (received += String(chunk)));
    await until(() => received.includes('"value":"a"'));
    socket.resetAndDestroy();
    await until(() => answers.queue.active === 0);
    expect(model.open).toBe(0);
    await close();
  });

  it.each(SERVERS)('sends a text whole to whoever asks for it plainly: %s', async (_, start) => {
    await using example = await run(start);
    const text = await example.fetch('/text', { headers: { 'accept-encoding': 'identity' } });
    expect(await text.text()).toBe(TEXT);
    expect((await example.fetch('/nothing')).status).toBe(404);
  });
});
