import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, it, type Mock, vi } from 'vitest';

import {
  startDocumentServer,
  type DocumentServer,
} from '../../examples/document-service/server.ts';
import { baseURLIn, readSettings } from '../../examples/document-service/settings.ts';
import { startModelServer, type ModelServer } from '../../examples/model-server/server.ts';
import { type Served, serve } from '../support/serve.ts';
import { FABLES } from './fables.ts';
import { type Held, ScriptedModel } from './scripted-model.ts';

type Environment = Readonly<Record<string, string>>;

interface Gauges {
  readonly active: number;
  readonly waiting: number;
}

const TEXT = 'The fox saw the grapes on the vine.';
const FOR_EVER = '3600000';
const NOBODY: readonly Gauges[] = [
  { active: 0, waiting: 0 },
  { active: 0, waiting: 0 },
];

const open: { close(): Promise<unknown> }[] = [];
let errors: Mock<typeof console.error>;

beforeEach(() => {
  errors = vi.spyOn(console, 'error').mockImplementation(() => {});
});

afterEach(async () => {
  // The service before its model.
  for (const server of open.splice(0).toReversed()) await server.close();
  vi.restoreAllMocks();
});

async function startService(baseURL: string, env: Environment = {}): Promise<DocumentServer> {
  const service = await startDocumentServer(readSettings({ DOCUMENT_PORT: '0', ...env }, baseURL));
  open.push(service);
  return service;
}

/** In front of the model server that the repository has. */
async function startReal(
  env: Environment = {},
): Promise<{ service: DocumentServer; model: ModelServer }> {
  const pace = { prefillMsPerToken: 0, decodeMsPerToken: 0, parallel: 10 };
  const model = await startModelServer({ port: 0, corpus: FABLES, ...pace });
  open.push(model);
  return { service: await startService(`${model.url}/v1`, env), model };
}

/** In front of a model that does what the test says. */
async function startScripted(
  env: Environment = {},
): Promise<{ service: DocumentServer; model: ScriptedModel }> {
  const model = await new ScriptedModel().start();
  open.push(model);
  return { service: await startService(model.baseURL, env), model };
}

/** In front of a server that answers in its own way. */
async function startAgainst(
  listener: RequestListener,
  env: Environment = {},
): Promise<{ service: DocumentServer; upstream: Served }> {
  const upstream = await serve(listener);
  open.push({ close: async () => upstream[Symbol.asyncDispose]() });
  return { service: await startService(`${upstream.url}/v1`, env), upstream };
}

function post(service: DocumentServer, text = TEXT, signal?: AbortSignal): Promise<Response> {
  const answer = fetch(`${service.url}/documents`, {
    method: 'POST',
    headers: { 'content-type': 'text/plain' },
    body: text,
    ...(signal && { signal }),
  });
  answer.catch(() => {});
  return answer;
}

function gaugesOf({ documents: { queue, calls } }: DocumentServer): Gauges[] {
  return [queue, calls].map((gate) => {
    const { active, waiting } = gate.stats();
    return { active, waiting };
  });
}

/** Resolves when documents and calls have come to this. */
async function until(service: DocumentServer, gauges: readonly Partial<Gauges>[]): Promise<void> {
  await vi.waitFor(() => expect(gaugesOf(service).slice(0, gauges.length)).toMatchObject(gauges), {
    interval: 1,
    timeout: 25_000,
  });
}

async function codeOf(response: Response): Promise<[status: number, code: string]> {
  const { error } = (await response.json()) as { error: { code: string } };
  return [response.status, error.code];
}

/** Answers the next `count` requests of the model. */
async function serveCalls(model: ScriptedModel, count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) (await model.next()).finish();
}

/** The figure of one line of the metrics. */
async function metric(service: DocumentServer, line: string): Promise<number | undefined> {
  const text = await (await fetch(`${service.url}/metrics`)).text();
  const found = text.split('\n').find((each) => each.startsWith(`${line} `));
  return found === undefined ? undefined : Number(found.slice(line.length));
}

