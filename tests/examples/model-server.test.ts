import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import OpenAI, { APIConnectionError, NotFoundError, RateLimitError } from 'openai';
import type { ChatCompletionChunk } from 'openai/resources/chat/completions';
import { afterEach, describe, expect, it, vi } from 'vitest';

import { Engine, Job } from '../../examples/model-server/engine.ts';
import { parseChatRequest } from '../../examples/model-server/request.ts';
import {
  startModelServer,
  type ModelServer,
  type ModelServerStats,
} from '../../examples/model-server/server.ts';
import {
  readSettings,
  settingsOf,
  type ModelServerOptions,
} from '../../examples/model-server/settings.ts';
import { TrigramModel } from '../../examples/model-server/trigram.ts';
import { FABLES } from './fables.ts';

const QUESTION = [{ role: 'user' as const, content: 'What did the fox see?' }];

/** No answer at this pace ends within a test. */
const NEVER = { decodeMsPerToken: 60_000 };

const servers: ModelServer[] = [];

afterEach(async () => {
  vi.restoreAllMocks();
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

async function start(options: ModelServerOptions = {}): Promise<[ModelServer, OpenAI]> {
  const server = await startModelServer({
    port: 0,
    prefillMsPerToken: 0,
    decodeMsPerToken: 0,
    corpus: FABLES,
    ...options,
  });
  servers.push(server);
  return [server, clientOf(server)];
}

function clientOf(server: ModelServer, apiKey = 'none'): OpenAI {
  return new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
}

function textOf(chunks: readonly ChatCompletionChunk[]): string {
  return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
}

async function post(
  server: ModelServer,
  body: string | Uint8Array<ArrayBuffer>,
  path = '/v1/chat/completions',
): Promise<{ status: number; error: Record<string, unknown>; headers: Headers }> {
  const response = await fetch(server.url + path, { method: 'POST', body });
  const { error } = (await response.json()) as { error: Record<string, unknown> };
  return { status: response.status, error, headers: response.headers };
}

/** The same answer twice: streamed, and in the whole. */
async function answerBoth(client: OpenAI, seed: number | null, content: string): Promise<string> {
  const messages = [{ role: 'user' as const, content }];
  const body = { model: 'trigram', messages, seed };
  const whole = await client.chat.completions.create(body);
  const stream = await client.chat.completions.create({ ...body, stream: true });
  const streamed = textOf(await Array.fromAsync(stream));
  expect(streamed).toBe(whole.choices[0]?.message.content);
  return streamed;
}

/** Resolves when the server has seen so many come, or go. */
async function untilActive(server: ModelServer, active: number): Promise<void> {
  await vi.waitFor(() => expect(server.stats()).toMatchObject({ active }), {
    interval: 1,
    timeout: 10_000,
  });
}

describe('POST /v1/chat/completions', () => {
  it('answers at once in the whole, with usage', async () => {
    const [server, client] = await start();
    const answer = await client.chat.completions.create({ model: 'trigram', messages: QUESTION });
    expect(answer).toMatchObject({
      id: expect.stringMatching(/^chatcmpl-\w+$/),
      object: 'chat.completion',
      model: 'trigram',
      system_fingerprint: expect.stringMatching(/^fp_[0-9a-f]{10}$/),
      choices: [{ index: 0, message: { role: 'assistant', refusal: null }, finish_reason: 'stop' }],
    });
    expect(answer.choices[0]?.message.content).toMatch(/^[A-Z].*\.$/);
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage!;
    // user : What did the fox see ?
    expect(prompt_tokens).toBe(8);
    expect(completion_tokens).toBeGreaterThanOrEqual(40);
    expect(total_tokens).toBe(prompt_tokens + completion_tokens);
    expect(server.stats()).toMatchObject({ active: 0, peak: 1, served: 1 });
  });

  it('streams the role, one chunk a token, then the reason of the end', async () => {
    const [, client] = await start();
    const stream = await client.chat.completions.create({
      model: 'trigram',
      messages: QUESTION,
      max_tokens: 12,
      stream: true,
    });
    const chunks = await Array.fromAsync(stream);
    expect(chunks.map((chunk) => chunk.choices.length)).toEqual(Array(14).fill(1));
    const choices = chunks.map((chunk) => chunk.choices[0]!);
    expect(choices[0]?.delta).toEqual({ role: 'assistant', content: '' });
    for (const { delta } of choices.slice(1, 13)) {
      expect(delta).toEqual({ content: expect.stringMatching(/^ ?\S+$/) });
    }
    expect(choices.at(-1)?.delta).toEqual({});
    expect(choices.map((choice) => choice.finish_reason)).toEqual([
      ...Array(13).fill(null),
      'length',
    ]);
    expect(new Set(chunks.map(({ id, created }) => `${id} ${created}`)).size).toBe(1);
    expect(chunks.every((chunk) => !('usage' in chunk))).toBe(true);
  });

  it('ends with the usage if it is asked for, and with [DONE] always', async () => {
    const [server, client] = await start();
    const body = { model: 'trigram', messages: QUESTION, max_tokens: 3, stream: true as const };
    const stream = await client.chat.completions.create({
      ...body,
      stream_options: { include_usage: true },
    });
    const chunks = await Array.fromAsync(stream);
    expect(chunks.map((chunk) => chunk.usage)).toEqual([
      ...Array(5).fill(null),
      { prompt_tokens: 8, completion_tokens: 3, total_tokens: 11 },
    ]);
    expect(chunks.at(-1)?.choices).toEqual([]);

    const response = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify(body),
    });
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(await response.text()).toMatch(/\n\ndata: \[DONE\]\n\n$/);
  });

  it('gives the same answer to the same conversation and seed, streamed or not', async () => {
    const [, client] = await start();
    const [, elsewhere] = await start({ seed: 7 });
    const answer = await answerBoth(client, 7, 'What did the fox see?');
    expect(await answerBoth(client, 7, 'What did the fox see?')).toBe(answer);
    expect(await answerBoth(elsewhere, null, 'What did the fox see?')).toBe(answer);
    expect(await answerBoth(client, 8, 'What did the fox see?')).not.toBe(answer);
    expect(await answerBoth(client, 7, 'And what did the fox see?')).not.toBe(answer);
  });

  it('begins with a word of the last question', async () => {
    const [, client] = await start();
    const answer = await client.chat.completions.create({
      model: 'trigram',
      messages: [
        { role: 'system', content: 'You speak of tortoise and hare.' },
        { role: 'user', content: 'And the grasshopper?' },
        { role: 'assistant', content: 'It sang.' },
        { role: 'user', content: [{ type: 'text', text: 'Who was the crocodile?' }] },
      ],
    });
    expect(answer.choices[0]?.message.content).toMatch(/^Crocodile wept/);
  });

  it('writes at most `max_completion_tokens`, or `max_tokens`', async () => {
    const [, client] = await start();
    for (const limits of [
      { max_tokens: 5 },
      { max_completion_tokens: 5 },
      { max_completion_tokens: 5, max_tokens: 9 },
    ]) {
      const answer = await client.chat.completions.create({
        model: 'trigram',
        messages: QUESTION,
        ...limits,
      });
      expect(answer.usage?.completion_tokens).toBe(5);
      expect(answer.choices[0]?.finish_reason).toBe('length');
    }
  });

  it('never writes more than 1024 tokens, even going round in circles', async () => {
    const [, client] = await start({ corpus: ['round and round and round and round'] });
    for (const limits of [{}, { max_tokens: 1_000_000 }]) {
      const answer = await client.chat.completions.create({
        model: 'trigram',
        messages: QUESTION,
        temperature: 0,
        ...limits,
      });
      expect(answer.usage?.completion_tokens).toBe(1024);
      expect(answer.choices[0]?.finish_reason).toBe('length');
    }
  });

  it('stops before a stop sequence, also in the middle of a token or across several', async () => {
    const [, client] = await start({ corpus: ['one two three four five six seven eight'] });
    const ask = async (stop: string | string[]): Promise<unknown[]> => {
      const body = { model: 'trigram', messages: QUESTION, stop };
      const answer = await client.chat.completions.create(body);
      const stream = await client.chat.completions.create({ ...body, stream: true });
      const content = answer.choices[0]?.message.content;
      expect(textOf(await Array.fromAsync(stream))).toBe(content);
      return [content, answer.choices[0]?.finish_reason, answer.usage?.completion_tokens];
    };
    expect(await ask(' four')).toEqual(['One two three', 'stop', 3]);
    expect(await ask('ree four f')).toEqual(['One two th', 'stop', 3]);
    expect(await ask(['six', 'five', 'r fiv'])).toEqual(['One two three fou', 'stop', 4]);
    expect(await ask('One')).toEqual(['', 'stop', 0]);
  });

  it.each([
    ['{"model":', 400, null, null],
    ['[]', 400, null, null],
    [{ model: undefined }, 400, 'model', null],
    [{ model: 'gpt-5' }, 404, 'model', 'model_not_found'],
    [{ messages: undefined }, 400, 'messages', null],
    [{ messages: [] }, 400, 'messages', null],
    [{ messages: ['hello'] }, 400, 'messages[0]', null],
    [{ messages: [...QUESTION, { role: 'robot', content: '' }] }, 400, 'messages[1].role', null],
    [{ messages: [{ role: 'user' }] }, 400, 'messages[0].content', null],
    [
      { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
      400,
      'messages[0].content[0]',
      null,
    ],
    [{ max_tokens: 0 }, 400, 'max_tokens', null],
    [{ max_completion_tokens: 1.5 }, 400, 'max_completion_tokens', null],
    [{ temperature: 2.1 }, 400, 'temperature', null],
    [{ temperature: '1' }, 400, 'temperature', null],
    [{ seed: 0.5 }, 400, 'seed', null],
    [{ n: 2 }, 400, 'n', null],
    [{ stop: '' }, 400, 'stop', null],
    [{ stop: ['a', 'b', 'c', 'd', 'e'] }, 400, 'stop', null],
    [{ stream: 'yes' }, 400, 'stream', null],
    [{ stream_options: true }, 400, 'stream_options', null],
    [{ stream_options: { include_usage: 1 } }, 400, 'include_usage', null],
  ])('refuses %j with %i, naming %s', async (change, status, param, code) => {
    const [server] = await start();
    const body =
      typeof change === 'string'
        ? change
        : JSON.stringify({ model: 'trigram', messages: QUESTION, ...change });
    const refusal = await post(server, body);
    expect(refusal.status).toBe(status);
    expect(refusal.error).toEqual({
      message: expect.stringContaining(param ?? 'JSON'),
      type: 'invalid_request_error',
      code,
      param,
    });
    expect(server.stats()).toMatchObject({ active: 0, peak: 0 });
  });

  it('takes null for a parameter that is not given', async () => {
    const [, client] = await start();
    const answer = await client.chat.completions.create({
      model: 'trigram',
      messages: [...QUESTION, { role: 'assistant', content: null }],
      max_tokens: null,
      temperature: null,
      seed: null,
      stop: null,
      stream: null,
      n: null,
    });
    expect(answer.choices[0]?.finish_reason).toBe('stop');
  });

  it('refuses a body over 1 MiB with 413', async () => {
    const [server] = await start();
    const refusal = await post(server, new Uint8Array(1_048_577));
    expect(refusal.status).toBe(413);
    expect(refusal.error['message']).toMatch(/1048576 bytes, got 1048577/);
    expect((await post(server, new Uint8Array(1_048_576))).status).toBe(400);
  });
});

describe('a server driven past `parallel`', () => {
  it('refuses with 429 and the seconds until the first place is free', async () => {
    const [server, client] = await start({ parallel: 2, decodeMsPerToken: 20_000 });
    const body = { model: 'trigram', messages: QUESTION, stream: true as const };
    await client.chat.completions.create({ ...body, max_tokens: 4 });
    await client.chat.completions.create({ ...body, max_tokens: 3 });
    const refusal = await client.chat.completions
      .create(body)
      .catch((error: unknown) => error as RateLimitError);
    expect(refusal).toBeInstanceOf(RateLimitError);
    expect(refusal).toMatchObject({
      status: 429,
      type: 'rate_limit_exceeded',
      code: 'rate_limit_exceeded',
      param: null,
    });
    const { headers } = refusal as RateLimitError;
    // The second has its third token after two times 20 s; the test itself takes some of it.
    expect(headers.get('retry-after')).toMatch(/^(?:3[0-9]|40)$/);
    expect(server.stats()).toMatchObject({ active: 2, peak: 2, rejected: 1, served: 0 });
  });

  it('never asks for less than a second', async () => {
    const [server, client] = await start({ parallel: 1, decodeMsPerToken: 900 });
    const body = { model: 'trigram', messages: QUESTION, max_tokens: 2 };
    await client.chat.completions.create({ ...body, stream: true });
    const refusal = await post(server, JSON.stringify(body));
    expect(refusal.status).toBe(429);
    expect(refusal.headers.get('retry-after')).toBe('1');
  });

  it('has the place free for the next request of a client that was just served', async () => {
    const [server, client] = await start({ parallel: 1 });
    for (let round = 0; round < 20; round += 1) {
      const body = { model: 'trigram', messages: QUESTION };
      const stream = await client.chat.completions.create({ ...body, stream: true });
      for await (const chunk of stream) {
        if (chunk.choices[0]?.finish_reason !== null) break;
      }
      await client.chat.completions.create(body);
    }
    expect(server.stats()).toMatchObject({ active: 0, peak: 1, served: 40, rejected: 0 });
  });

  it('never serves more than `parallel` at once, and every request ends one way', async () => {
    const [server, client] = await start({ parallel: 3, decodeMsPerToken: 1 });
    const outcomes = await Promise.all(
      Array.from({ length: 60 }, async (_, index) => {
        const body = { model: 'trigram', messages: QUESTION, max_tokens: 1 + (index % 5) };
        return client.chat.completions.create(body).then(
          () => 'served',
          (error: unknown) => {
            expect(error).toBeInstanceOf(RateLimitError);
            return 'rejected';
          },
        );
      }),
    );
    const served = outcomes.filter((outcome) => outcome === 'served').length;
    expect(server.stats()).toMatchObject({
      active: 0,
      peak: 3,
      served,
      rejected: 60 - served,
      aborted: 0,
    });
  });
});

describe('a client that leaves', () => {
  it('frees its place at once while tokens flow', async () => {
    const [server, client] = await start({ parallel: 1, decodeMsPerToken: 1, minTokens: 1024 });
    const body = { model: 'trigram', messages: QUESTION };
    for (let round = 1; round <= 10; round += 1) {
      const stream = await client.chat.completions.create({ ...body, stream: true });
      for await (const chunk of stream) {
        if (chunk.choices[0]?.delta.content) break;
      }
      await untilActive(server, 0);
      expect(server.stats()).toMatchObject({ aborted: round, served: 0, rejected: 0 });
    }
  });

  it.each([true, false])('frees it while the prompt is read (stream: %s)', async (stream) => {
    const [server, client] = await start({ parallel: 1, prefillMsPerToken: 60_000 });
    const leave = new AbortController();
    const answer = client.chat.completions.create(
      { model: 'trigram', messages: QUESTION, stream },
      { signal: leave.signal },
    );
    answer.catch(() => undefined);
    await untilActive(server, 1);
    leave.abort();
    await untilActive(server, 0);
    expect(server.stats()).toMatchObject({ aborted: 1, served: 0 });
  });

  it('holds no place and troubles nobody when it leaves while it sends', async () => {
    const log = vi.spyOn(console, 'error').mockReturnValue(undefined);
    const [server] = await start();
    const socket = connect(server.port, '127.0.0.1');
    socket.write(
      'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"mod',
    );
    // An answered request shows that the server has come round to the first.
    await fetch(`${server.url}/health`);
    socket.destroy();
    await server.close();
    expect(server.stats()).toMatchObject({ active: 0, peak: 0, aborted: 0 });
    expect(log).not.toHaveBeenCalled();
  });
});

/** A streamed answer of which the client has seen the first bytes and reads no more. */
async function stalledAnswer(server: ModelServer): Promise<IncomingMessage> {
  const req = httpRequest(`${server.url}/v1/chat/completions`, { method: 'POST' });
  req.end(JSON.stringify({ model: 'trigram', messages: QUESTION, stream: true }));
  const [response] = (await once(req, 'response')) as [IncomingMessage];
  await once(response, 'readable');
  // Enough turns for a server that did not wait to be through.
  for (let turn = 0; turn < 20; turn += 1) await fetch(`${server.url}/health`);
  return response;
}

describe('a client that reads slowly', () => {
  /** 40 tokens of it are far more than the buffers of a connection. */
  const HUGE = ['a', 'b', 'c'].map((letter) => letter.repeat(400_000)).join(' ');

  it('is waited for, and gets everything', async () => {
    const [server] = await start({ corpus: [HUGE] });
    const response = await stalledAnswer(server);
    expect(server.stats()).toMatchObject({ active: 1, served: 0 });
    let bytes = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) bytes += chunk.length;
    expect(bytes).toBeGreaterThan(40 * 400_000);
    expect(server.stats()).toMatchObject({ active: 0, served: 1 });
  });

  it('frees its place when it leaves', async () => {
    const [server] = await start({ corpus: [HUGE] });
    const response = await stalledAnswer(server);
    response.destroy();
    await untilActive(server, 0);
    expect(server.stats()).toMatchObject({ served: 0, aborted: 1 });
  });
});

