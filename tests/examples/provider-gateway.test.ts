import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text as readText } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import OpenAI, { APIError } from 'openai';
import type { ChatCompletionCreateParamsNonStreaming } from 'openai/resources/chat/completions';
import type { SessionRecord } from 'sluice';
import { afterEach, beforeEach, describe, expect, it, type Mock, vi } from 'vitest';

import { startModelServer, type ModelServer } from '../../examples/model-server/server.ts';
import { type GatewayServer, startGateway } from '../../examples/provider-gateway/server.ts';
import { readSettings } from '../../examples/provider-gateway/settings.ts';
import { FABLES } from './fables.ts';
import { type Held, ScriptedModel } from './scripted-model.ts';

type Environment = Readonly<Record<string, string>>;

const open: { close(): Promise<unknown> }[] = [];
let errors: Mock<typeof console.error>;

beforeEach(() => {
  errors = vi.spyOn(console, 'error').mockImplementation(() => {});
});

afterEach(async () => {
  // The providers first: whoever still waits for them is told so.
  for (const server of open.splice(0)) await server.close();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

interface Scripted {
  readonly server: GatewayServer;
  readonly client: OpenAI;
  readonly fast: ScriptedModel;
  readonly slow: ScriptedModel;
}

async function start(
  env: Environment,
  baseURLs: { readonly fast: string; readonly slow: string },
): Promise<{ readonly server: GatewayServer; readonly client: OpenAI }> {
  const server = await startGateway(readSettings({ GATEWAY_PORT: '0', ...env }, baseURLs));
  open.push(server);
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
  return { server, client };
}

/** Behind it are providers that do what the test says. */
async function startScripted(env: Environment = {}): Promise<Scripted> {
  const [fast, slow] = await Promise.all([
    new ScriptedModel().start(),
    new ScriptedModel().start(),
  ]);
  open.push(fast, slow);
  return { ...(await start(env, { fast: fast.baseURL, slow: slow.baseURL })), fast, slow };
}

/** Behind it are the providers that the example starts, in a hurry. */
async function startReal(
  env: Environment = {},
  parallel = 10,
): Promise<{ client: OpenAI; server: GatewayServer; models: ModelServer[] }> {
  const options = { port: 0, prefillMsPerToken: 0, corpus: FABLES, parallel };
  const models = await Promise.all([
    startModelServer({ ...options, decodeMsPerToken: 0.5 }),
    startModelServer({ ...options, decodeMsPerToken: 2 }),
  ]);
  open.push(...models);
  const [fast, slow] = models.map(({ url }) => `${url}/v1`);
  return { ...(await start(env, { fast: fast!, slow: slow! })), models };
}

function body(
  content = 'What did the fox see?',
  more: Partial<ChatCompletionCreateParamsNonStreaming> = {},
): ChatCompletionCreateParamsNonStreaming {
  return { model: 'short', messages: [{ role: 'user', content }], ...more };
}

/** A whole answer, or what the client throws. */
function ask(
  { client }: Pick<Scripted, 'client'>,
  ...given: Parameters<typeof body>
): Promise<OpenAI.ChatCompletion | APIError> {
  return client.chat.completions.create(body(...given)).catch((error: unknown) => {
    if (error instanceof APIError) return error;
    throw error;
  });
}

function contentOf(answer: OpenAI.ChatCompletion | APIError): string | null | undefined {
  if (answer instanceof APIError) throw answer;
  return answer.choices[0]?.message.content;
}

/** A streamed answer that is read piece by piece. */
async function openStream(
  { client }: Pick<Scripted, 'client'>,
  {
    signal,
    ...given
  }: Partial<ChatCompletionCreateParamsNonStreaming> & {
    readonly signal?: AbortSignal;
  } = {},
): Promise<{ response: Response; next: () => Promise<string | undefined> }> {
  const { data, response } = await client.chat.completions
    .create({ ...body(undefined, given), stream: true }, { signal })
    .withResponse();
  const chunks = data[Symbol.asyncIterator]();
  const next = async (): Promise<string | undefined> => {
    for (;;) {
      const { done, value } = await chunks.next();
      if (done === true) return undefined;
      const content = value.choices[0]?.delta.content;
      if (content) return content;
    }
  };
  return { response, next };
}

async function recordsOf({ server }: Pick<Scripted, 'server'>): Promise<SessionRecord[]> {
  return (await (await fetch(`${server.url}/sessions`)).json()) as SessionRecord[];
}

/** Resolves when nobody is with a provider or in line for one. */
async function untilIdle({ server }: Pick<Scripted, 'server'>): Promise<void> {
  await vi.waitFor(
    () => {
      const { sessions, providers } = server.gateway.health();
      expect([sessions.active, ...providers.map(({ active }) => active)]).toEqual([0, 0, 0]);
      expect(providers.map(({ waiting }) => waiting)).toEqual([0, 0]);
    },
    { interval: 1, timeout: 25_000 },
  );
}

async function until(
  { server }: Pick<Scripted, 'server'>,
  name: string,
  health: object,
): Promise<void> {
  await vi.waitFor(
    () => {
      const { providers } = server.gateway.health();
      expect(providers.find((provider) => provider.name === name)).toMatchObject(health);
    },
    { interval: 1, timeout: 25_000 },
  );
}

describe('The real client', () => {
  it('reads a stream that is the same as the whole answer, in a session of which headers tell', async () => {
    const { client, server } = await startReal();
    const { data: whole, response } = await client.chat.completions
      .create(body(undefined, { seed: 7 }))
      .withResponse();
    expect(whole).toMatchObject({
      model: 'short',
      choices: [{ finish_reason: expect.any(String), message: { role: 'assistant' } }],
      usage: { completion_tokens: expect.any(Number) },
    });
    const stream = await openStream({ client }, { seed: 7 });
    const parts: string[] = [];
    for (let part = await stream.next(); part !== undefined; part = await stream.next()) {
      parts.push(part);
    }
    expect(parts.join('')).toBe(contentOf(whole));
    for (const { headers } of [response, stream.response]) {
      expect(Object.fromEntries(headers)).toMatchObject({
        'x-request-id': expect.stringMatching(/^[\da-f-]{36}$/),
        'x-session-id': expect.any(String),
        'x-session-provider': 'fast',
        'x-session-model': 'short',
        'x-session-attempt': '1',
        'server-timing': expect.stringMatching(/^received;dur=0, allocated;dur=\d+, callStart;/),
      });
    }
    await untilIdle({ server });
    expect((await recordsOf({ server })).map(({ id }) => id)).toEqual([
      stream.response.headers.get('x-session-id'),
      response.headers.get('x-session-id'),
    ]);
  });

  it('lists the models, and is told of one that there is not', async () => {
    const { client } = await startScripted();
    const { data } = await client.models.list();
    expect(data.map(({ id }) => id)).toEqual(['short', 'long']);
    const unknown = await ask({ client }, 'Why?', { model: 'gpt' });
    expect(unknown).toMatchObject({ status: 404, code: 'model_not_found' });
  });

  it('is answered or refused at once when three times as much comes as there is room for', async () => {
    const { client, server, models } = await startReal({
      GATEWAY_FAST_CONCURRENCY: '1',
      GATEWAY_FAST_MAX_WAITING: '1',
      GATEWAY_SLOW_CONCURRENCY: '2',
      GATEWAY_SLOW_MAX_WAITING: '1',
    });
    const answers = await Promise.all(Array.from({ length: 15 }, () => ask({ client })));
    const refused = answers.filter((answer) => answer instanceof APIError);
    expect(answers.length - refused.length).toBeGreaterThanOrEqual(5);
    for (const { status, code, headers } of refused) {
      expect([status, code]).toEqual([503, 'ERR_QUEUE_FULL']);
      expect(Number(headers?.get('retry-after'))).toBeGreaterThanOrEqual(1);
    }
    expect(models.map((model) => model.stats().peak)).toEqual([1, 2]);
    await untilIdle({ server });
  });
});

describe('Failover', () => {
  it('asks the second provider when the first has no room in its line', async () => {
    const gateway = await startScripted({
      GATEWAY_FAST_CONCURRENCY: '1',
      GATEWAY_FAST_MAX_WAITING: '0',
    });
    const first = ask(gateway, 'First?');
    const held = await gateway.fast.next();
    const second = ask(gateway, 'Second?');
    (await gateway.slow.next()).finish('Slowly.');
    expect(contentOf(await second)).toBe('Slowly.');
    held.finish('Fast.');
    expect(contentOf(await first)).toBe('Fast.');
    expect(gateway.fast.untaken).toBe(0);
  });

  it.each<[how: string, fail: (held: Held) => void, code: string]>([
    ['refuses it', (held) => held.refuse(429, {}, { 'retry-after': '7' }), 'ERR_PROVIDER_BUSY'],
    ['answers with 500', (held) => held.refuse(500), 'ERR_PROVIDER_FAILED'],
    ['resets the connection', (held) => held.cut(), 'ERR_PROVIDER_FAILED'],
    ['sends garbage', (held) => held.write('data: {"choices":[{"del\n\n'), 'ERR_PROVIDER_FAILED'],
    [
      'sends something else',
      (held) => {
        held.write('<html>Sorry</html>');
        held.end();
      },
      'ERR_PROVIDER_FAILED',
    ],
    [
      'sends an error in its stream',
      (held) => held.write('data: {"error":{"message":"no"}}\n\n'),
      'ERR_PROVIDER_FAILED',
    ],
    [
      'breaks off before it begins',
      (held) => {
        held.write(': soon\n\n');
        held.cut();
      },
      'ERR_PROVIDER_FAILED',
    ],
    ['sends nothing', () => {}, 'ERR_PROVIDER_SLOW'],
    ['sends nothing but comments', (held) => held.write(': soon\n\n'), 'ERR_PROVIDER_SLOW'],
  ])('asks the second provider when the first %s', async (_, fail, code) => {
    const gateway = await startScripted({ GATEWAY_FIRST_TOKEN_MS: '1000' });
    const answer = openStream(gateway);
    const held = await gateway.fast.next();
    fail(held);
    const second = await gateway.slow.next();
    second.finish();
    const { response, next } = await answer;
    expect(response.headers.get('x-session-provider')).toBe('slow');
    expect(response.headers.get('x-session-attempt')).toBe('2');
    expect([await next(), await next()]).toEqual(['Because.', undefined]);
    await held.closed;
    await untilIdle(gateway);
    const requestId = response.headers.get('x-request-id');
    expect(await recordsOf(gateway)).toMatchObject([
      { requestId, provider: 'slow', status: 'completed', metadata: { attempt: 2 } },
      { requestId, provider: 'fast', status: 'failed', error: { code }, metadata: { attempt: 1 } },
    ]);
  });

  it('tells the refusal that ends the soonest when all refuse', async () => {
    const gateway = await startScripted();
    const answer = ask(gateway);
    (await gateway.fast.next()).refuse(429, {}, { 'retry-after': '7' });
    (await gateway.slow.next()).refuse(429, {}, { 'retry-after': '9' });
    const error = await answer;
    expect(error).toMatchObject({ status: 503, code: 'ERR_PROVIDER_BUSY', type: 'server_error' });
    expect((error as APIError).headers?.get('retry-after')).toBe('7');
    await untilIdle(gateway);
  });

  it('is not for what no provider would answer', async () => {
    const gateway = await startScripted();
    const answer = ask(gateway);
    (await gateway.fast.next()).refuse(400, { error: { message: 'n is too large' } });
    expect(await answer).toMatchObject({
      status: 400,
      code: 'ERR_BAD_REQUEST',
      message: expect.stringContaining('n is too large'),
    });
    expect(gateway.slow.untaken).toBe(0);
    await untilIdle(gateway);
  });
});

describe('An answer that has begun', () => {
  it.each<[how: string, fail: (held: Held) => void]>([
    ['is cut', (held) => held.cut()],
    ['ends without an end', (held) => held.end()],
    ['goes on with garbage', (held) => held.write('data: {"choices":[{"del\n\n')],
  ])('and %s is told as an error, and not asked for again', async (_, fail) => {
    const gateway = await startScripted();
    const opened = openStream(gateway);
    const held = await gateway.fast.next();
    held.token('Bec');
    const { next } = await opened;
    expect(await next()).toBe('Bec');
    fail(held);
    await expect(next()).rejects.toThrow(APIError);
    expect(gateway.slow.untaken).toBe(0);
    await untilIdle(gateway);
  });

  it('and ends without an end is no whole one', async () => {
    const gateway = await startScripted();
    const answer = ask(gateway);
    const held = await gateway.fast.next();
    held.token('Bec');
    held.end();
    expect(await answer).toMatchObject({ status: 502, code: 'ERR_PROVIDER_FAILED' });
    expect(gateway.slow.untaken).toBe(0);
    await untilIdle(gateway);
  });

  it('and hangs is ended when the time of its provider and model is over', async () => {
    const gateway = await startScripted({ GATEWAY_FAST_SHORT_TIMEOUT_MS: '1500' });
    const [short, long] = [openStream(gateway), openStream(gateway, { model: 'long' })];
    const helds = [await gateway.fast.next(), await gateway.fast.next()];
    for (const held of helds) held.token('Bec');
    const streams = await Promise.all([short, long]);
    for (const { next } of streams) expect(await next()).toBe('Bec');
    await expect(streams[0].next()).rejects.toMatchObject({ code: 'ERR_SESSION_TIMEOUT' });
    await Promise.race(helds.map(({ closed }) => closed));
    for (const held of helds) held.finish('ause.');
    expect([await streams[1].next(), await streams[1].next()]).toEqual(['ause.', undefined]);
    await untilIdle(gateway);
    const ends = (await recordsOf(gateway)).map(({ model, status }) => `${model} ${status}`);
    expect(ends.toSorted()).toEqual(['long completed', 'short timedOut']);
  });
});

describe('The circuit of a provider', () => {
  it('opens after faults in a row, is tried by one request, and closes with its answer', async () => {
    const gateway = await startScripted({ GATEWAY_FAULTS: '2', GATEWAY_OPEN_MS: '10000' });
    vi.useFakeTimers({ toFake: ['Date'] });
    for (let i = 0; i < 2; i += 1) {
      const answer = ask(gateway);
      (await gateway.fast.next()).refuse(500);
      (await gateway.slow.next()).finish();
      expect(contentOf(await answer)).toBe('Because.');
    }
    await until(gateway, 'fast', { circuit: 'open' });
    const elsewhere = ask(gateway);
    (await gateway.slow.next()).finish();
    expect(contentOf(await elsewhere)).toBe('Because.');
    expect(gateway.fast.untaken).toBe(0);
    expect((await recordsOf(gateway))[1]).toMatchObject({ error: { code: 'ERR_PROVIDER_DOWN' } });

    vi.setSystemTime(Date.now() + 10_000);
    const tried = ask(gateway);
    const trial = await gateway.fast.next();
    await until(gateway, 'fast', { circuit: 'halfOpen' });
    const meanwhile = ask(gateway);
    (await gateway.slow.next()).finish('Slowly.');
    expect(contentOf(await meanwhile)).toBe('Slowly.');
    trial.finish('Fast.');
    expect(contentOf(await tried)).toBe('Fast.');
    await until(gateway, 'fast', { circuit: 'closed' });
    await untilIdle(gateway);
  });

  it('counts an answer that breaks off, and no client that leaves', async () => {
    const gateway = await startScripted({ GATEWAY_FAULTS: '1' });
    const leaving = new AbortController();
    const left = gateway.client.chat.completions
      .create(body(), { signal: leaving.signal })
      .catch((error: unknown) => error);
    const held = await gateway.fast.next();
    leaving.abort();
    await held.closed;
    expect(await left).toBeInstanceOf(APIError);
    await untilIdle(gateway);
    await until(gateway, 'fast', { circuit: 'closed' });
    const opened = openStream(gateway);
    const other = await gateway.fast.next();
    other.token('Bec');
    const { next } = await opened;
    other.cut();
    expect(await next()).toBe('Bec');
    await expect(next()).rejects.toThrow(APIError);
    await until(gateway, 'fast', { circuit: 'open' });
  });

  it('stays open when the client of the one request that tries it leaves', async () => {
    const gateway = await startScripted({ GATEWAY_FAULTS: '1', GATEWAY_OPEN_MS: '10000' });
    vi.useFakeTimers({ toFake: ['Date'] });
    const first = ask(gateway);
    (await gateway.fast.next()).refuse(500);
    (await gateway.slow.next()).finish();
    await first;
    vi.setSystemTime(Date.now() + 10_000);
    const leaving = new AbortController();
    const left = openStream(gateway, { signal: leaving.signal }).catch((error: unknown) => error);
    const trial = await gateway.fast.next();
    leaving.abort();
    await trial.closed;
    expect(await left).toBeInstanceOf(APIError);
    await untilIdle(gateway);
    await until(gateway, 'fast', { circuit: 'open' });
  });

  it('that is open is told when no other provider has room', async () => {
    const gateway = await startScripted({ GATEWAY_FAULTS: '1', GATEWAY_OPEN_MS: '5000' });
    const first = ask(gateway);
    (await gateway.fast.next()).refuse(500);
    (await gateway.slow.next()).refuse(500);
    expect(await first).toMatchObject({ status: 502 });
    const second = await ask(gateway);
    expect(second).toMatchObject({ status: 503, code: 'ERR_PROVIDER_DOWN' });
    expect((second as APIError).headers?.get('retry-after')).toBe('5');
    // Who took that for the end of the gateway would keep away the request that closes it again.
    const health = await fetch(`${gateway.server.url}/health`);
    expect(health.status).toBe(200);
    expect(await health.json()).toMatchObject({
      providers: [{ circuit: 'open' }, { circuit: 'open' }],
    });
  });
});

describe('A client that leaves', () => {
  it('gives up its place in line, before the first token, and in the middle of an answer', async () => {
    const gateway = await startScripted({
      GATEWAY_FAST_CONCURRENCY: '2',
      GATEWAY_FAST_MAX_WAITING: '1',
      GATEWAY_FIRST_TOKEN_MS: '60000',
    });
    const leaving = new AbortController();
    const { signal } = leaving;
    const reading = openStream(gateway, { signal });
    const begun = await gateway.fast.next();
    begun.token('Bec');
    const { next } = await reading;
    expect(await next()).toBe('Bec');
    const outcomes = [openStream(gateway, { signal }).catch((error: unknown) => error)];
    const silent = await gateway.fast.next();
    outcomes.push(openStream(gateway, { signal }).catch((error: unknown) => error));
    await until(gateway, 'fast', { active: 2, waiting: 1 });
    leaving.abort();
    await Promise.all([begun.closed, silent.closed]);
    for (const outcome of await Promise.all(outcomes)) expect(outcome).toBeInstanceOf(APIError);
    await untilIdle(gateway);
    expect([gateway.fast.untaken, gateway.slow.untaken]).toEqual([0, 0]);
    const statuses = (await recordsOf(gateway)).map(({ status }) => status);
    expect(statuses).toEqual(['cancelled', 'cancelled', 'cancelled']);
    expect(errors).not.toHaveBeenCalled();
  });
});

describe('A session', () => {
  it('has metadata of its own, and phases', async () => {
    const gateway = await startScripted({ GATEWAY_FAST_CONCURRENCY: '1' });
    const answers = [ask(gateway, 'ada', { metadata: { user: 'ada' } })];
    const held = await gateway.fast.next();
    answers.push(ask(gateway, 'bob', { metadata: { user: 'bob' } }));
    await until(gateway, 'fast', { active: 1, waiting: 1 });
    held.finish('Hello, ada.');
    (await gateway.fast.next()).finish('Hello, bob.');
    expect((await Promise.all(answers)).map(contentOf)).toEqual(['Hello, ada.', 'Hello, bob.']);
    await untilIdle(gateway);
    const records = await recordsOf(gateway);
    expect(records.map(({ metadata }) => metadata['user'])).toEqual(['bob', 'ada']);
    expect(Object.keys(records[0]!.phases)).toEqual([
      'received',
      'queued',
      'dequeued',
      'allocated',
      'callStart',
      'callEnd',
      'released',
      'completed',
    ]);
    const { requestId } = records[1]!;
    const found = await fetch(`${gateway.server.url}/sessions?requestId=${requestId}`);
    expect(await found.json()).toEqual([records[1]]);
  });

  it('keeps no more than it may', async () => {
    const gateway = await startScripted({ GATEWAY_MAX_METADATA_BYTES: '100' });
    const answer = await ask(gateway, 'Why?', { metadata: { user: 'x'.repeat(100) } });
    expect(answer).toMatchObject({ status: 413, code: 'ERR_METADATA_TOO_LARGE' });
    expect([gateway.fast.untaken, gateway.slow.untaken]).toEqual([0, 0]);
  });

  it('is a row of the page, whatever became of it', async () => {
    const gateway = await startScripted();
    const answer = ask(gateway);
    (await gateway.fast.next()).refuse(500);
    (await gateway.slow.next()).finish();
    await answer;
    const page = await (await fetch(gateway.server.url)).text();
    expect(page).toMatch(/<tr class="failed">.*ERR_PROVIDER_FAILED/s);
    expect(page).toMatch(/<tr class="completed">.*slow.*callStart at \d+ ms/s);
  });
});

describe('A shutdown', () => {
  it('refuses who comes, and lets answers finish', async () => {
    const gateway = await startScripted();
    const opened = openStream(gateway);
    const held = await gateway.fast.next();
    held.token('Bec');
    const { next } = await opened;
    const closed = gateway.server.close();
    const late = await ask(gateway);
    expect(late).toMatchObject({ status: 503, code: 'ERR_CLOSED' });
    expect((late as APIError).headers?.get('retry-after')).toBe('1');
    expect(gateway.slow.untaken).toBe(0);
    expect((await fetch(`${gateway.server.url}/health`)).status).toBe(503);
    held.finish('ause.');
    expect([await next(), await next(), await next()]).toEqual(['Bec', 'ause.', undefined]);
    expect(await closed).toMatchObject({ finished: 1, aborted: 0, stuck: [] });
  });
});

describe('A request', () => {
  it.each<[why: string, body: unknown, status: number]>([
    ['no JSON', '{"model":', 400],
    ['no object', [], 400],
    ['no model', {}, 400],
    ['no messages', { model: 'short' }, 400],
    ['no kind of stream', { model: 'short', messages: [], stream: 'yes' }, 400],
    ['no number of tokens', { model: 'short', messages: [], max_tokens: 0 }, 400],
    ['metadata of other things', { model: 'short', messages: [], metadata: { a: 1 } }, 400],
    ['far too much', 'x'.repeat(1_048_577), 413],
  ])('with %s is refused', async (_, value, status) => {
    const { server, fast } = await startScripted();
    const response = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      body: typeof value === 'string' ? value : JSON.stringify(value),
    });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: { type: 'invalid_request_error' } });
    expect(fast.untaken).toBe(0);
  });

  it('for another path is refused', async () => {
    const { server } = await startScripted();
    expect((await fetch(`${server.url}/v2`)).status).toBe(404);
  });
});