describe('POST /documents', () => {
  it('makes three things of a text, by three calls of the model', async () => {
    const { service, model } = await startReal();
    const response = await post(service);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      id: response.headers.get('x-request-id'),
      points: expect.stringMatching(/\w/),
      summary: expect.stringMatching(/\w/),
      title: expect.stringMatching(/\w/),
      waitedMs: expect.any(Number),
      tookMs: expect.any(Number),
    });
    expect(model.stats()).toMatchObject({ served: 3, rejected: 0 });
    await until(service, NOBODY);
  });

  it('gives each step what the one before it has made', async () => {
    const { service, model } = await startScripted();
    const response = post(service);
    for (const [asked, made] of [
      [TEXT, 'Points.'],
      ['Points.', 'Summary.'],
      ['Summary.', 'Title.'],
    ] as const) {
      const held = await model.next();
      expect(held.question).toBe(asked);
      held.finish(made);
    }
    expect(await (await response).json()).toMatchObject({
      points: 'Points.',
      summary: 'Summary.',
      title: 'Title.',
    });
  });

  it('works on 15 documents with 10 calls, and nobody is left out', async () => {
    const { service, model } = await startScripted();
    const answers = Array.from({ length: 20 }, () => post(service));
    await until(service, [
      { active: 15, waiting: 5 },
      { active: 10, waiting: 5 },
    ]);
    await vi.waitFor(() => expect(model.untaken).toBe(10));
    await serveCalls(model, 60);
    for (const response of answers) expect((await response).status).toBe(200);
    expect(gaugesOf(service)).toEqual(NOBODY);
  });

  it('never has more calls at the model than it may, over connections that are kept open', async () => {
    let now = 0;
    let peak = 0;
    let served = 0;
    const connections = new Set<unknown>();
    const full = Promise.withResolvers<void>();
    const { service } = await startAgainst((request, response) => {
      connections.add(request.socket);
      now += 1;
      peak = Math.max(peak, now);
      if (now === 10) full.resolve();
      request.resume().once('end', () => {
        void full.promise.then(() => {
          now -= 1;
          served += 1;
          response.end(JSON.stringify({ choices: [{ message: { content: 'Because.' } }] }));
        });
      });
    });
    const answers = await Promise.all(Array.from({ length: 40 }, () => post(service)));
    expect(answers.map(({ status }) => status)).toEqual(Array(40).fill(200));
    expect([served, peak]).toEqual([120, 10]);
    expect(connections.size).toBeLessThanOrEqual(11);
  });

  it.each([
    ['no text', { body: '{}', headers: { 'content-type': 'application/json' } }, 415],
    ['nothing', { body: ' ', headers: { 'content-type': 'text/plain' } }, 400],
    ['too much', { body: 'a'.repeat(65_537), headers: { 'content-type': 'text/plain' } }, 413],
    ['an odd charset', { body: 'a', headers: { 'content-type': 'text/plain; charset=odd' } }, 415],
  ])('refuses %s and says why', async (_, init, status) => {
    const { service, model } = await startReal();
    const response = await fetch(`${service.url}/documents`, { method: 'POST', ...init });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: { message: expect.any(String) } });
    expect(model.stats()).toMatchObject({ served: 0 });
  });

  it('is the only thing there but health and metrics', async () => {
    const { service } = await startReal();
    expect(await codeOf(await fetch(`${service.url}/documents`))).toEqual([404, 'ERR_NOT_FOUND']);
  });
});