describe('service times', () => {
  it('hands out no token before it is due', async () => {
    const [, client] = await start({ prefillMsPerToken: 5, decodeMsPerToken: 3.5 });
    const body = { model: 'trigram', messages: QUESTION, max_tokens: 6 };
    const askedAt = performance.now();
    const stream = await client.chat.completions.create({ ...body, stream: true });
    let index = 0;
    for await (const chunk of stream) {
      if (!chunk.choices[0]?.delta.content) continue;
      expect(performance.now() - askedAt).toBeGreaterThanOrEqual(8 * 5 + index * 3.5);
      index += 1;
    }
    expect(index).toBe(6);

    const againAt = performance.now();
    await client.chat.completions.create(body);
    expect(performance.now() - againAt).toBeGreaterThanOrEqual(8 * 5 + 5 * 3.5);
  });

  it('catches up after a delay: a token that is late is handed out at once', async () => {
    const engine = new Engine(new TrigramModel(FABLES), settingsOf(NEVER));
    const request = parseChatRequest({ model: 'trigram', messages: QUESTION, max_tokens: 30 });
    const job = engine.admit(request);
    vi.spyOn(performance, 'now').mockReturnValue(job.endsAt);
    expect(await Array.fromAsync(job.decode(new AbortController().signal))).toHaveLength(30);
  });
});

