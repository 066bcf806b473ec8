import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import OpenAI from 'openai';
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  it,
  type Mock,
  vi,
} from 'vitest';

import {
  startEmbeddingServer,
  type EmbeddingServer,
} from '../../examples/embedding-service/server.ts';
import { readSettings } from '../../examples/embedding-service/settings.ts';
import { FABLES } from './fables.ts';

type Environment = Readonly<Record<string, string>>;

interface Failure {
  readonly error: { readonly code: string };
}

/** What never comes to an end by itself. */
const FOR_EVER = '3600000';
/** Long enough for everybody to arrive meanwhile, on a machine with much else to do. */
const A_WHILE = '1000';

const servers: EmbeddingServer[] = [];
let corpus: string;
let errors: Mock<typeof console.error>;

beforeAll(async () => {
  corpus = await mkdtemp(join(tmpdir(), 'fables-'));
  await writeFile(join(corpus, 'fables.md'), FABLES.join('\n\n'));
});

afterAll(() => rm(corpus, { recursive: true }));

beforeEach(() => {
  errors = vi.spyOn(console, 'error').mockImplementation(() => {});
});

afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  vi.restoreAllMocks();
});

async function start(env: Environment = {}): Promise<EmbeddingServer> {
  const server = await startEmbeddingServer(
    readSettings({
      EMBEDDING_PORT: '0',
      EMBEDDING_CORPUS: corpus,
      EMBEDDING_LOAD_MS: '0',
      EMBEDDING_USE_MS: '0',
      ...env,
    }),
  );
  servers.push(server);
  return server;
}

function post(server: EmbeddingServer, path: string, body: unknown = {}): Promise<Response> {
  return fetch(server.url + path, { method: 'POST', body: JSON.stringify(body) });
}

function patch(server: EmbeddingServer, body: unknown): Promise<Response> {
  return fetch(`${server.url}/model`, { method: 'PATCH', body: JSON.stringify(body) });
}

/** One text, and how to leave. */
function ask(
  server: EmbeddingServer,
  input: unknown,
): { answer: Promise<Response>; leave(): void } {
  const leaving = new AbortController();
  const answer = fetch(`${server.url}/v1/embeddings`, {
    method: 'POST',
    body: JSON.stringify({ input }),
    signal: leaving.signal,
  });
  answer.catch(() => {});
  return { answer, leave: () => leaving.abort() };
}

async function until(server: EmbeddingServer, gauges: object): Promise<void> {
  await vi.waitFor(() => expect(server.stats()).toMatchObject(gauges), {
    interval: 1,
    timeout: 25_000,
  });
}

async function codeOf(response: Response): Promise<[status: number, code: string]> {
  return [response.status, ((await response.json()) as Failure).error.code];
}

