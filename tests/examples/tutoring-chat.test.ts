import { once } from 'node:events';
import { request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';

import { afterEach, beforeEach, describe, expect, it, type Mock, vi } from 'vitest';

import { startModelServer, type ModelServer } from '../../examples/model-server/server.ts';
import type { ModelServerOptions } from '../../examples/model-server/settings.ts';
import { MAX_QUESTION_BYTES, parseQuestion } from '../../examples/tutoring-chat/questions.ts';
import { startChatServer, type ChatServer } from '../../examples/tutoring-chat/server.ts';
import { baseURLIn, readSettings } from '../../examples/tutoring-chat/settings.ts';
import { type ChatEvent, failure, openTab, post, type Tab } from './chat-client.ts';
import { FABLES } from './fables.ts';
import { ScriptedModel } from './scripted-model.ts';

type Environment = Readonly<Record<string, string>>;

const QUESTION = { question: 'What did the fox see?' };
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const open: { close(): Promise<unknown> }[] = [];
let errors: Mock<typeof console.error>;

beforeEach(() => {
  errors = vi.spyOn(console, 'error').mockImplementation(() => {});
});

afterEach(async () => {
  // The chat before its model.
  for (const server of open.splice(0).toReversed()) await server.close();
  vi.restoreAllMocks();
});

async function startChat(baseURL: string, env: Environment): Promise<ChatServer> {
  const chat = await startChatServer(readSettings({ CHAT_PORT: '0', ...env }, baseURL));
  open.push(chat);
  return chat;
}

/** In front of the model server that the repository has. */
async function startReal(
  env: Environment = {},
  options: ModelServerOptions = {},
): Promise<{ chat: ChatServer; model: ModelServer }> {
  const model = await startModelServer({
    port: 0,
    prefillMsPerToken: 0,
    decodeMsPerToken: 0,
    corpus: FABLES,
    ...options,
  });
  open.push(model);
  return { chat: await startChat(`${model.url}/v1`, env), model };
}

/** In front of a model that does what the test says. */
async function startScripted(
  env: Environment = {},
): Promise<{ chat: ChatServer; model: ScriptedModel }> {
  const model = await new ScriptedModel().start();
  open.push(model);
  return { chat: await startChat(model.baseURL, env), model };
}

function ask(chat: ChatServer, body: unknown = QUESTION, signal?: AbortSignal): Promise<Response> {
  return post(`${chat.url}/api/chat`, body, signal);
}

async function getJson(chat: ChatServer, path: string): Promise<Record<string, unknown>> {
  const response = await fetch(chat.url + path);
  return (await response.json()) as Record<string, unknown>;
}

/** Resolves when the line has come to this. */
async function until(chat: ChatServer, gauges: object): Promise<void> {
  await vi.waitFor(() => expect(chat.stats()).toMatchObject(gauges), {
    interval: 1,
    timeout: 25_000,
  });
}

function named(events: readonly ChatEvent[], name: string): ChatEvent['data'][] {
  return events.filter(({ event }) => event === name).map(({ data }) => data);
}

/** Five questions answered at once, so that there is something to estimate from. */
async function warmUp(chat: ChatServer, model: ScriptedModel): Promise<void> {
  for (let i = 0; i < 5; i += 1) {
    const answer = ask(chat);
    const held = await model.next();
    held.finish();
    await (await answer).text();
  }
}

describe('POST /api/chat', () => {
  it('answers in JSON, with the id that its headers tell and the time in line', async () => {
    const { chat, model } = await startReal();
    const response = await ask(chat);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(response.headers.get('cache-control')).toBe('no-store');
    const answer = await response.json();
    expect(answer).toEqual({
      id: response.headers.get('x-request-id'),
      answer: expect.stringMatching(/^[A-Z].+\.$/),
      waitedMs: expect.any(Number),
    });
    expect(model.stats()).toMatchObject({ active: 0, served: 1 });
    await until(chat, { active: 0, waiting: 0, completed: 1 });
  });

  it('asks what was asked, and waits for its turn', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    const first = ask(chat, { question: 'First?' });
    const held = await model.next();
    expect(held.question).toBe('First?');
    const second = ask(chat, { question: 'Second?' });
    await until(chat, { active: 1, waiting: 1 });
    expect(model.untaken).toBe(0);
    held.finish('One.');
    const one = (await (await first).json()) as Record<string, unknown>;
    (await model.next()).finish('Two.');
    const two = (await (await second).json()) as Record<string, unknown>;
    expect([one['answer'], two['answer']]).toEqual(['One.', 'Two.']);
    expect([one['waitedMs'], two['waitedMs']]).toEqual([expect.any(Number), expect.any(Number)]);
  });

  it('lets the more urgent go first', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    const answers = [ask(chat)];
    const held = await model.next();
    for (const [waiting, body] of [
      { question: 'Default?' },
      { question: 'Least?', priority: 5 },
      { question: 'Urgent?', priority: 1 },
    ].entries()) {
      answers.push(ask(chat, body));
      await until(chat, { waiting: waiting + 1 });
    }
    held.finish();
    for (const question of ['Urgent?', 'Default?', 'Least?']) {
      const next = await model.next();
      expect(next.question).toBe(question);
      next.finish();
    }
    const statuses = (await Promise.all(answers)).map(({ status }) => status);
    expect(statuses).toEqual([200, 200, 200, 200]);
  });
});

