import Anthropic, { RateLimitError as AnthropicRateLimitError } from '@anthropic-ai/sdk';
import OpenAI, { RateLimitError } from 'openai';
import { parseRateLimitHeaders, parseRetryAfter } from 'sluice/http';
import { afterEach, describe, expect, it, vi } from 'vitest';

import { Quota } from '../../examples/model-server/quota.ts';
import { type ModelServer, startModelServer } from '../../examples/model-server/server.ts';
import type { ModelServerOptions } from '../../examples/model-server/settings.ts';
import { FABLES } from './fables.ts';

const servers: ModelServer[] = [];

afterEach(async () => {
  vi.restoreAllMocks();
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

async function start(options: ModelServerOptions = {}): Promise<{
  server: ModelServer;
  openai: OpenAI;
  anthropic: Anthropic;
}> {
  const server = await startModelServer({
    port: 0,
    prefillMsPerToken: 0,
    decodeMsPerToken: 0,
    corpus: FABLES,
    ...options,
  });
  servers.push(server);
  const common = { apiKey: 'open sesame', maxRetries: 0 };
  return {
    server,
    openai: new OpenAI({ ...common, baseURL: `${server.url}/v1` }),
    anthropic: new Anthropic({ ...common, baseURL: server.url }),
  };
}

const MESSAGES = [{ role: 'user' as const, content: 'What did the fox see?' }];
const CHAT = { model: 'trigram', messages: MESSAGES };
const MESSAGE = { model: 'trigram', messages: MESSAGES, max_tokens: 200 };

function textOf({ content }: Anthropic.Message): string {
  return content.map((block) => (block.type === 'text' ? block.text : '')).join('');
}

describe('POST /v1/messages', () => {
  it('answers as chat completions do, in the words of its protocol', async () => {
    const { server, openai, anthropic } = await start({ apiKey: 'open sesame' });
    const message = await anthropic.messages.create(MESSAGE);
    expect(message).toMatchObject({
      id: expect.stringMatching(/^msg_\w+$/),
      type: 'message',
      role: 'assistant',
      model: 'trigram',
      stop_reason: 'end_turn',
      stop_sequence: null,
    });
    const completion = await openai.chat.completions.create(CHAT);
    expect(textOf(message)).toBe(completion.choices[0]?.message.content);
    expect(message.usage).toMatchObject({
      input_tokens: completion.usage?.prompt_tokens,
      output_tokens: completion.usage?.completion_tokens,
    });
    expect(server.stats()).toMatchObject({ active: 0, served: 2 });
  });

  it('streams the same, one delta a token, with the usage at both ends', async () => {
    const { anthropic } = await start();
    const body = { ...MESSAGE, max_tokens: 12 };
    const whole = await anthropic.messages.create(body);
    const events = await Array.fromAsync(
      await anthropic.messages.create({ ...body, stream: true }),
    );
    expect(events.map(({ type }) => type)).toEqual([
      'message_start',
      'content_block_start',
      ...Array<string>(12).fill('content_block_delta'),
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
    expect(events[0]).toMatchObject({
      message: { content: [], stop_reason: null, usage: { input_tokens: 8, output_tokens: 0 } },
    });
    expect(events.at(-2)).toMatchObject({
      delta: { stop_reason: 'max_tokens' },
      usage: { input_tokens: 8, output_tokens: 12 },
    });
    const final = await anthropic.messages.stream(body).finalMessage();
    expect(textOf(final)).toBe(textOf(whole));
  });

  it('reads the system prompt, and blocks of text', async () => {
    const { anthropic } = await start();
    const answer = await anthropic.messages.create({
      ...MESSAGE,
      system: [{ type: 'text', text: 'You speak of hares.' }],
      messages: [{ role: 'user', content: [{ type: 'text', text: 'Who was the crocodile?' }] }],
    });
    expect(textOf(answer)).toMatch(/^Crocodile wept/);
    // system : You speak of hares . user : Who was the crocodile ?
    expect(answer.usage.input_tokens).toBe(14);
  });

  it.each([
    [{ model: 'claude' }, 404, 'not_found_error', 'claude'],
    [{ max_tokens: undefined }, 400, 'invalid_request_error', 'max_tokens'],
    [{ max_tokens: 0 }, 400, 'invalid_request_error', 'max_tokens'],
    [{ messages: [] }, 400, 'invalid_request_error', 'messages'],
    [
      { messages: [{ role: 'system', content: '' }] },
      400,
      'invalid_request_error',
      'messages[0].role',
    ],
    [{ system: 5 }, 400, 'invalid_request_error', 'system'],
    [{ temperature: 1.5 }, 400, 'invalid_request_error', 'temperature'],
    [{ stop_sequences: ['fox'] }, 400, 'invalid_request_error', 'stop_sequences'],
    [{ stream: 'yes' }, 400, 'invalid_request_error', 'stream'],
  ])('refuses %j with %i %s', async (change, status, type, named) => {
    const { server } = await start();
    const response = await fetch(`${server.url}/v1/messages`, {
      method: 'POST',
      body: JSON.stringify({ ...MESSAGE, ...change }),
    });
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({
      type: 'error',
      error: { type, message: expect.stringContaining(named) },
    });
  });

  it('wants the key, as a header of its own', async () => {
    const { server } = await start({ apiKey: 'another' });
    const client = new Anthropic({ apiKey: 'wrong', baseURL: server.url, maxRetries: 0 });
    await expect(client.messages.create(MESSAGE)).rejects.toMatchObject({
      status: 401,
      type: 'authentication_error',
    });
  });
});

describe('a quota', () => {
  const QUOTA = { requestsPerWindow: 2, tokensPerWindow: 1000, quotaWindowMs: 3_600_000 };

  it('is told with every answer, in the headers of the protocol', async () => {
    const { openai, anthropic } = await start(QUOTA);
    const body = { ...CHAT, max_tokens: 92 };
    const first = await openai.chat.completions.create(body).withResponse();
    expect(first.response.headers.get('x-ratelimit-limit-tokens')).toBe('1000');
    expect(first.response.headers.get('x-ratelimit-reset-requests')).toMatch(/^(?:30|29)m[\d.]+s$/);
    // 8 of the prompt and 92 for the answer were taken when it came.
    expect(parseRateLimitHeaders(first.response.headers)).toMatchObject({
      requests: { limit: 2, remaining: 1 },
      tokens: { limit: 1000, remaining: 900 },
    });

    const second = await anthropic.messages.create({ ...MESSAGE, max_tokens: 92 }).withResponse();
    const { headers } = second.response;
    expect(headers.get('anthropic-ratelimit-requests-reset')).toMatch(/T\d\d:\d\d:\d\dZ$/);
    const { requests, tokens } = parseRateLimitHeaders(headers)!;
    expect(requests).toMatchObject({ limit: 2, remaining: 0 });
    expect(requests!.resetMs).toBeGreaterThan(3_500_000);
    // What the first answer did not use is there again.
    const used = first.data.usage!.total_tokens;
    expect(tokens!.remaining).toBeGreaterThanOrEqual(1000 - used - 100);
    expect(tokens!.remaining).toBeLessThan(1000 - used - 100 + 10);
  });

  it('is enforced with 429, by requests and by tokens, and a refusal costs nothing', async () => {
    const { server, openai, anthropic } = await start(QUOTA);
    const tooMany = await openai.chat.completions
      .create({ ...CHAT, max_tokens: 993 })
      .catch((error: unknown) => error);
    expect(tooMany).toBeInstanceOf(RateLimitError);
    expect(tooMany).toMatchObject({ type: 'tokens', code: 'rate_limit_exceeded' });
    // More than there will ever be: there is no time to come back.
    expect(parseRetryAfter((tooMany as RateLimitError).headers)).toBeUndefined();

    await openai.chat.completions.create({ ...CHAT, max_tokens: 40 });
    await anthropic.messages.create({ ...MESSAGE, max_tokens: 40 });
    const refusal = await anthropic.messages.create(MESSAGE).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(AnthropicRateLimitError);
    expect(refusal).toMatchObject({ status: 429, type: 'rate_limit_error' });
    const { headers } = refusal as AnthropicRateLimitError;
    const retryAfterMs = parseRetryAfter(headers)!;
    expect(retryAfterMs).toBeGreaterThan(1_700_000);
    expect(retryAfterMs).toBeLessThanOrEqual(1_800_000);
    expect(parseRateLimitHeaders(headers)?.['requests']).toMatchObject({ remaining: 0 });
    expect(server.stats()).toMatchObject({ served: 2, limited: 2, rejected: 0, active: 0 });
  });

  it('is none unless asked for', async () => {
    const { openai } = await start();
    const { response } = await openai.chat.completions.create(CHAT).withResponse();
    expect(parseRateLimitHeaders(response.headers)).toBeUndefined();
  });
});

describe('Quota', () => {
  it('is full at first, comes back evenly and not above the whole', () => {
    const now = vi.spyOn(performance, 'now').mockReturnValue(0);
    const quota = new Quota(4, 100, 1000);
    expect(quota.take(100)).toBeUndefined();
    expect(quota.take(10)).toEqual({
      count: { name: 'tokens', limit: 100, remaining: 0, resetMs: 1000 },
      requested: 10,
      retryAfterMs: 100,
    });
    now.mockReturnValue(99);
    expect(quota.take(10)).toBeDefined();
    now.mockReturnValue(100);
    expect(quota.take(10)).toBeUndefined();
    now.mockReturnValue(60_000);
    expect(quota.counts().map(({ remaining, resetMs }) => [remaining, resetMs])).toEqual([
      [4, 0],
      [100, 0],
    ]);
    quota.giveBack(50);
    expect(quota.counts()[1]).toMatchObject({ remaining: 100 });
  });

  it('takes of both or of none', () => {
    vi.spyOn(performance, 'now').mockReturnValue(0);
    const quota = new Quota(2, 100, 1000);
    expect(quota.take(80)).toBeUndefined();
    expect(quota.take(80)?.count.name).toBe('tokens');
    expect(quota.counts().map(({ remaining }) => remaining)).toEqual([1, 20]);
    expect(quota.take(10)).toBeUndefined();
    expect(quota.take(1)?.count.name).toBe('requests');
    expect(quota.counts().map(({ remaining }) => remaining)).toEqual([0, 10]);
    quota.giveBack(30);
    expect(quota.counts().map(({ remaining }) => remaining)).toEqual([0, 40]);
  });
});