describe('a fault of the server', () => {
  it('is a 500 before the first byte, a broken connection after it, and frees the place', async () => {
    const log = vi.spyOn(console, 'error').mockReturnValue(undefined);
    const [server, client] = await start({ parallel: 1 });
    const fault = new Error('fault');
    const finish = vi.spyOn(Job.prototype, 'finish').mockRejectedValueOnce(fault);
    const body = { model: 'trigram', messages: QUESTION };
    await expect(client.chat.completions.create(body)).rejects.toMatchObject({
      status: 500,
      type: 'server_error',
    });
    await untilActive(server, 0);

    const breakage = new AbortController();
    finish.mockImplementationOnce(async () => {
      await once(breakage.signal, 'abort');
      throw fault;
    });
    const stream = await client.chat.completions.create({ ...body, stream: true });
    const end = Promise.allSettled([Array.fromAsync(stream)]);
    breakage.abort();
    expect(await end).toMatchObject([{ status: 'rejected' }]);
    await untilActive(server, 0);
    expect(server.stats()).toMatchObject({ served: 0, aborted: 2 });
    expect(log.mock.calls).toEqual([[fault], [fault]]);
  });
});

describe('the other routes', () => {
  it('lists the model', async () => {
    const [, client] = await start();
    const models = await Array.fromAsync(client.models.list());
    expect(models).toMatchObject([{ id: 'trigram', object: 'model', owned_by: 'sluice' }]);
    expect(await client.models.retrieve('trigram')).toEqual(models[0]);
    await expect(client.models.retrieve('gpt-5')).rejects.toBeInstanceOf(NotFoundError);
  });

  it('reports its health', async () => {
    const [server] = await start({ parallel: 3, decodeMsPerToken: 2 });
    const health = await fetch(`${server.url}/health?verbose`);
    expect((await health.json()) as ModelServerStats & { status: string }).toEqual({
      status: 'ok',
      model: 'trigram',
      vocabulary: new TrigramModel(FABLES).vocabulary,
      parallel: 3,
      prefillMsPerToken: 0,
      decodeMsPerToken: 2,
      uptimeMs: expect.any(Number),
      active: 0,
      peak: 0,
      served: 0,
      rejected: 0,
      aborted: 0,
      limited: 0,
    });
  });

  it('says what is wrong with a path or a method', async () => {
    const [server] = await start();
    expect(await post(server, '{}', '/v1/embeddings')).toMatchObject({ status: 404 });
    const refusal = await post(server, '{}', '/health');
    expect(refusal.status).toBe(405);
    expect(refusal.headers.get('allow')).toBe('GET');
  });

  it('asks for the key below /v1, if it has one', async () => {
    const [server] = await start({ apiKey: 'open sesame' });
    const body = { model: 'trigram', messages: QUESTION };
    await expect(clientOf(server).chat.completions.create(body)).rejects.toMatchObject({
      status: 401,
      code: 'invalid_api_key',
    });
    const answer = await clientOf(server, 'open sesame').chat.completions.create(body);
    expect(answer.choices).toHaveLength(1);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });
});