describe.each(['/api/chat', '/api/chat/stream'])('the body of POST %s', (path) => {
  it.each([
    ['JSON that breaks off', '{"question":', 'Expected the body to be JSON in UTF-8.'],
    ['nothing', '', 'Expected the body to be JSON in UTF-8.'],
    ['bytes that are not UTF-8', new Uint8Array([0x22, 0xff, 0x22]), 'JSON in UTF-8.'],
    ['null', 'null', 'Expected the body to be a JSON object'],
    ['an array', ['Why?'], 'Expected the body to be a JSON object'],
    ['no question', {}, 'Expected `question` to be a string.'],
    ['a number', { question: 42 }, 'Expected `question` to be a string.'],
    ['an empty question', { question: '' }, 'Expected `question` not to be empty.'],
    ['blanks', { question: ' \n\t' }, 'Expected `question` not to be empty.'],
    ['a byte over 8 kB', { question: 'a'.repeat(8193) }, 'at most 8192 bytes, got 8193.'],
    ['over 8 kB in UTF-8', { question: '€'.repeat(2731) }, 'at most 8192 bytes, got 8193.'],
    ['100 kB', { question: 'a'.repeat(100_000) }, 'at most 8192 bytes, got 100000.'],
    [
      'priority 6',
      { question: 'Why?', priority: 6 },
      '`priority` to be an integer from 1 to 5, got 6.',
    ],
    ['priority 0', { question: 'Why?', priority: 0 }, 'got 0.'],
    ['priority 1.5', { question: 'Why?', priority: 1.5 }, 'got 1.5.'],
    ['priority high', { question: 'Why?', priority: 'high' }, 'got "high".'],
    ['priority null', { question: 'Why?', priority: null }, 'got null.'],
    [
      'no tokens',
      { question: 'Why?', maxTokens: 0 },
      '`maxTokens` to be a positive integer, got 0.',
    ],
    ['half a token', { question: 'Why?', maxTokens: 0.5 }, 'got 0.5.'],
    ['maxTokens null', { question: 'Why?', maxTokens: null }, 'got null.'],
  ])('is refused with 400 and a reason: %s', async (_, body, message) => {
    const { chat, model } = await startScripted();
    const { status, error, headers } = await failure(await post(chat.url + path, body));
    expect(status).toBe(400);
    expect(headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(error).toEqual({ code: 'ERR_BAD_REQUEST', message: expect.stringContaining(message) });
    expect(chat.stats()).toMatchObject({ accepted: 0 });
    expect(model.untaken).toBe(0);
  });

  it('is refused with 413 when no question could be so long', async () => {
    const { chat } = await startScripted();
    const { status, error } = await failure(await post(chat.url + path, 'a'.repeat(200_000)));
    expect(status).toBe(413);
    expect(error).toMatchObject({
      code: 'ERR_TOO_LARGE',
      message: 'Expected a body of at most 131072 bytes, got 200000.',
    });
  });

  it('is refused with 408 when it does not come to an end', async () => {
    const { chat } = await startScripted({ CHAT_BODY_TIMEOUT_MS: '50' });
    const request = httpRequest(chat.url + path, { method: 'POST' });
    request.write('{"question":');
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    expect(response.statusCode).toBe(408);
    expect(response.headers.connection).toBe('close');
    request.destroy();
  });
});

describe('the bodies of questions', () => {
  it('are read by 64 at once; the others wait, and none is left out', async () => {
    const { chat } = await startScripted();
    const slow = Array.from({ length: 64 }, (): ClientRequest => {
      const headers = { expect: '100-continue' };
      const request = httpRequest(`${chat.url}/api/chat`, {
        method: 'POST',
        headers,
        agent: false,
      });
      request.on('error', () => {});
      request.flushHeaders();
      return request;
    });
    // The server says so when it begins with a request.
    await Promise.all(slow.map((request) => once(request, 'continue')));
    let answered = false;
    const bad = ask(chat, 'not JSON').finally(() => {
      answered = true;
    });
    for (let i = 0; i < 5; i += 1) await fetch(`${chat.url}/health`);
    expect(answered).toBe(false);
    slow[0]?.destroy();
    expect((await bad).status).toBe(400);
    for (const request of slow) request.destroy();
  });
});

describe('parseQuestion()', () => {
  it('takes a question of 8192 bytes, however it is escaped', () => {
    const escaped = '\\u0001'.repeat(MAX_QUESTION_BYTES);
    const { question, priority } = parseQuestion(Buffer.from(`{"question":"${escaped}"}`));
    expect(Buffer.byteLength(question)).toBe(MAX_QUESTION_BYTES);
    expect(priority).toBe(5);
  });

  it('takes each of the priorities', () => {
    for (const priority of [1, 2, 3, 4, 5]) {
      const body = Buffer.from(JSON.stringify({ question: 'Why?', priority, extra: true }));
      expect(parseQuestion(body)).toEqual({ question: 'Why?', priority });
    }
  });
});

describe('POST /api/chat/stream', () => {
  it('sends the start, every token of the answer and how it went', async () => {
    const { chat } = await startReal();
    const tab = await openTab(chat.url, QUESTION);
    expect(tab.response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(tab.id).toMatch(UUID);
    const events = await tab.rest();
    const tokens = named(events, 'token');
    expect(events[0]).toEqual({ event: 'start', data: {} });
    expect(events.slice(1, -1).every(({ event }) => event === 'token')).toBe(true);
    expect(tokens.map(({ index }) => index)).toEqual(tokens.map((_, i) => i));
    expect(events.at(-1)).toEqual({
      event: 'done',
      data: { tokens: tokens.length, elapsedMs: expect.any(Number) },
    });
    const whole = (await (await ask(chat)).json()) as Record<string, unknown>;
    expect(tokens.map(({ value }) => value).join('')).toBe(whole['answer']);
  });

  it('sends as many tokens as were asked for, up to the limit of the chat', async () => {
    const { chat } = await startReal({ CHAT_MAX_TOKENS: '60' }, { minTokens: 1024 });
    for (const [maxTokens, tokens] of [
      [7, 7],
      [60, 60],
      [61, 60],
      [undefined, 60],
    ]) {
      const tab = await openTab(chat.url, { ...QUESTION, maxTokens });
      expect((await tab.rest()).at(-1)).toMatchObject({ event: 'done', data: { tokens } });
    }
  });

  it('sends each position on the way, then start, tokens and done, in this order', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    await warmUp(chat, model);
    const first = await openTab(chat.url, { question: 'First?' });
    const held = [await model.next()];
    const second = await openTab(chat.url, { question: 'Second?' });
    const third = await openTab(chat.url, { question: 'Third?' });

    expect(await second.next()).toEqual({
      event: 'position',
      data: { position: 1, estimatedWaitMs: expect.any(Number) },
    });
    expect(await third.next()).toMatchObject({ event: 'position', data: { position: 2 } });
    held[0]?.token('Since');
    held[0]?.finish(' so.');
    expect(await first.rest()).toMatchObject([
      { event: 'start' },
      { event: 'token', data: { index: 0, value: 'Since' } },
      { event: 'token', data: { index: 1, value: ' so.' } },
      { event: 'done', data: { tokens: 2 } },
    ]);
    expect(await third.next()).toMatchObject({ event: 'position', data: { position: 1 } });
    (await model.next()).finish();
    expect(await second.rest()).toMatchObject([
      { event: 'start' },
      { event: 'token', data: { index: 0, value: 'Because.' } },
      { event: 'done' },
    ]);
    (await model.next()).finish();
    expect((await third.rest()).map(({ event }) => event)).toEqual(['start', 'token', 'done']);
  });

  it('sends positions that only go down, whoever leaves, to a whole line', async () => {
    const { chat } = await startReal({ CHAT_CONCURRENCY: '3' }, { decodeMsPerToken: 1 });
    const tabs = await Promise.all(Array.from({ length: 40 }, () => openTab(chat.url, QUESTION)));
    const all = await Promise.all(tabs.map((tab) => tab.rest()));
    for (const events of all) {
      const order = events.map(({ event }) => event);
      const [start, positions] = [order.indexOf('start'), named(events, 'position')];
      expect(order.slice(0, start)).toEqual(positions.map(() => 'position'));
      expect(order.slice(start + 1, -1)).toEqual(named(events, 'token').map(() => 'token'));
      expect(order.at(-1)).toBe('done');
      const places = positions.map(({ position }) => Number(position));
      expect(places).toEqual([...new Set(places)].toSorted((a, b) => b - a));
      expect(places.every((place) => place >= 1 && place <= 37)).toBe(true);
    }
    expect(all.filter((events) => named(events, 'position').length > 0)).toHaveLength(37);
  });

  it('sends its headers at once to who has to wait', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    await openTab(chat.url, QUESTION);
    await model.next();
    const waiting = await openTab(chat.url, QUESTION);
    expect(waiting.response.status).toBe(200);
    expect(await getJson(chat, `/api/queue/${waiting.id}`)).toMatchObject({ position: 1 });
  });
});

