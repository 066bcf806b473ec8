import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text as readText } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, it, type Mock, vi } from 'vitest';

import { type ClassificationApi, startApi } from '../../examples/classification-api/api.ts';
import { NaiveBayes } from '../../examples/classification-api/bayes.ts';
import { startClassifier } from '../../examples/classification-api/classifier.ts';
import { readSettings } from '../../examples/classification-api/settings.ts';
import { type HeldTexts, ScriptedClassifier } from './scripted-classifier.ts';

type Environment = Readonly<Record<string, string>>;

const open: { close(): Promise<unknown> }[] = [];
let errors: Mock<typeof console.error>;

beforeEach(() => {
  errors = vi.spyOn(console, 'error').mockImplementation(() => {});
});

afterEach(async () => {
  // The model first: whoever still waits for it is told so.
  for (const server of open.splice(0)) await server.close();
  vi.restoreAllMocks();
});

async function startBefore(url: string, env: Environment): Promise<ClassificationApi> {
  const api = await startApi(readSettings({ CLASSIFY_PORT: '0', ...env }, url));
  open.push(api);
  return api;
}

async function startScripted(
  env: Environment = {},
): Promise<{ api: ClassificationApi; model: ScriptedClassifier }> {
  const model = await new ScriptedClassifier().start();
  open.push(model);
  return { api: await startBefore(model.url, env), model };
}

function post(
  { url }: ClassificationApi,
  path = '/classify',
  body: unknown = { text: path },
  { key, signal }: { key?: string; signal?: AbortSignal } = {},
): Promise<Response> {
  return fetch(url + path, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(key !== undefined && { authorization: `Bearer ${key}` }),
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal && { signal }),
  });
}

async function queueHealth({ url }: ClassificationApi): Promise<Record<string, unknown>> {
  const response = await fetch(`${url}/queue/health`);
  return { httpStatus: response.status, ...((await response.json()) as object) };
}

async function codeOf(response: Response): Promise<string> {
  return ((await response.json()) as { error: { code: string } }).error.code;
}

/** Resolves when the line has come to this. */
async function until(api: ClassificationApi, gauges: object): Promise<void> {
  await vi.waitFor(() => expect(api.stats()).toMatchObject(gauges), {
    interval: 1,
    timeout: 25_000,
  });
}

describe('POST /classify, /moderate, /explain and /classify/batch', () => {
  it('tell what a text is about', async () => {
    const classifier = await startClassifier({ port: 0, serviceMs: 0 });
    open.push(classifier);
    const api = await startBefore(classifier.url, {});
    const permit = 'A permit is released: a semaphore hands permits on by their weights.';
    const bucket = 'How many tokens of the burst does a lease refund, and per which interval?';
    expect(await (await post(api, '/classify', { text: permit })).json()).toEqual({
      label: 'semaphore',
      probability: expect.any(Number),
    });
    expect(await (await post(api, '/explain', { text: bucket })).json()).toMatchObject({
      label: 'rate-limiter',
      words: expect.arrayContaining(['lease']),
    });
    const batch = await post(api, '/classify/batch', { texts: [bucket, permit] });
    expect(await batch.json()).toMatchObject({
      results: [{ label: 'rate-limiter' }, { label: 'semaphore' }],
    });
    const verdicts = await Promise.all(
      [permit, 'Zzz qqq.'].map(async (text) => (await post(api, '/moderate', { text })).json()),
    );
    expect(verdicts).toEqual([{ onTopic: true }, { onTopic: false }]);
    expect(classifier.stats()).toMatchObject({ active: 0, served: 5, aborted: 0 });
  });

  it('are never with the model more often than there are workers', async () => {
    const { api, model } = await startScripted({ CLASSIFY_WORKERS: '4' });
    const answers = Array.from({ length: 6 }, () => post(api));
    const held = [model.next(), model.next(), model.next(), model.next()];
    await until(api, { active: 4, waiting: 2 });
    const [first, ...others] = await Promise.all(held);
    expect(model.untaken).toBe(0);
    first!.finish();
    others.push(await model.next());
    expect(model.untaken).toBe(0);
    for (const each of others) each.finish();
    (await model.next()).finish();
    const statuses = (await Promise.all(answers)).map(({ status }) => status);
    expect(statuses).toEqual([200, 200, 200, 200, 200, 200]);
  });

  it('go by the priority of their route, health checks first', async () => {
    const { api, model } = await startScripted({ CLASSIFY_WORKERS: '1' });
    const answers = [post(api, '/classify', { text: 'first' })];
    const first = await model.next();
    const later: (() => Promise<Response>)[] = [
      () => post(api, '/classify/batch', { texts: ['5'] }),
      () => post(api, '/explain', { text: '4' }),
      () => post(api, '/classify', { text: '3' }),
      () => post(api, '/moderate', { text: '2' }),
      () => fetch(`${api.url}/health`),
    ];
    for (const [waiting, send] of later.entries()) {
      answers.push(send());
      await until(api, { waiting: waiting + 1 });
    }
    expect(api.stats().waitingByPriority).toEqual([1, 1, 1, 1, 1]);
    first.finish();
    for (const texts of [['Is anybody there?'], ['2'], ['3'], ['4'], ['5']]) {
      const held = await model.next();
      expect(held.texts).toEqual(texts);
      held.finish();
    }
    const statuses = (await Promise.all(answers)).map(({ status }) => status);
    expect(statuses).toEqual([200, 200, 200, 200, 200, 200]);
  });

  it.each<[why: string, path: string, body: unknown, status: number]>([
    ['no text', '/classify', {}, 400],
    ['a text that is none', '/classify', { text: 7 }, 400],
    ['an empty text', '/explain', { text: '' }, 400],
    ['a long text', '/moderate', { text: 'x'.repeat(8193) }, 400],
    ['too many texts', '/classify/batch', { texts: Array.from({ length: 21 }, () => 'x') }, 400],
    ['no JSON', '/classify', '{"text":', 400],
    ['far too much', '/classify', { text: 'x'.repeat(300_000) }, 413],
    ['another path', '/classifier', { text: 'x' }, 404],
  ])('refuse %s, and say why', async (_, path, body, status) => {
    const { api, model } = await startScripted();
    const response = await post(api, path, body);
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({
      error: { code: expect.any(String), message: expect.any(String) },
    });
    expect(model.untaken).toBe(0);
  });
});