describe('startModelServer()', () => {
  it.each([
    [{ parallel: 0 }, 'Expected `parallel` to be an integer from 1 to 10000, got 0.'],
    [{ port: 65_536 }, 'Expected `port` to be an integer from 0 to 65535, got 65536.'],
    [{ seed: 0.5 }, '`seed`'],
    [
      { decodeMsPerToken: Number.NaN },
      '`decodeMsPerToken` to be a number from 0 to 60000, got NaN.',
    ],
    [{ prefillMsPerToken: -1 }, '`prefillMsPerToken`'],
    [{ apiKey: '' }, '`apiKey`'],
    [{ requestsPerWindow: -1 }, '`requestsPerWindow`'],
    [{ tokensPerWindow: 0.5 }, '`tokensPerWindow`'],
    [{ quotaWindowMs: 0 }, '`quotaWindowMs`'],
    [{ paralel: 5 }, 'Unknown option "paralel"'],
  ])('refuses %j', async (options, message) => {
    await expect(startModelServer({ port: 0, ...options })).rejects.toThrow(message);
  });

  it('rejects when the port is taken', async () => {
    const [server] = await start();
    await expect(start({ port: server.port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });

  describe('.close()', () => {
    it('cuts open answers so that they do not look complete, and leaves nobody', async () => {
      const [server, client] = await start(NEVER);
      const body = { model: 'trigram', messages: QUESTION };
      const stream = await client.chat.completions.create({ ...body, stream: true });
      const ends = Promise.allSettled([
        Array.fromAsync(stream),
        client.chat.completions.create(body),
      ]);
      await untilActive(server, 2);
      await Promise.all([server.close(), server.close()]);
      expect(server.stats()).toMatchObject({ active: 0, aborted: 2, served: 0 });
      expect(await ends).toMatchObject([
        { status: 'rejected' },
        { status: 'rejected', reason: expect.any(APIConnectionError) },
      ]);
      await expect(fetch(`${server.url}/health`)).rejects.toThrow('fetch failed');
    });
  });
});

describe('readSettings()', () => {
  it('takes flags before variables, and variables that are not empty', () => {
    expect(readSettings([], {})).toEqual({});
    expect(
      readSettings(
        ['--parallel', '7', '--decode-ms-per-token=0.5', '--seed=-3', '--api-key', 'flag'],
        {
          MODEL_SERVER_PARALLEL: '2',
          MODEL_SERVER_PORT: '8080',
          MODEL_SERVER_SEED: '',
          MODEL_SERVER_PREFILL_MS_PER_TOKEN: '4',
          MODEL_SERVER_API_KEY: 'variable',
          OPENAI_API_KEY: 'for clients only',
        },
      ),
    ).toEqual({
      parallel: 7,
      decodeMsPerToken: 0.5,
      seed: -3,
      port: 8080,
      prefillMsPerToken: 4,
      apiKey: 'flag',
    });
  });

  it.each([
    [
      ['--parallel', 'many'],
      {},
      'Expected --parallel to be an integer from 1 to 10000, got "many".',
    ],
    [['--parallel='], {}, 'Expected --parallel'],
    [[], { MODEL_SERVER_PORT: '80a' }, 'Expected MODEL_SERVER_PORT to be an integer'],
    [[], { MODEL_SERVER_DECODE_MS_PER_TOKEN: ' ' }, 'MODEL_SERVER_DECODE_MS_PER_TOKEN'],
    [['--api-key='], {}, 'Expected --api-key'],
    [['--paralel', '5'], {}, "Unknown option '--paralel'"],
    [['5'], {}, 'Unexpected argument'],
  ])('refuses %j with %j', (args, env, message) => {
    expect(() => readSettings(args, env)).toThrow(message);
  });
});

describe('main.ts', () => {
  const main = fileURLToPath(new URL('../../examples/model-server/main.ts', import.meta.url));

  it('learns the repository, prints where it is, and ends on Ctrl-C', async () => {
    const child = spawn(process.execPath, [main, '--port', '0', '--decode-ms-per-token', '60000']);
    const exit = once(child, 'exit');
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    expect((await lines.next()).value).toMatch(/^trigram: \d+ words known, 5 requests at once$/);
    const baseURL = /^OPENAI_BASE_URL=(http:.*)$/.exec(String((await lines.next()).value))?.[1];
    const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
    const body = { model: 'trigram', messages: QUESTION };
    const answer = await client.chat.completions.create({ ...body, max_tokens: 1 });
    expect(answer.usage?.completion_tokens).toBe(1);
    const stream = await client.chat.completions.create({ ...body, stream: true });
    const end = Promise.allSettled([Array.fromAsync(stream)]);
    child.kill('SIGINT');
    expect(await exit).toEqual([0, null]);
    expect(await end).toMatchObject([{ status: 'rejected' }]);
  });

  it.each([
    [['--help'], 0, /Usage: .*--decode-ms-per-token .*\(25\)/s, /^$/],
    [['--parallel', '0'], 1, /^$/, /^Expected --parallel to be .*, got "0"\.\n$/],
  ])('%j ends with %i', async (args, code, output, errors) => {
    const child = spawn(process.execPath, [main, ...args]);
    const exit = once(child, 'exit');
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    expect(await exit).toEqual([code, null]);
    expect(stdout).toMatch(output);
    expect(stderr).toMatch(errors);
  });
});