describe('readSettings()', () => {
  const urls = { fast: 'http://fast/v1', slow: 'http://slow/v1' };

  it('has defaults for everything', () => {
    const { providers, timeouts } = readSettings({ GATEWAY_SLOW_URL: 'https://there/v1' }, urls);
    expect(providers).toMatchObject([
      { name: 'fast', baseURL: 'http://fast/v1', concurrency: 2, maxWaiting: 2 },
      { name: 'slow', baseURL: 'https://there/v1', concurrency: 4, maxWaiting: 20 },
    ]);
    expect(Object.fromEntries(timeouts)).toEqual({
      'fast/short': 5000,
      'fast/long': 15_000,
      'slow/short': 20_000,
      'slow/long': 60_000,
    });
  });

  it.each<[env: Environment, message: string]>([
    [{ GATEWAY_FAULTS: '0' }, 'Expected GATEWAY_FAULTS to be an integer from 1 to 1000, got "0".'],
    [
      { GATEWAY_FAST_URL: 'fast' },
      'Expected GATEWAY_FAST_URL to be an http or https URL, got "fast".',
    ],
    [
      { GATEWAY_SLOW_LONG_TIMEOUT_MS: 'long' },
      'Expected GATEWAY_SLOW_LONG_TIMEOUT_MS to be an integer from 1 to 3600000, got "long".',
    ],
  ])('refuses %j', (env, message) => {
    expect(() => readSettings(env, urls)).toThrow(message);
  });
});