describe('a full line', () => {
  it.each(['/api/chat', '/api/chat/stream'])(
    'refuses with 503 at %s, and tells when to try again and how long it would take',
    async (path) => {
      const { chat, model } = await startScripted({
        CHAT_CONCURRENCY: '1',
        CHAT_MAX_WAITING: '1',
      });
      await warmUp(chat, model);
      const first = await openTab(chat.url, QUESTION);
      const held = await model.next();
      const second = await openTab(chat.url, QUESTION);
      const { status, headers, error } = await failure(await post(chat.url + path, QUESTION));
      expect(status).toBe(503);
      expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
      expect(error).toEqual({
        code: 'ERR_QUEUE_FULL',
        message: 'The line is full: 1 are waiting, at most 1 may.',
        retryAfterMs: expect.any(Number),
        estimatedWaitMs: expect.any(Number),
      });
      expect(chat.stats()).toMatchObject({ active: 1, waiting: 1, refused: 1 });

      held.finish();
      await first.rest();
      const again = await openTab(chat.url, QUESTION);
      expect(await again.next()).toMatchObject({ event: 'position', data: { position: 1 } });
      second.close();
      again.close();
    },
  );

  it('has room for 1000 behind 5', { timeout: 60_000 }, async () => {
    const { chat, model } = await startScripted();
    const leaving = new AbortController();
    const asked = Array.from({ length: 1005 }, () =>
      ask(chat, QUESTION, leaving.signal).catch(() => undefined),
    );
    await until(chat, { active: 5, waiting: 1000, concurrency: 5, maxWaiting: 1000 });
    const { status, error } = await failure(await ask(chat));
    expect([status, error['code']]).toEqual([503, 'ERR_QUEUE_FULL']);
    expect(error['message']).toBe('The line is full: 1000 are waiting, at most 1000 may.');
    expect(model.untaken).toBe(5);
    leaving.abort();
    await Promise.all(asked);
    await until(chat, { active: 0, waiting: 0 });
  });
});