describe('POST /v1/embeddings', () => {
  it('embeds texts for the real openai client, close ones close together', async () => {
    const server = await start();
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
    const input = [
      'The fox wanted the cheese.',
      'What the fox wanted was the cheese.',
      'The tortoise slept by the road.',
    ];
    const { data, model } = await client.embeddings.create({ model: 'any', input });
    const [one, close, far] = data.map(({ embedding }) => embedding) as [
      number[],
      number[],
      number[],
    ];
    const dot = (other: number[]): number =>
      one.reduce((sum, value, index) => sum + value * other[index]!, 0);
    expect(model).toBe('trained');
    expect(one).toHaveLength(256);
    expect(dot(one)).toBeCloseTo(1, 5);
    expect(dot(close)).toBeGreaterThan(dot(far) + 0.3);
    await until(server, { active: 0, waiting: 0, loads: 1 });
  });

  it('gives the same vector in both encodings and in every process', async () => {
    const body = { input: 'The fox saw the grapes.' };
    const [plain, packed] = await Promise.all(
      [body, { ...body, encoding_format: 'base64' }].map(async (each) => {
        const response = await post(await start(), '/v1/embeddings', each);
        const { data } = (await response.json()) as { data: { embedding: number[] | string }[] };
        return data[0]!.embedding;
      }),
    );
    const bytes = new Uint8Array(Buffer.from(packed as string, 'base64'));
    expect([...new Float32Array(bytes.buffer)]).toEqual(plain);
  });

  it.each([
    ['no JSON', '{', /JSON/],
    ['no object', '[]', /object/],
    ['nothing', '{}', /`input`/],
    ['an empty text', '{"input":""}', /`input`/],
    ['no text', '{"input":[]}', /`input`/],
    ['a number', '{"input":["a",1]}', /`input`/],
    ['a long text', JSON.stringify({ input: 'a'.repeat(8193) }), /8192/],
    ['many texts', JSON.stringify({ input: Array.from({ length: 65 }, () => 'a') }), /64/],
    ['another encoding', '{"input":"a","encoding_format":"hex"}', /`encoding_format`/],
  ])('refuses %s and says what is wrong', async (_, body, message) => {
    const server = await start();
    const response = await fetch(`${server.url}/v1/embeddings`, { method: 'POST', body });
    expect(response.status).toBe(400);
    expect(await response.text()).toMatch(message);
    expect(server.stats().loads).toBe(0);
  });

  it('minds no client that leaves in the middle of its request', async () => {
    const server = await start();
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
    socket.write('POST /v1/embeddings HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{"inp');
    await once(socket, 'connect');
    expect((await ask(server, 'one').answer).status).toBe(200);
    socket.destroy();
    expect((await ask(server, 'two').answer).status).toBe(200);
    expect(server.stats()).toMatchObject({ acquired: 2, active: 0, waiting: 0 });
    expect(errors).not.toHaveBeenCalled();
  });

  it('refuses a body that is far too long, and what is nowhere', async () => {
    const server = await start();
    const body = 'a'.repeat(200_000);
    const long = await fetch(`${server.url}/v1/embeddings`, { method: 'POST', body });
    expect(await codeOf(long)).toEqual([413, 'ERR_TOO_LARGE']);
    expect(await codeOf(await fetch(`${server.url}/v1/embeddings`))).toEqual([
      404,
      'ERR_NOT_FOUND',
    ]);
  });
});

describe('while the model loads', () => {
  it('everybody waits for one load', async () => {
    const server = await start({ EMBEDDING_LOAD_MS: A_WHILE });
    const answers = Array.from({ length: 30 }, (_, i) => ask(server, `text ${i}`).answer);
    await until(server, { loading: true, loaded: false, active: 0, waiting: 30 });
    const statuses = (await Promise.all(answers)).map(({ status }) => status);
    expect(statuses).toEqual(Array(30).fill(200));
    expect(server.stats()).toMatchObject({ active: 0, waiting: 0, loads: 1, loaded: true });
  });

  it('who leaves does so at once, and the load goes on for the others', async () => {
    const server = await start({ EMBEDDING_LOAD_MS: FOR_EVER });
    const callers = ['one', 'two', 'three'].map((each) => ask(server, each));
    await until(server, { waiting: 3 });
    callers[0]!.leave();
    await until(server, { waiting: 2, texts: 2, loading: true });
    callers[1]!.leave();
    callers[2]!.leave();
    await until(server, { active: 0, waiting: 0, texts: 0, cancelled: 3 });
    expect(server.stats()).toMatchObject({ loading: true, loads: 1, acquired: 0 });
  });

  it('cancelling it answers everybody, and the next caller starts anew', async () => {
    const server = await start({ EMBEDDING_LOAD_MS: FOR_EVER });
    const waiting = ['one', 'two'].map((each) => ask(server, each).answer);
    await until(server, { waiting: 2 });
    expect(await (await post(server, '/model/cancel')).json()).toEqual({ cancelled: true });
    for (const answer of waiting) {
      const response = await answer;
      expect(response.headers.get('retry-after')).toBe('1');
      expect(await codeOf(response)).toEqual([503, 'ERR_LOAD_CANCELLED']);
    }
    expect(await (await post(server, '/model/cancel')).json()).toEqual({ cancelled: false });
    await patch(server, { loadMs: 0 });
    expect((await ask(server, 'one').answer).status).toBe(200);
    expect(server.stats()).toMatchObject({ active: 0, waiting: 0, loads: 2 });
  });

  it('nobody waits longer than the access timeout', async () => {
    const server = await start({
      EMBEDDING_LOAD_MS: FOR_EVER,
      EMBEDDING_ACCESS_TIMEOUT_MS: '20',
    });
    expect(await codeOf(await ask(server, 'one').answer)).toEqual([503, 'ERR_WAIT_TIMEOUT']);
    expect(server.stats()).toMatchObject({ waiting: 0, timedOut: 1, loading: true });
  });

  it('a load that hangs is over after its timeout, for which the fallback stands in', async () => {
    const server = await start({ EMBEDDING_LOAD_MS: FOR_EVER, EMBEDDING_LOAD_TIMEOUT_MS: '20' });
    const response = await ask(server, 'one').answer;
    expect(await response.json()).toMatchObject({ model: 'plain' });
    expect(server.stats()).toMatchObject({ loads: 2, loadFailures: 1, loaded: true });
  });

  it('without a fallback, everybody is told that it took too long', async () => {
    const server = await start({
      EMBEDDING_LOAD_MS: FOR_EVER,
      EMBEDDING_LOAD_TIMEOUT_MS: '20',
      EMBEDDING_FALLBACK: 'none',
    });
    const answers = await Promise.all(['one', 'two'].map((each) => ask(server, each).answer));
    for (const answer of answers) expect(await codeOf(answer)).toEqual([503, 'ERR_LOAD_TIMEOUT']);
    expect(server.stats()).toMatchObject({ active: 0, waiting: 0, loaded: false });
  });

  it('preloading answers when it is there', async () => {
    const server = await start();
    const response = await post(server, '/model/preload');
    expect([response.status, await response.json()]).toMatchObject([
      200,
      { loaded: true, loads: 1 },
    ]);
  });
});