describe('Overload', () => {
  it('is answered with 503 and Retry-After when the line is full, and the others are served', async () => {
    const { api, model } = await startScripted({
      CLASSIFY_WORKERS: '1',
      CLASSIFY_MAX_WAITING: '2',
    });
    const accepted = [post(api)];
    const first = await model.next();
    accepted.push(post(api), post(api));
    await until(api, { active: 1, waiting: 2 });
    const refused = await post(api);
    expect(refused.status).toBe(503);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(await codeOf(refused)).toBe('ERR_QUEUE_FULL');
    expect(await queueHealth(api)).toMatchObject({ httpStatus: 503, status: 'full', waiting: 2 });
    first.finish();
    (await model.next()).finish();
    (await model.next()).finish();
    const statuses = (await Promise.all(accepted)).map(({ status }) => status);
    expect(statuses).toEqual([200, 200, 200]);
    await until(api, { active: 0, waiting: 0, completed: 3, refused: 1 });
  });

  it('is answered with 429 and Retry-After over the limit on all, whoever it is', async () => {
    const { api } = await startScripted({
      CLASSIFY_PER_SECOND: '1',
      CLASSIFY_BURST: '2',
      CLASSIFY_KEYS: 'ada=a,bob=b,eve=e',
    });
    // Two are refused for what they send: the limits come first.
    const responses = await Promise.all(
      ['a', 'b', 'e'].map((key) => post(api, '/classify', {}, { key })),
    );
    const limited = responses.filter(({ status }) => status === 429);
    expect(limited).toHaveLength(1);
    expect(limited[0]!.headers.get('retry-after')).toBe('1');
    expect(limited[0]!.headers.get('ratelimit')).toBe('"all";r=0;t=1');
    expect(await codeOf(limited[0]!)).toBe('ERR_RATE_LIMITED');
  });

  it('by one user is refused to that user', async () => {
    const { api } = await startScripted({
      CLASSIFY_USER_PER_SECOND: '1',
      CLASSIFY_USER_BURST: '1',
      CLASSIFY_KEYS: 'ada=a,bob=b',
    });
    const [others, ...own] = await Promise.all(
      ['b', 'a', 'a'].map((key) => post(api, '/classify', {}, { key })),
    );
    expect(others!.status).toBe(400);
    const limited = own.filter(({ status }) => status === 429);
    expect(limited).toHaveLength(1);
    expect(limited[0]!.headers.get('ratelimit')).toBe('"user";r=0;t=1');
    expect(await queueHealth(api)).toMatchObject({ rate: { users: 2 } });
  });

  it('takes nothing from a user whom the limit on all has refused', async () => {
    const { api } = await startScripted({
      CLASSIFY_PER_SECOND: '1',
      CLASSIFY_BURST: '1',
      CLASSIFY_USER_PER_SECOND: '1',
      CLASSIFY_USER_BURST: '2',
    });
    const responses = await Promise.all(
      Array.from({ length: 4 }, () => post(api, '/classify', {})),
    );
    const limits = responses.map(({ headers }) => headers.get('ratelimit'));
    expect(limits.filter((limit) => limit === '"all";r=0;t=1')).toHaveLength(3);
  });

  it('does not get in the way of /queue/health', async () => {
    const { api, model } = await startScripted({
      CLASSIFY_WORKERS: '1',
      CLASSIFY_MAX_WAITING: '1',
      CLASSIFY_PER_SECOND: '1',
      CLASSIFY_BURST: '2',
    });
    const answers = [post(api)];
    const held = await model.next();
    answers.push(post(api));
    await until(api, { waiting: 1 });
    expect((await post(api)).status).toBe(429);
    expect(await queueHealth(api)).toMatchObject({ status: 'full', rate: { available: 0 } });
    held.finish();
    (await model.next()).finish();
    await Promise.all(answers);
  });
});