describe('too many documents', () => {
  it('are refused at once, with a time to come again, while the others are served', async () => {
    const { service, model } = await startScripted();
    // Three times of what it has room for.
    const answers = Array.from({ length: 345 }, () => post(service));
    await until(service, [{ active: 15, waiting: 100 }]);
    await vi.waitFor(() => expect(service.documents.queue.stats().refused).toBe(230), {
      timeout: 25_000,
    });
    // None of those that were taken has got an answer so far: these are the refused ones.
    const first = await Promise.race(answers);
    expect(Number(first.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(await codeOf(first)).toEqual([503, 'ERR_QUEUE_FULL']);
    await serveCalls(model, 115 * 3);
    const statuses = (await Promise.all(answers)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(115);
    expect(statuses.filter((status) => status === 503)).toHaveLength(230);
    expect(gaugesOf(service)).toEqual(NOBODY);
  });

  it('do not wait for ever', async () => {
    const { service, model } = await startScripted({
      DOCUMENT_CONCURRENCY: '1',
      DOCUMENT_WAIT_TIMEOUT_MS: '20',
    });
    const first = post(service);
    const held = await model.next();
    const second = await post(service);
    expect(second.headers.get('retry-after')).toBe('1');
    expect(await codeOf(second)).toEqual([503, 'ERR_WAIT_TIMEOUT']);
    held.finish();
    await serveCalls(model, 2);
    expect((await first).status).toBe(200);
  });
});

describe('a client that vanishes', () => {
  it('leaves the line, or ends the call of the model', async () => {
    const { service, model } = await startScripted({ DOCUMENT_CONCURRENCY: '1' });
    const leaving = [new AbortController(), new AbortController()];
    const answers = [post(service, TEXT, leaving[0]!.signal)];
    const held = await model.next();
    answers.push(post(service, TEXT, leaving[1]!.signal));
    await until(service, [{ active: 1, waiting: 1 }, { active: 1 }]);
    leaving[1]!.abort();
    await until(service, [{ active: 1, waiting: 0 }, { active: 1 }]);
    leaving[0]!.abort();
    await held.closed;
    await until(service, NOBODY);
    expect((await Promise.allSettled(answers)).map(({ status }) => status)).toEqual([
      'rejected',
      'rejected',
    ]);
    expect(errors).not.toHaveBeenCalled();
  });

  it('in the middle of its text leaves nothing behind', async () => {
    const { service } = await startReal();
    const { port } = new URL(service.url);
    const socket = connect(Number(port), '127.0.0.1');
    socket.write(
      'POST /documents HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nHalf',
    );
    await once(socket, 'connect');
    expect((await post(service)).status).toBe(200);
    socket.destroy();
    expect((await post(service)).status).toBe(200);
    expect(service.documents.queue.stats()).toMatchObject({ accepted: 2, active: 0, waiting: 0 });
    expect(errors).not.toHaveBeenCalled();
  });

  it('is no loss to the others, however many there are', async () => {
    const { service, model } = await startScripted();
    const leaving = new AbortController();
    const gone = Array.from({ length: 60 }, () => post(service, TEXT, leaving.signal));
    await until(service, [
      { active: 15, waiting: 45 },
      { active: 10, waiting: 5 },
    ]);
    const stays = post(service, 'I stay.');
    await until(service, [{ active: 15, waiting: 46 }]);
    leaving.abort();
    await Promise.allSettled(gone);
    await until(service, [
      { active: 1, waiting: 0 },
      { active: 1, waiting: 0 },
    ]);
    let held: Held;
    do held = await model.next();
    while (held.question !== 'I stay.');
    held.finish();
    await serveCalls(model, 2);
    expect((await stays).status).toBe(200);
    await until(service, NOBODY);
  });
});

describe('a model that', () => {
  /** What the second of three calls comes to. */
  const faults: [name: string, fault: (held: Held) => void, status: number, code: string][] = [
    ['resets the connection', (held) => held.cut(), 502, 'ERR_MODEL_FAILED'],
    ['answers with 500', (held) => held.refuse(500), 502, 'ERR_MODEL_FAILED'],
    [
      'sends half an answer',
      (held) => {
        held.token('Half');
        held.cut();
      },
      502,
      'ERR_MODEL_FAILED',
    ],
    [
      'sends garbage',
      (held) => {
        held.token('Garbage');
        held.end();
      },
      502,
      'ERR_MODEL_FAILED',
    ],
    ['has nothing to say', (held) => held.refuse(200, { choices: [] }), 502, 'ERR_MODEL_FAILED'],
    [
      'has no room for long',
      (held) => held.refuse(429, {}, { 'retry-after': '60' }),
      503,
      'ERR_MODEL_BUSY',
    ],
  ];

  it.each(faults)('%s: the caller is told, and nothing is left', async (_, fault, status, code) => {
    const { service, model } = await startScripted();
    const response = post(service);
    await serveCalls(model, 1);
    fault(await model.next());
    expect((await response).headers.get('retry-after')).toBe(status === 503 ? '60' : null);
    expect(await codeOf(await response)).toEqual([status, code]);
    await until(service, NOBODY);
    expect(errors).toHaveBeenCalledTimes(status === 502 ? 1 : 0);
    const next = post(service);
    await serveCalls(model, 3);
    expect((await next).status).toBe(200);
  });

  it('hangs is given up after a time, and nothing is left', async () => {
    const { service, model } = await startScripted({ DOCUMENT_MODEL_TIMEOUT_MS: '50' });
    const response = post(service);
    const held = await model.next();
    expect(await codeOf(await response)).toEqual([504, 'ERR_MODEL_TIMEOUT']);
    await held.closed;
    await until(service, NOBODY);
  });

  it('is not there is told', async () => {
    const { service, model } = await startScripted();
    await model.close();
    expect(await codeOf(await post(service))).toEqual([502, 'ERR_MODEL_FAILED']);
    await until(service, NOBODY);
    open.splice(0, 1);
  });

  it('is slow in all may take so long for one document', async () => {
    const { service, model } = await startScripted({ DOCUMENT_TIMEOUT_MS: '50' });
    const response = post(service);
    const held = await model.next();
    expect(await codeOf(await response)).toEqual([504, 'ERR_RUN_TIMEOUT']);
    await held.closed;
    await until(service, NOBODY);
  });

  it('has no room is asked again when it says so', async () => {
    const { service, model } = await startScripted();
    const response = post(service);
    const held = await model.next();
    const refusedAt = performance.now();
    held.refuse(429, {}, { 'retry-after-ms': '200' });
    await serveCalls(model, 1);
    expect(performance.now() - refusedAt).toBeGreaterThan(199);
    await serveCalls(model, 2);
    expect((await response).status).toBe(200);
    expect(service.documents.model.quota.stats()).toMatchObject({ granted: 4, active: 0 });
  });

  it('never has room is asked five times', async () => {
    const { service, model } = await startScripted();
    const response = post(service);
    for (let i = 0; i < 5; i += 1) {
      (await model.next()).refuse(429, {}, { 'retry-after-ms': '5' });
    }
    expect(await codeOf(await response)).toEqual([503, 'ERR_MODEL_BUSY']);
    expect(model.untaken).toBe(0);
    await until(service, NOBODY);
  });
});

describe('GET /health', () => {
  async function startCounting(
    env: Environment,
  ): Promise<{ service: DocumentServer; asked: (string | undefined)[]; fail: () => void }> {
    const asked: (string | undefined)[] = [];
    let status = 200;
    const { service } = await startAgainst((request: IncomingMessage, response: ServerResponse) => {
      asked.push(request.url);
      response.writeHead(status).end('{}');
    }, env);
    return { service, asked, fail: () => (status = 500) };
  }

  it('tells what there is room for', async () => {
    const { service, model } = await startScripted();
    const response = post(service);
    const held = await model.next();
    const health = (await (await fetch(`${service.url}/health`)).json()) as object;
    expect(health).toMatchObject({
      parts: {
        documents: { concurrency: 15, maxWaiting: 100, active: 1, waiting: 0 },
        calls: { capacity: 10, available: 9, active: 1, waiting: 0 },
        quota: { limits: [{ limit: 5400, burst: 600 }] },
      },
    });
    held.finish();
    await serveCalls(model, 2);
    await response;
  });

  it('asks the model once, however often it is asked itself', async () => {
    const { service, asked } = await startCounting({ DOCUMENT_HEALTH_TTL_MS: FOR_EVER });
    const get = (): Promise<Response> => fetch(`${service.url}/health`);
    const answers = [...(await Promise.all([get(), get(), get()])), await get()];
    for (const response of answers) {
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({
        status: 'ok',
        parts: { model: { tookMs: expect.any(Number) } },
      });
    }
    expect(asked).toEqual(['/v1/models']);
  });

  it('asks it again when that was too long ago', async () => {
    const { service, asked, fail } = await startCounting({ DOCUMENT_HEALTH_TTL_MS: '0' });
    expect((await fetch(`${service.url}/health`)).status).toBe(200);
    fail();
    const ill = await fetch(`${service.url}/health`);
    expect(ill.status).toBe(503);
    expect(await ill.json()).toMatchObject({
      status: 'failing',
      parts: { model: { error: 'STATUS_500' }, documents: { active: 0 } },
    });
    expect(asked).toHaveLength(2);
  });

  it('does not wait for a model that hangs, nor ask it again and again', async () => {
    let asked = 0;
    const { service } = await startAgainst(() => (asked += 1), {
      DOCUMENT_HEALTH_TIMEOUT_MS: '20',
      DOCUMENT_HEALTH_TTL_MS: FOR_EVER,
    });
    for (let i = 0; i < 3; i += 1) {
      const response = await fetch(`${service.url}/health`);
      expect(response.status).toBe(503);
      expect(await response.json()).toMatchObject({ parts: { model: { error: 'TimeoutError' } } });
    }
    expect(asked).toBe(1);
  });
});

describe('GET /metrics', () => {
  it('tells in the format of Prometheus what has happened', async () => {
    const { service, model } = await startScripted({
      DOCUMENT_CONCURRENCY: '1',
      DOCUMENT_MAX_WAITING: '1',
    });
    const first = post(service);
    const held = await model.next();
    const leaving = new AbortController();
    void post(service, TEXT, leaving.signal);
    await until(service, [{ active: 1, waiting: 1 }]);
    expect((await post(service)).status).toBe(503);
    const response = await fetch(`${service.url}/metrics`);
    expect(response.headers.get('content-type')).toContain('text/plain; version=0.0.4');
    expect(await response.text()).toContain('# TYPE sluice_wait_seconds histogram');
    expect(await metric(service, 'sluice_active{gate="documents"}')).toBe(1);
    expect(await metric(service, 'sluice_waiting{gate="documents"}')).toBe(1);
    expect(await metric(service, 'sluice_capacity{gate="calls"}')).toBe(10);
    expect(
      await metric(service, 'sluice_refused_total{gate="documents",code="ERR_QUEUE_FULL"}'),
    ).toBe(1);
    leaving.abort();
    await until(service, [{ active: 1, waiting: 0 }]);
    held.finish();
    await serveCalls(model, 2);
    await (await first).text();
    const failed = post(service);
    (await model.next()).refuse(500);
    await (await failed).text();

    for (const [line, figure] of [
      ['sluice_left_total{gate="documents",outcome="cancelled"}', 1],
      ['sluice_wait_seconds_count{gate="documents"}', 2],
      ['sluice_run_seconds_count{gate="documents",outcome="completed"}', 1],
      ['sluice_run_seconds_count{gate="documents",outcome="failed"}', 1],
      ['sluice_run_seconds_count{gate="calls",outcome="released"}', 4],
      ['sluice_wait_seconds_count{gate="quota"}', 4],
      ['sluice_active{gate="calls"}', 0],
      ['sluice_rate_limit{gate="quota",limit="default"}', 5400],
      ['sluice_rate_debt{gate="quota",limit="default"}', 0],
    ] as const) {
      expect(await metric(service, line), line).toBe(figure);
    }
    const available = 'sluice_rate_available{gate="quota",limit="default"}';
    expect(await metric(service, available)).toBeGreaterThanOrEqual(596);
  });
});

describe('the service', () => {
  it('finishes what it has taken when it is to end, and takes no more', async () => {
    const { service, model } = await startScripted({ DOCUMENT_CONCURRENCY: '1' });
    const answers = [post(service)];
    const held = await model.next();
    answers.push(post(service));
    await until(service, [{ active: 1, waiting: 1 }]);
    const drained = service.drain();
    expect(await codeOf(await post(service))).toEqual([503, 'ERR_CLOSED']);
    held.finish();
    await serveCalls(model, 5);
    for (const response of answers) expect((await response).status).toBe(200);
    await drained;
    await expect(fetch(`${service.url}/health`)).rejects.toThrow('fetch failed');
  });

  it.each([
    [
      { DOCUMENT_CONCURRENCY: '0' },
      'DOCUMENT_CONCURRENCY to be an integer from 1 to 1000, got "0"',
    ],
    [{ DOCUMENT_MODEL_CALLS: '1.5' }, 'DOCUMENT_MODEL_CALLS to be an integer'],
    [{ DOCUMENT_TIMEOUT_MS: ' ' }, 'DOCUMENT_TIMEOUT_MS to be an integer'],
    [{ OPENAI_BASE_URL: 'ftp://x' }, 'OPENAI_BASE_URL to be an http or https URL, got "ftp://x"'],
  ])('does not start with %j', (env, message) => {
    expect(() => readSettings(env, 'http://127.0.0.1/v1')).toThrow(message);
  });

  it('has a standard for every setting, and none of an empty one', () => {
    const settings = readSettings({ DOCUMENT_CONCURRENCY: '', OPENAI_BASE_URL: '' }, 'http://x/v1');
    expect(settings).toMatchObject({ documents: 15, modelCalls: 10, baseURL: 'http://x/v1' });
    expect(baseURLIn({ OPENAI_BASE_URL: 'https://api.example.com/v1' })).toBe(
      'https://api.example.com/v1',
    );
  });
});

describe('start.ts', () => {
  const START = fileURLToPath(new URL('../../examples/document-service/start.ts', import.meta.url));

  it('serves until Ctrl-C', { timeout: 60_000 }, async () => {
    const child = spawn(process.execPath, [START, '--port', '0'], {
      env: { PATH: process.env['PATH'], DOCUMENT_MAX_TOKENS: '5' },
    });
    const exit = once(child, 'exit');
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    try {
      const url = await vi.waitFor(() => /^Documents +(http:\S+)$/m.exec(out)![1]!, {
        timeout: 25_000,
      });
      const headers = { 'content-type': 'text/plain' };
      const response = await fetch(url, { method: 'POST', headers, body: TEXT });
      expect(await response.json()).toMatchObject({ title: expect.stringMatching(/\w/) });
      const metrics = await (await fetch(new URL('/metrics', url))).text();
      expect(metrics).toContain('process_cpu_seconds_total');
      child.kill('SIGINT');
      expect(await exit).toEqual([0, null]);
      expect(out).toMatch(/^Finishing: 0 are being worked on, 0 are in line\.\nFinished\.$/m);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