describe('a model that cannot be loaded', () => {
  const nowhere = { EMBEDDING_CORPUS: '/nowhere' };

  it('is stood in for, and the reason logged', async () => {
    const server = await start(nowhere);
    const response = await ask(server, 'one').answer;
    expect(await response.json()).toMatchObject({ model: 'plain' });
    expect(errors).toHaveBeenCalledWith(
      'The model cannot be loaded.',
      expect.stringContaining('ENOENT'),
    );
  });

  it('without a fallback, gives everybody an honest answer, and is tried again', async () => {
    const server = await start({ ...nowhere, EMBEDDING_FALLBACK: 'none' });
    for (const loads of [1, 2]) {
      const response = await ask(server, 'one').answer;
      expect(response.headers.get('retry-after')).toBe('5');
      expect(await codeOf(response)).toEqual([503, 'ERR_MODEL_UNAVAILABLE']);
      expect(server.stats()).toMatchObject({ active: 0, waiting: 0, loads });
    }
  });
});

describe('the users of the model', () => {
  it('are ten at once, and the others wait until one leaves', async () => {
    const server = await start({ EMBEDDING_USE_MS: FOR_EVER });
    const callers = Array.from({ length: 12 }, (_, i) => ask(server, `text ${i}`));
    await until(server, { active: 10, waiting: 2 });
    expect(server.stats()).toMatchObject({ maxUsers: 10, acquired: 10, queued: 12, texts: 12 });
    for (const { leave } of callers.slice(0, 3)) leave();
    await until(server, { active: 9, waiting: 0 });
    for (const { leave } of callers) leave();
    await until(server, { active: 0, waiting: 0, texts: 0 });
  });

  it('are as many as has been said while it runs', async () => {
    const server = await start({
      EMBEDDING_USE_MS: FOR_EVER,
      EMBEDDING_MAX_USERS: '1',
      EMBEDDING_MAX_WAITING: '3',
    });
    const callers = Array.from({ length: 4 }, (_, i) => ask(server, `text ${i}`));
    await until(server, { active: 1, waiting: 3 });
    const response = await patch(server, { maxUsers: 3 });
    expect(await response.json()).toMatchObject({ active: 3, waiting: 1, maxUsers: 3 });
    callers.push(ask(server, 'one more'), ask(server, 'another one'));
    await until(server, { active: 3, waiting: 3 });
    expect(await codeOf(await ask(server, 'too many').answer)).toEqual([503, 'ERR_QUEUE_FULL']);
    for (const { leave } of callers) leave();
    await until(server, { active: 0, waiting: 0 });
  });

  it.each([
    [{ maxUsers: 0 }, '`maxUsers` to be an integer from 1 to 1000, got 0'],
    [{ loadMs: '5' }, 'got \\"5\\"'],
    [{ corpus: '/etc' }, 'got \\"corpus\\"'],
  ])('cannot be changed to %j', async (body, message) => {
    const server = await start();
    const response = await patch(server, body);
    expect(response.status).toBe(400);
    expect(await response.text()).toContain(message);
    expect(server.stats().maxUsers).toBe(10);
  });

  it('one too many is refused at once, while the line is full', async () => {
    const server = await start({
      EMBEDDING_USE_MS: FOR_EVER,
      EMBEDDING_MAX_USERS: '1',
      EMBEDDING_MAX_WAITING: '2',
    });
    const callers = Array.from({ length: 3 }, (_, i) => ask(server, `text ${i}`));
    await until(server, { active: 1, waiting: 2 });
    for (let i = 0; i < 20; i += 1) {
      const response = await ask(server, `late ${i}`).answer;
      expect(response.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
      expect(await codeOf(response)).toEqual([503, 'ERR_QUEUE_FULL']);
    }
    expect(server.stats()).toMatchObject({ active: 1, waiting: 2, turnedAway: 20 });
    for (const { leave } of callers) leave();
    await until(server, { active: 0, waiting: 0, texts: 0 });
  });

  it('of many texts in one request leave together when one of them is refused', async () => {
    const server = await start({
      EMBEDDING_USE_MS: FOR_EVER,
      EMBEDDING_MAX_USERS: '1',
      EMBEDDING_MAX_WAITING: '1',
    });
    const { answer } = ask(server, ['one', 'two', 'three']);
    expect(await codeOf(await answer)).toEqual([503, 'ERR_QUEUE_FULL']);
    await until(server, { active: 0, waiting: 0, texts: 0 });
  });
});

describe('callers with the same text', () => {
  it('share one use of the model', async () => {
    const server = await start({ EMBEDDING_LOAD_MS: A_WHILE });
    const answers = Array.from({ length: 10 }, () => ask(server, 'the same').answer);
    await until(server, { waiting: 1, texts: 1, joined: 9 });
    const bodies = await Promise.all((await Promise.all(answers)).map((each) => each.text()));
    expect(new Set(bodies).size).toBe(1);
    expect(server.stats()).toMatchObject({ acquired: 1, active: 0, waiting: 0, texts: 0 });
    // Later on it is made anew.
    await (await ask(server, 'the same').answer).text();
    expect(server.stats()).toMatchObject({ acquired: 2, joined: 9 });
  });

  it('leave one by one, and the use ends with the last of them', async () => {
    const server = await start({ EMBEDDING_USE_MS: FOR_EVER });
    const callers = Array.from({ length: 3 }, () => ask(server, 'the same'));
    await until(server, { active: 1, joined: 2 });
    callers[0]!.leave();
    await expect(callers[0]!.answer).rejects.toThrow(/abort/);
    callers[1]!.leave();
    const later = ask(server, 'the same');
    await until(server, { active: 1, joined: 3 });
    callers[2]!.leave();
    later.leave();
    await until(server, { active: 0, waiting: 0, texts: 0 });
  });
});

describe('POST /model/reload', () => {
  it('serves the old one until the new one is there', async () => {
    const server = await start();
    await ask(server, 'one').answer;
    await patch(server, { loadMs: Number(A_WHILE) });
    const reloaded = post(server, '/model/reload');
    await until(server, { loading: true, loaded: true });
    expect((await ask(server, 'meanwhile').answer).status).toBe(200);
    expect(server.stats().loading).toBe(true);
    expect((await reloaded).status).toBe(200);
    await until(server, { loads: 2, disposed: 1, active: 0 });
  });

  it('leaves the old one in its place when it fails or is cancelled', async () => {
    const server = await start();
    await ask(server, 'one').answer;
    await patch(server, { loadMs: 3_600_000, loadTimeoutMs: 20 });
    expect(await codeOf(await post(server, '/model/reload'))).toEqual([503, 'ERR_LOAD_TIMEOUT']);
    await patch(server, { loadTimeoutMs: 300_000 });
    const reloaded = post(server, '/model/reload');
    await until(server, { loading: true });
    await post(server, '/model/cancel');
    expect(await codeOf(await reloaded)).toEqual([503, 'ERR_LOAD_CANCELLED']);
    const response = await ask(server, 'two').answer;
    expect(await response.json()).toMatchObject({ model: 'trained' });
  });
});

describe('the service', () => {
  it('tells how it is', async () => {
    const server = await start();
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json()]).toMatchObject([
      200,
      { status: 'ok', parts: { model: { active: 0, waiting: 0, maxUsers: 10, maxWaiting: 100 } } },
    ]);
    const stats = await fetch(`${server.url}/model`);
    expect(await stats.json()).toMatchObject({ loaded: false, loads: 0, loadMs: { count: 0 } });
  });

  it('lets those finish who use the model, and sends the others away', async () => {
    const server = await start({ EMBEDDING_USE_MS: A_WHILE, EMBEDDING_MAX_USERS: '1' });
    await post(server, '/model/preload');
    const used = ask(server, 'one').answer;
    await until(server, { active: 1 });
    const waits = ask(server, 'two').answer;
    await until(server, { waiting: 1 });
    const drained = server.drain();
    expect(await codeOf(await waits)).toEqual([503, 'ERR_CLOSED']);
    expect(await codeOf(await ask(server, 'three').answer)).toEqual([503, 'ERR_CLOSED']);
    expect((await fetch(`${server.url}/health`)).status).toBe(503);
    expect((await used).status).toBe(200);
    await drained;
    expect(server.stats()).toMatchObject({ active: 0, waiting: 0, loaded: false, closed: true });
  });

  it.each([
    [{ EMBEDDING_MAX_USERS: '0' }, 'EMBEDDING_MAX_USERS to be an integer from 1 to 1000, got "0"'],
    [{ EMBEDDING_LOAD_MS: 'soon' }, 'EMBEDDING_LOAD_MS to be an integer'],
    [{ EMBEDDING_FALLBACK: 'yes' }, 'EMBEDDING_FALLBACK to be plain or none, got "yes"'],
  ])('does not start with %j', (env, message) => {
    expect(() => readSettings(env)).toThrow(message);
  });
});