describe('Users', () => {
  it.each<[why: string, key: string | undefined]>([
    ['without a key', undefined],
    ['with a key that is not known', 'c'],
  ])('%s are told so', async (_, key) => {
    const { api } = await startScripted({ CLASSIFY_KEYS: 'ada=a' });
    const response = await post(api, '/classify', { text: 'x' }, key === undefined ? {} : { key });
    expect(response.status).toBe(401);
    expect(await codeOf(response)).toBe('ERR_UNAUTHORIZED');
  });

  it('beyond those that can be told apart are refused while the others are in use', async () => {
    const { api } = await startScripted({ CLASSIFY_MAX_USERS: '1', CLASSIFY_KEYS: 'a=a,b=b' });
    expect((await post(api, '/classify', {}, { key: 'a' })).status).toBe(400);
    const response = await post(api, '/classify', {}, { key: 'b' });
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(await codeOf(response)).toBe('ERR_KEYS_FULL');
  });
});

describe('A client that leaves', () => {
  it('gives up its place in line, or with the model, whose request is ended', async () => {
    const { api, model } = await startScripted({ CLASSIFY_WORKERS: '1' });
    const [working, waiting] = [new AbortController(), new AbortController()];
    const answers = [post(api, '/classify', { text: 'working' }, { signal: working.signal })];
    const held = await model.next();
    answers.push(post(api, '/classify', { text: 'waiting' }, { signal: waiting.signal }));
    const outcomes = Promise.allSettled(answers);
    await until(api, { waiting: 1 });
    waiting.abort();
    await until(api, { active: 1, waiting: 0, cancelled: 1 });
    working.abort();
    await held.closed;
    await until(api, { active: 0, waiting: 0, cancelled: 2 });
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(model.untaken).toBe(0);
    expect(errors).not.toHaveBeenCalled();
  });

  it('is no reason to end the requests of the others', async () => {
    const { api, model } = await startScripted({ CLASSIFY_WORKERS: '2' });
    const leaving = new AbortController();
    const gone = post(api, '/classify', { text: 'gone' }, { signal: leaving.signal }).catch(
      (error: unknown) => error,
    );
    const first = await model.next();
    const stays = post(api, '/classify', { text: 'stays' });
    const second = await model.next();
    leaving.abort();
    expect(await gone).toMatchObject({ name: 'AbortError' });
    await first.closed;
    second.finish();
    expect((await stays).status).toBe(200);
  });
});