describe('GET /api/queue/:id', () => {
  it('tells the place: in line, being answered, finished, unknown', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    await warmUp(chat, model);
    const first = await openTab(chat.url, QUESTION);
    const held = await model.next();
    const second = await openTab(chat.url, QUESTION);
    const place = (id: string): Promise<unknown> => getJson(chat, `/api/queue/${id}`);

    expect(await place(first.id)).toEqual({
      id: first.id,
      position: 0,
      estimatedWaitMs: 0,
      waitedMs: 0,
      status: 'active',
    });
    expect(await place(second.id)).toEqual({
      id: second.id,
      position: 1,
      estimatedWaitMs: expect.any(Number),
      waitedMs: expect.any(Number),
      status: 'waiting',
    });
    held.finish();
    await first.rest();
    expect(await place(first.id)).toEqual({ id: first.id, position: -1 });
    expect(await place(second.id)).toMatchObject({ position: 0 });
    expect(await place('nobody')).toEqual({ id: 'nobody', position: -2 });
    second.close();
  });
});

describe('DELETE /api/queue/:id', () => {
  async function cancel(chat: ChatServer, id: string): Promise<Response> {
    return fetch(`${chat.url}/api/queue/${id}`, { method: 'DELETE' });
  }

  it('takes who waits out of the line, and tells them', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    const first = await openTab(chat.url, QUESTION);
    await model.next();
    const second = await openTab(chat.url, QUESTION);
    const third = await openTab(chat.url, QUESTION);
    expect(await third.next()).toMatchObject({ data: { position: 2 } });

    const response = await cancel(chat, second.id);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ id: second.id, cancelled: true });
    expect(await second.rest()).toMatchObject([
      { event: 'position', data: { position: 1 } },
      {
        event: 'error',
        data: { code: 'ERR_CANCELLED', message: 'The question was cancelled.' },
      },
    ]);
    expect(await third.next()).toMatchObject({ data: { position: 1 } });
    expect(chat.stats()).toMatchObject({ active: 1, waiting: 1, cancelled: 1 });

    const again = await failure(await cancel(chat, second.id));
    expect([again.status, again.error['code']]).toEqual([409, 'ERR_FINISHED']);
    first.close();
    third.close();
  });

  it('ends an answer that is being written, also at the model', async () => {
    const { chat, model } = await startScripted();
    const tab = await openTab(chat.url, QUESTION);
    const held = await model.next();
    held.token('Well');
    expect(await tab.next()).toMatchObject({ event: 'start' });
    expect(await tab.next()).toMatchObject({ event: 'token' });
    expect((await cancel(chat, tab.id)).status).toBe(200);
    expect(await tab.rest()).toMatchObject([{ event: 'error', data: { code: 'ERR_CANCELLED' } }]);
    await held.closed;
    await until(chat, { active: 0, waiting: 0 });
    expect(errors).not.toHaveBeenCalled();
  });

  it('works for who waits for JSON by the id that they brought', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    const tab = await openTab(chat.url, QUESTION);
    await model.next();
    const askAs = (id: string): Promise<Response> =>
      fetch(`${chat.url}/api/chat`, {
        method: 'POST',
        headers: { 'x-request-id': id },
        body: JSON.stringify(QUESTION),
      });
    const answer = askAs('my-own_id');
    await until(chat, { waiting: 1 });
    expect(await getJson(chat, '/api/queue/my-own_id')).toMatchObject({ position: 1 });
    const twin = await failure(await askAs('my-own_id'));
    expect([twin.status, twin.error['code']]).toEqual([409, 'ERR_DUPLICATE_ID']);

    expect((await cancel(chat, 'my-own_id')).status).toBe(200);
    const { status, error, headers } = await failure(await answer);
    expect([status, error['code']]).toEqual([409, 'ERR_CANCELLED']);
    expect(headers.get('x-request-id')).toBe('my-own_id');
    expect(chat.stats()).toMatchObject({ active: 1, waiting: 0 });
    for (const id of ['a b', 'a'.repeat(65)]) {
      const bad = await failure(await askAs(id));
      expect([bad.status, bad.error['code']]).toEqual([400, 'ERR_BAD_REQUEST']);
    }
    tab.close();
  });

  it('is a 404 for an id that nobody knows', async () => {
    const { chat } = await startScripted();
    const { status, error } = await failure(await cancel(chat, 'nobody'));
    expect([status, error['code']]).toEqual([404, 'ERR_NOT_FOUND']);
  });
});