describe('start.ts', () => {
  const START = fileURLToPath(new URL('../../examples/provider-gateway/start.ts', import.meta.url));

  function run(...args: string[]): ReturnType<typeof spawn> {
    return spawn(process.execPath, [START, ...args], {
      env: { PATH: process.env['PATH'], GATEWAY_PORT: '0' },
    });
  }

  it('asks its questions, shows the page, and ends at Ctrl-C', { timeout: 60_000 }, async () => {
    const child = run('--questions', '6');
    let out = '';
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => (out += chunk));
    const exit = once(child, 'exit');
    await vi.waitFor(() => expect(out).toContain('Ctrl-C'), { timeout: 40_000 });
    expect(out.match(/^question \d +(?:fast, attempt 1|slow, attempt 2): first/gm)).toHaveLength(6);
    const [, url] = /how it goes at (http:\S+)$/m.exec(out)!;
    expect(await (await fetch(url!)).text()).toContain('circuit closed');
    child.kill('SIGINT');
    expect(await exit).toEqual([0, null]);
    expect(out).toMatch(/^Finished: 0 by themselves, 0 cut short\.$/m);
  });

  it('refuses what is no number of questions', async () => {
    const child = run('--questions', 'many');
    const [err, [code]] = await Promise.all([readText(child.stderr!), once(child, 'exit')]);
    expect(code).toBe(1);
    expect(err).toContain('Expected --questions to be an integer from 0 to 1000, got "many".');
  });
});