describe('A model', () => {
  it('that hangs is given up after the time for a request, in line or not', async () => {
    const { api, model } = await startScripted({
      CLASSIFY_WORKERS: '1',
      CLASSIFY_TIMEOUT_MS: '50',
    });
    const answers = [post(api), post(api)];
    await (
      await model.next()
    ).closed;
    for (const response of await Promise.all(answers)) {
      expect(response.status).toBe(504);
      expect(await codeOf(response)).toBe('ERR_SESSION_TIMEOUT');
    }
    await until(api, { active: 0, waiting: 0 });
  });

  it.each<[how: string, fail: (held: HeldTexts) => void]>([
    ['resets the connection', ({ response }) => response.destroy()],
    ['answers with 500', ({ response }) => response.writeHead(500).end('oops')],
    ['answers with garbage', ({ response }) => response.end('data: <html>\n\n')],
    ['answers with other JSON', ({ response }) => response.end('{"results":[{"label":7}]}')],
    ['answers for other texts', ({ response }) => response.end('{"results":[]}')],
    [
      'breaks off in the middle',
      ({ response }) => {
        response.writeHead(200, { 'content-length': 1000 });
        response.write('{"results":[{"label":"sem', () => response.destroy());
      },
    ],
  ])('that %s has failed, and the next request is served', async (_, fail) => {
    const { api, model } = await startScripted({ CLASSIFY_WORKERS: '1' });
    const answers = [post(api)];
    const held = await model.next();
    answers.push(post(api));
    await until(api, { waiting: 1 });
    fail(held);
    (await model.next()).finish();
    const [failed, served] = await Promise.all(answers);
    expect(failed!.status).toBe(502);
    expect(await codeOf(failed!)).toBe('ERR_MODEL_FAILED');
    expect(served!.status).toBe(200);
    await until(api, { active: 0, waiting: 0, failed: 1, completed: 1 });
    // The cause is for whoever runs the server.
    expect(errors).toHaveBeenCalledExactlyOnceWith('The model failed.', expect.any(String));
  });

  it('that is not there has failed', async () => {
    const model = await new ScriptedClassifier().start();
    const { url } = model;
    await model.close();
    const api = await startBefore(url, {});
    expect((await post(api)).status).toBe(502);
    const health = await fetch(`${api.url}/health`);
    expect(health.status).toBe(503);
    expect(await health.json()).toMatchObject({
      status: 'failing',
      parts: { model: { error: 'ERR_MODEL_FAILED' } },
    });
  });
});

describe('GET /health', () => {
  it('asks the model once for all who ask at the time', async () => {
    const { api, model } = await startScripted();
    const checks = [fetch(`${api.url}/health`)];
    const held = await model.next();
    checks.push(fetch(`${api.url}/health`), fetch(`${api.url}/health`));
    // Answered behind them, as connections go.
    await queueHealth(api);
    expect(model.untaken).toBe(0);
    held.finish();
    // One that came late has asked again.
    const late = model.next().then((next) => next.finish());
    const responses = await Promise.all(checks);
    for (const response of responses) {
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({
        status: 'ok',
        parts: { model: { ok: true }, sessions: { closed: false } },
      });
    }
    await fetch(`${api.url}/health`);
    await late;
  });
});

describe('GET /queue/health', () => {
  it('tells gauges, totals and mean times', async () => {
    const { api, model } = await startScripted({ CLASSIFY_WORKERS: '1' });
    expect(await queueHealth(api)).toEqual({
      httpStatus: 200,
      status: 'ok',
      workers: 1,
      active: 0,
      waiting: 0,
      waitingByPriority: [0, 0, 0, 0, 0],
      maxWaiting: 1000,
      estimatedWaitMs: 0,
      totals: { completed: 0, failed: 0, cancelled: 0, timedOut: 0, refused: 0 },
      meanWaitMs: null,
      meanRunMs: null,
      rate: { available: 200, users: 0 },
    });
    const answers = [post(api)];
    const first = await model.next();
    answers.push(post(api));
    await until(api, { waiting: 1 });
    expect(await queueHealth(api)).toMatchObject({ httpStatus: 200, status: 'busy', active: 1 });
    first.finish();
    (await model.next()).response.writeHead(500).end();
    await Promise.all(answers);
    await until(api, { active: 0 });
    expect(await queueHealth(api)).toMatchObject({
      status: 'ok',
      totals: { completed: 1, failed: 1 },
      meanWaitMs: expect.any(Number),
      meanRunMs: expect.any(Number),
    });
  });
});