describe('GET /api/queue/stats', () => {
  it('tells the figures of the line, the estimate and the last minutes', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    await warmUp(chat, model);
    const tab = await openTab(chat.url, QUESTION);
    await model.next();
    expect(await getJson(chat, '/api/queue/stats')).toMatchObject({
      concurrency: 1,
      active: 1,
      waiting: 0,
      maxWaiting: 1000,
      waitingByPriority: [0, 0, 0, 0, 0],
      accepted: 6,
      completed: 5,
      throughputPerSecond: expect.any(Number),
      waitMs: { count: 6, mean: expect.any(Number) },
      estimatedWaitMs: expect.any(Number),
      recent: { everyMs: 2000, active: [0], waiting: [0] },
    });
    tab.close();
  });

  it('has a sample every two seconds, over five minutes', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    try {
      const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
      const tab = await openTab(chat.url, QUESTION);
      await model.next();
      const waiting = await openTab(chat.url, QUESTION);
      vi.advanceTimersByTime(4000);
      expect(chat.stats().recent).toEqual({ everyMs: 2000, active: [0, 1, 1], waiting: [0, 1, 1] });
      vi.advanceTimersByTime(600_000);
      expect(chat.stats().recent.active).toEqual(Array(150).fill(1));
      expect(chat.stats().recent.waiting).toEqual(Array(150).fill(1));
      tab.close();
      waiting.close();
      await chat.close();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('GET /health, the page and everything else', () => {
  it('is well', async () => {
    const { chat } = await startScripted();
    expect(await getJson(chat, '/health')).toEqual({
      status: 'ok',
      uptimeMs: expect.any(Number),
      active: 0,
      waiting: 0,
      concurrency: 5,
      maxWaiting: 1000,
    });
  });

  it.each([
    ['/', 'text/html'],
    ['/?from=here', 'text/html'],
    ['/chat.js', 'text/javascript'],
    ['/style.css', 'text/css'],
  ])('%s is part of the page', async (path, type) => {
    const { chat } = await startScripted();
    const response = await fetch(chat.url + path);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe(`${type}; charset=utf-8`);
    expect(response.headers.get('content-security-policy')).toContain("default-src 'self'");
    const head = await fetch(chat.url + path, { method: 'HEAD' });
    expect([head.status, await head.text()]).toEqual([200, '']);
  });

  it.each([
    ['GET', '/nothing', 404, null],
    ['GET', '/api/queue/', 404, null],
    ['GET', '/api/queue/a%20b', 404, null],
    ['GET', '/../package.json', 404, null],
    ['GET', '/api/chat', 405, 'POST'],
    ['PUT', '/', 405, 'GET'],
    ['POST', '/api/queue/some-id', 405, 'GET, DELETE'],
  ])('%s %s is %i', async (method, path, status, allow) => {
    const { chat } = await startScripted();
    const response = await failure(await fetch(chat.url + path, { method }));
    expect(response.status).toBe(status);
    expect(response.headers.get('allow')).toBe(allow);
    expect(response.error['message']).toMatch(/\.$/);
  });
});

describe('limits on time', () => {
  it('ends an answer that takes too long, here and at the model', async () => {
    const { chat, model } = await startScripted({ CHAT_ANSWER_TIMEOUT_MS: '500' });
    const [json, tab] = await Promise.all([ask(chat), openTab(chat.url, QUESTION)]);
    const { status, error } = await failure(json);
    expect([status, error['code']]).toEqual([504, 'ERR_RUN_TIMEOUT']);
    expect((await tab.rest()).at(-1)).toMatchObject({
      event: 'error',
      data: { code: 'ERR_RUN_TIMEOUT' },
    });
    for (const held of [await model.next(), await model.next()]) await held.closed;
    await until(chat, { active: 0, waiting: 0, timedOut: 2 });
  });

  it('ends a wait that takes too long', async () => {
    const { chat } = await startScripted({ CHAT_CONCURRENCY: '1', CHAT_WAIT_TIMEOUT_MS: '50' });
    const first = await openTab(chat.url, QUESTION);
    const [json, tab] = await Promise.all([ask(chat), openTab(chat.url, QUESTION)]);
    const { status, error } = await failure(json);
    expect([status, error['code']]).toEqual([503, 'ERR_WAIT_TIMEOUT']);
    const events = await tab.rest();
    expect(events[0]).toMatchObject({ event: 'position' });
    expect(events.at(-1)).toMatchObject({ event: 'error', data: { code: 'ERR_WAIT_TIMEOUT' } });
    first.close();
  });

  it('ends a session that takes too long in all', async () => {
    const { chat } = await startScripted({
      CHAT_CONCURRENCY: '1',
      CHAT_SESSION_TIMEOUT_MS: '50',
    });
    const [first, second] = await Promise.all([ask(chat), ask(chat)]);
    for (const { status, error } of [await failure(first), await failure(second)]) {
      expect([status, error['code']]).toEqual([504, 'ERR_SESSION_TIMEOUT']);
    }
    await until(chat, { active: 0, waiting: 0 });
  });
});

describe('a model that fails', () => {
  it('is a 502 with the reason on the console only', async () => {
    const { chat, model } = await startScripted();
    const answer = ask(chat);
    (await model.next()).refuse(500, { error: { message: 'the secret reason' } });
    const { status, error } = await failure(await answer);
    expect(status).toBe(502);
    expect(error).toEqual({ code: 'ERR_MODEL_FAILED', message: 'The model failed.' });
    expect(errors).toHaveBeenCalledExactlyOnceWith(
      'The model failed.',
      expect.stringContaining('the secret reason'),
    );
  });

  it('never looks like an answer that is complete', async () => {
    const { chat, model } = await startScripted();
    for (const breakOff of ['cut', 'end'] as const) {
      const tab = await openTab(chat.url, QUESTION);
      const held = await model.next();
      held.token('It');
      expect(await tab.next()).toMatchObject({ event: 'start' });
      expect(await tab.next()).toMatchObject({ event: 'token' });
      held[breakOff]();
      expect(await tab.rest()).toEqual([
        { event: 'error', data: { code: 'ERR_MODEL_FAILED', message: 'The model failed.' } },
      ]);
    }
    await until(chat, { active: 0, waiting: 0 });
  });

  it('that cannot be reached is a 502, or an error event', async () => {
    const { chat, model } = await startScripted();
    await model.close();
    open.shift();
    const { status, error } = await failure(await ask(chat));
    expect([status, error['code']]).toEqual([502, 'ERR_MODEL_UNREACHABLE']);
    const tab = await openTab(chat.url, QUESTION);
    expect(await tab.rest()).toMatchObject([
      { event: 'start' },
      { event: 'error', data: { code: 'ERR_MODEL_UNREACHABLE' } },
    ]);
  });

  it('that has no room yet is asked again, with the place in line kept', async () => {
    const { chat, model } = await startScripted();
    const answer = ask(chat);
    (await model.next()).refuse(429, {}, { 'retry-after': '1' });
    expect(chat.stats()).toMatchObject({ active: 1 });
    (await model.next()).finish('Here it is.');
    expect(await (await answer).json()).toMatchObject({ answer: 'Here it is.' });
  });

  it('that wants to be left alone for long is a 503 that says so', async () => {
    const { chat, model } = await startScripted();
    const answer = ask(chat);
    for (let i = 0; i < 3; i += 1) {
      (await model.next()).refuse(429, {}, { 'retry-after': '3600' });
    }
    const { status, headers, error } = await failure(await answer);
    expect([status, error['code']]).toEqual([503, 'ERR_MODEL_BUSY']);
    expect(headers.get('retry-after')).toBe('3600');
  });
});

describe('the quota of the model', () => {
  it('holds back what is over it', async () => {
    const { chat, model } = await startScripted({ CHAT_REQUESTS_PER_MINUTE: '10' });
    const first = ask(chat);
    (await model.next()).finish();
    await first;
    // One at once, and then one every 6 to 7 seconds.
    const second = new AbortController();
    const held = ask(chat, QUESTION, second.signal);
    await until(chat, { active: 1 });
    for (let i = 0; i < 5; i += 1) await fetch(`${chat.url}/health`);
    expect(model.untaken).toBe(0);
    second.abort();
    await expect(held).rejects.toThrow('aborted');
    await until(chat, { active: 0 });
  });
});

describe('a visitor who closes the tab', () => {
  it('while waiting leaves the line at once', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    const first = await openTab(chat.url, QUESTION);
    const held = await model.next();
    const json = new AbortController();
    const second = ask(chat, { question: 'JSON?' }, json.signal);
    await until(chat, { waiting: 1 });
    const third = await openTab(chat.url, QUESTION);
    const last = await openTab(chat.url, { question: 'Last?' });
    expect(await last.next()).toMatchObject({ data: { position: 3 } });

    third.close();
    expect(await last.next()).toMatchObject({ data: { position: 2 } });
    json.abort();
    await expect(second).rejects.toThrow('aborted');
    expect(await last.next()).toMatchObject({ data: { position: 1 } });
    expect(chat.stats()).toMatchObject({ active: 1, waiting: 1, cancelled: 2 });
    held.finish();
    expect((await model.next()).question).toBe('Last?');
    first.close();
    last.close();
  });

  it('while tokens flow frees the place and ends the request to the model', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    const first = await openTab(chat.url, QUESTION);
    const held = await model.next();
    const second = await openTab(chat.url, { question: 'Second?' });
    held.token('Well');
    expect(await first.next()).toMatchObject({ event: 'start' });
    expect(await first.next()).toMatchObject({ event: 'token' });
    first.close();
    await held.closed;
    const next = await model.next();
    expect(next.question).toBe('Second?');
    next.finish();
    expect((await second.rest()).at(-1)).toMatchObject({ event: 'done' });
  });

  it('while the model has not said a word frees the place, also without a stream', async () => {
    const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
    const json = new AbortController();
    const answer = ask(chat, QUESTION, json.signal);
    const held = await model.next();
    json.abort();
    await expect(answer).rejects.toThrow('aborted');
    await held.closed;
    await until(chat, { active: 0, waiting: 0, cancelled: 1 });
  });

  it(
    'leaves nothing behind, 200 times: half while waiting, half while tokens flow',
    { timeout: 60_000 },
    async () => {
      // The first token comes at once and the second never: who is not gone would be seen.
      const { chat, model } = await startReal({}, { decodeMsPerToken: 60_000 });
      const leaveOn = async (tab: Tab, name: string): Promise<void> => {
        for (let event = await tab.next(); event?.event !== name; event = await tab.next()) {
          expect(event).toBeDefined();
        }
        tab.close();
      };
      const holders = await Promise.all(
        Array.from({ length: 5 }, () => openTab(chat.url, QUESTION)),
      );
      await until(chat, { active: 5, waiting: 0 });
      const tabs = await Promise.all(
        Array.from({ length: 200 }, () => openTab(chat.url, QUESTION)),
      );
      await until(chat, { active: 5, waiting: 200 });

      const waiting = tabs.filter((_, i) => i % 2 === 0);
      await Promise.all(waiting.map((tab) => leaveOn(tab, 'position')));
      await until(chat, { active: 5, waiting: 100, cancelled: 100 });

      const flowing = tabs.filter((_, i) => i % 2 === 1).map((tab) => leaveOn(tab, 'token'));
      for (const tab of holders) tab.close();
      await Promise.all(flowing);
      await until(chat, { active: 0, waiting: 0, cancelled: 205, completed: 0, failed: 0 });
      await vi.waitFor(
        async () => {
          const health = await fetch(`${model.url}/health`);
          expect(await health.json()).toMatchObject({ active: 0, served: 0 });
        },
        { timeout: 25_000 },
      );
      expect(await getJson(chat, '/health')).toMatchObject({ active: 0, waiting: 0 });
      expect(await getJson(chat, `/api/queue/${tabs[0]?.id}`)).toMatchObject({ position: -1 });
      expect(errors).not.toHaveBeenCalled();
    },
  );
});

describe('startChatServer()', () => {
  it('rejects when the port is taken', async () => {
    const { chat } = await startScripted();
    await expect(startScripted({ CHAT_PORT: String(chat.port) })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });

  describe('.drain()', () => {
    it('finishes what is answered and what waits, and refuses what comes', async () => {
      const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1' });
      const first = await openTab(chat.url, QUESTION);
      const held = await model.next();
      const second = ask(chat);
      await until(chat, { active: 1, waiting: 1 });

      const drained = chat.drain();
      expect(chat.drain()).toBe(drained);
      for (const path of ['/api/chat', '/api/chat/stream']) {
        const { status, error, headers } = await failure(await post(chat.url + path, QUESTION));
        expect([status, error['code']]).toEqual([503, 'ERR_CLOSED']);
        expect(error['message']).toMatch(/shutting down/);
        expect(headers.get('connection')).toBe('close');
      }
      const health = await fetch(`${chat.url}/health`);
      expect(health.status).toBe(503);
      expect(await health.json()).toMatchObject({ status: 'draining', active: 1, waiting: 1 });

      held.finish();
      expect((await first.rest()).at(-1)).toMatchObject({ event: 'done' });
      // Too long for one write: the connection has to stay until all of it is sent.
      const last = 'The last one. '.repeat(400_000);
      (await model.next()).finish(last);
      const { answer } = (await (await second).json()) as Record<string, unknown>;
      expect(answer === last).toBe(true);
      expect(await drained).toMatchObject({ finished: 2, aborted: 0, stuck: [] });
      await expect(fetch(`${chat.url}/health`)).rejects.toThrow('fetch failed');
    });

    it('cuts short what is not finished in time', async () => {
      const { chat, model } = await startScripted({ CHAT_CONCURRENCY: '1', CHAT_DRAIN_MS: '50' });
      const tab = await openTab(chat.url, QUESTION);
      const held = await model.next();
      const json = ask(chat);
      await until(chat, { active: 1, waiting: 1 });
      expect(await chat.drain()).toMatchObject({ finished: 0, aborted: 2, stuck: [] });
      expect((await tab.rest()).at(-1)).toMatchObject({
        event: 'error',
        data: { code: 'ERR_CLOSED' },
      });
      const { status, error } = await failure(await json);
      expect([status, error['code']]).toEqual([503, 'ERR_CLOSED']);
      await held.closed;
    });
  });
});

describe('readSettings()', () => {
  const URL_HERE = 'http://127.0.0.1:8000/v1';

  it('has 5 at once, 1000 in line, and the local model', () => {
    expect(readSettings({}, URL_HERE)).toEqual({
      port: 3000,
      concurrency: 5,
      maxWaiting: 1000,
      requestsPerMinute: 6000,
      maxTokens: 150,
      bodyTimeoutMs: 10_000,
      waitTimeoutMs: 1_800_000,
      answerTimeoutMs: 120_000,
      sessionTimeoutMs: 3_600_000,
      drainMs: 300_000,
      baseURL: URL_HERE,
      apiKey: 'none',
      model: 'trigram',
      stateFile: '',
    });
  });

  it('takes what the environment says, unless it is empty', () => {
    expect(
      readSettings(
        {
          CHAT_CONCURRENCY: '7',
          CHAT_MAX_WAITING: '0',
          CHAT_MAX_TOKENS: '',
          CHAT_MODEL: 'large',
          OPENAI_BASE_URL: 'https://models.test/v1',
          OPENAI_API_KEY: 'open sesame',
        },
        URL_HERE,
      ),
    ).toMatchObject({
      concurrency: 7,
      maxWaiting: 0,
      maxTokens: 150,
      model: 'large',
      baseURL: 'https://models.test/v1',
      apiKey: 'open sesame',
    });
    expect(baseURLIn({ OPENAI_BASE_URL: '' })).toBeUndefined();
  });

  it.each([
    ['CHAT_PORT', '65536', 'Expected CHAT_PORT to be an integer from 0 to 65535, got "65536".'],
    [
      'CHAT_CONCURRENCY',
      '0',
      'Expected CHAT_CONCURRENCY to be an integer from 1 to 1000, got "0".',
    ],
    ['CHAT_CONCURRENCY', '2.5', 'CHAT_CONCURRENCY'],
    ['CHAT_MAX_WAITING', 'many', 'CHAT_MAX_WAITING'],
    ['CHAT_MAX_TOKENS', ' ', 'CHAT_MAX_TOKENS'],
    ['CHAT_REQUESTS_PER_MINUTE', '1', 'CHAT_REQUESTS_PER_MINUTE'],
    ['CHAT_WAIT_TIMEOUT_MS', '-1', 'CHAT_WAIT_TIMEOUT_MS'],
    ['CHAT_ANSWER_TIMEOUT_MS', 'NaN', 'CHAT_ANSWER_TIMEOUT_MS'],
    ['CHAT_SESSION_TIMEOUT_MS', '1e99', 'CHAT_SESSION_TIMEOUT_MS'],
    ['CHAT_BODY_TIMEOUT_MS', '0', 'CHAT_BODY_TIMEOUT_MS'],
    ['CHAT_DRAIN_MS', 'never', 'CHAT_DRAIN_MS'],
    [
      'OPENAI_BASE_URL',
      'models.test',
      'OPENAI_BASE_URL to be an http or https URL, got "models.test".',
    ],
    ['OPENAI_BASE_URL', 'ftp://models.test/v1', 'OPENAI_BASE_URL'],
  ])('refuses %s=%j', (name, value, message) => {
    expect(() => readSettings({ [name]: value }, URL_HERE)).toThrow(message);
  });
});