describe('start.ts', () => {
  const START = fileURLToPath(
    new URL('../../examples/embedding-service/start.ts', import.meta.url),
  );

  const DECISIONS = fileURLToPath(new URL('../../docs/decisions', import.meta.url));

  it('shows what the service does, and ends', { timeout: 60_000 }, async () => {
    const child = spawn(process.execPath, [START], {
      env: { PATH: process.env['PATH'], EMBEDDING_LOAD_MS: A_WHILE, EMBEDDING_USE_MS: '10' },
    });
    const exit = once(child, 'exit');
    const [out] = await Promise.all([text(child.stdout), exit]);
    expect(child.exitCode).toBe(0);
    expect(out).toMatch(/^30 callers +loading true: 0 use it, 21 wait, 9 share$/m);
    expect(out).toMatch(/1 load of .* s, 30 answers$/m);
    expect(out).toMatch(/^300 at once +\d+ answered, \d+ told to come again\b/m);
    expect(out).toMatch(/^Cancel +the reload is answered with 503/m);
    expect(out).toMatch(/^Fallback .*: 200, by the model "plain"$/m);
  });

  it.each([
    ['loads take little time', { EMBEDDING_LOAD_MS: '0', EMBEDDING_CORPUS: DECISIONS }],
    ['nothing can be loaded', { EMBEDDING_CORPUS: '/nowhere' }],
  ])('ends where %s, too', { timeout: 60_000 }, async (_, env) => {
    const child = spawn(process.execPath, [START], {
      env: { PATH: process.env['PATH'], EMBEDDING_USE_MS: '1', ...env },
    });
    const exit = once(child, 'exit');
    const [out] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
    expect(child.exitCode).toBe(0);
    expect(out).toMatch(/^Configure /m);
    expect(out).toMatch(/^Fallback .*: 200, by the model "plain"$/m);
  });

  it.each([
    [['--help'], 0, /^Usage: /],
    [['--port', '-1', '--serve'], 1, /^Option '--port' argument is ambiguous|^Expected/],
    [['--port=x'], 1, /^Expected EMBEDDING_PORT .*, got "x"\.$/m],
  ])('%j ends with %i and says why', async (args, code, message) => {
    const child = spawn(process.execPath, [START, ...args], { env: { PATH: process.env['PATH'] } });
    const exit = once(child, 'exit');
    const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
    expect(child.exitCode).toBe(code);
    expect(out + err).toMatch(message);
  });
});