describe('A shutdown', () => {
  it('refuses who comes, and completes what was accepted', async () => {
    const { api, model } = await startScripted({ CLASSIFY_WORKERS: '1' });
    const accepted = [post(api)];
    const first = await model.next();
    accepted.push(post(api));
    await until(api, { waiting: 1 });
    const closed = api.close();
    await vi.waitFor(async () => {
      expect(await queueHealth(api)).toMatchObject({ httpStatus: 503, status: 'draining' });
    });
    const late = await post(api);
    expect(late.status).toBe(503);
    expect(late.headers.get('retry-after')).toBe('1');
    expect(late.headers.get('connection')).toBe('close');
    expect(await codeOf(late)).toBe('ERR_CLOSED');
    first.finish();
    (await model.next()).finish();
    const statuses = (await Promise.all(accepted)).map(({ status }) => status);
    expect(statuses).toEqual([200, 200]);
    expect(await closed).toMatchObject({ finished: 2, aborted: 0, stuck: [] });
    await expect(fetch(`${api.url}/queue/health`)).rejects.toThrow('fetch failed');
  });

  it('cuts what takes longer than it may', async () => {
    const { api, model } = await startScripted({ CLASSIFY_DRAIN_MS: '20' });
    const answer = post(api);
    const held = await model.next();
    const report = await api.close();
    await held.closed;
    expect(report).toMatchObject({ finished: 0, aborted: 1, stuck: [] });
    expect((await answer).status).toBe(503);
    expect(api.stats()).toMatchObject({ active: 0, waiting: 0 });
  });
});

describe('readSettings()', () => {
  it('has defaults for everything', () => {
    expect(readSettings({}, 'http://model')).toMatchObject({
      workers: 50,
      maxWaiting: 1000,
      perSecond: 100,
      burst: 200,
      timeoutMs: 30_000,
      modelURL: 'http://model',
      users: new Map(),
    });
  });

  it.each<[env: Environment, message: string]>([
    [
      { CLASSIFY_WORKERS: '0' },
      'Expected CLASSIFY_WORKERS to be an integer from 1 to 10000, got "0".',
    ],
    [
      { CLASSIFY_BURST: ' ' },
      'Expected CLASSIFY_BURST to be an integer from 1 to 1000000, got " ".',
    ],
    [{ CLASSIFY_KEYS: 'ada' }, 'Expected CLASSIFY_KEYS to be like `ada=key,bob=key`.'],
    [{ CLASSIFY_MODEL_URL: 'ftp://x' }, 'Expected CLASSIFY_MODEL_URL to be a URL, got "ftp://x".'],
  ])('refuses %j', (env, message) => {
    expect(() => readSettings(env, '')).toThrow(message);
  });
});

describe('NaiveBayes', () => {
  const model = new NaiveBayes([
    { label: 'fox', text: 'The fox saw grapes. Sour grapes!' },
    { label: 'crow', text: 'The crow dropped the cheese.' },
  ]);

  it('takes the label under which the words are likeliest', () => {
    expect(model.labels).toEqual(['fox', 'crow']);
    expect(model.classify('Grapes, or cheese? GRAPES!')).toEqual({
      label: 'fox',
      // 9 (3/14)² (1/14) to (1/13)² (2/13) of 8 different words: see the formula.
      probability: expect.closeTo(9 / 14 ** 3 / (9 / 14 ** 3 + 2 / 13 ** 3), 10),
      words: ['grapes'],
    });
  });

  it('is of no opinion about words that it does not know', () => {
    expect(model.classify('Zzz.')).toMatchObject({ probability: 0.5, words: [] });
  });

  it('needs two labels', () => {
    expect(() => new NaiveBayes([{ label: 'one', text: 'text' }])).toThrow(RangeError);
  });
});

describe('start.ts', () => {
  const START = fileURLToPath(
    new URL('../../examples/classification-api/start.ts', import.meta.url),
  );

  function start(...args: string[]): ReturnType<typeof spawn> {
    return spawn(process.execPath, [START, ...args], {
      env: { PATH: process.env['PATH'], CLASSIFY_PORT: '0' },
    });
  }

  it('serves until Ctrl-C', { timeout: 60_000 }, async () => {
    const child = start('--service-ms', '0');
    let out = '';
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => (out += chunk));
    const exit = once(child, 'exit');
    await vi.waitFor(() => expect(out).toContain('Ctrl-C'), { timeout: 20_000 });
    const [, url] = /^API +(http:\S+)$/m.exec(out)!;
    expect((await fetch(`${url}/health`)).status).toBe(200);
    child.kill('SIGINT');
    expect(await exit).toEqual([0, null]);
    expect(out).toMatch(/^Finished: 0 by themselves, 0 cut short\.$/m);
  });

  it.each<[args: string[], message: RegExp]>([
    [['--service-ms', 'x'], /^Expected --service-ms to be an integer from 0 to 60000, got "x"\.$/m],
    [['--speed', '1'], /^Unknown option '--speed'/m],
  ])('refuses %j', async (args, message) => {
    const child = start(...args);
    const [err, [code]] = await Promise.all([readText(child.stderr!), once(child, 'exit')]);
    expect(code).toBe(1);
    expect(err).toMatch(message);
  });
});
