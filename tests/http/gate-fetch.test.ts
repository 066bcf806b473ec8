import type { IncomingMessage, ServerResponse } from 'node:http';

import OpenAI from 'openai';
import { describe, expect, it, vi } from 'vitest';

import { AdmissionQueue } from '../../src/admission-queue.ts';
import type { Gate } from '../../src/gate.ts';
import { gateFetch, type UpstreamLimiter } from '../../src/http/index.ts';
import { RateLimiter } from '../../src/rate-limiter.ts';
import { Semaphore } from '../../src/semaphore.ts';
import { ManualClock, settle } from '../../src/testing.ts';
import { serve, type Served, until } from '../support/serve.ts';
import { catchUncaught } from '../support/uncaught.ts';

interface Upstream extends Served {
  /** Requests that are being answered. */
  readonly open: () => number;
  /** Goes on with all of them. */
  readonly go: () => void;
  readonly asked: () => number;
}

/** A server that answers with a chat completion, token by token, each when it is told to go on. */
async function upstream(tokens = 3): Promise<Upstream> {
  let open = 0;
  let asked = 0;
  let waiting: (() => void)[] = [];
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    open++;
    asked++;
    response.on('close', () => open--);
    request.resume();
    response.setHeader('content-type', 'text/event-stream').flushHeaders();
    for (let i = 0; i < tokens; i++) {
      const choices = [{ index: 0, delta: { content: String(i) }, finish_reason: null }];
      response.write(`data: ${JSON.stringify({ id: 'x', choices })}\n\n`);
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
    response.end('data: [DONE]\n\n');
  };
  const served = await serve((request, response) => void answer(request, response));
  return {
    ...served,
    open: () => open,
    asked: () => asked,
    go: () => {
      const now = waiting;
      waiting = [];
      for (const resolve of now) resolve();
    },
  };
}

function aborter(): { readonly signal: AbortSignal; abort(reason: unknown): void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: (reason) => controller.abort(reason) };
}

describe('gateFetch()', () => {
  it('holds the place from the request to the end of the body', async () => {
    await using server = await upstream();
    const gate = new Semaphore(1);
    const get = gateFetch(gate);
    const response = await get(server.url);
    expect(response.url).toBe(`${server.url}/`);
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const second = get(server.url);
    const text = response.text();
    for (let i = 0; i < 3; i++) {
      await until(() => server.open() === 1);
      expect([gate.active, gate.waiting, server.asked()]).toEqual([1, 1, 1]);
      await settle();
      server.go();
      await new Promise((resolve) => {
        setTimeout(resolve, 5);
      });
    }
    expect(await text).toMatch(/\[DONE\]/u);
    await until(() => server.asked() === 2);
    await (await second).body!.cancel();
    await until(() => gate.active === 0 && server.open() === 0);
  });

  it('gives the place back at once for a response without a body', async () => {
    const gate = new Semaphore(1);
    const clock = new ManualClock();
    const get = gateFetch(gate, { fetch: async () => new Response(null, { status: 204 }), clock });
    expect((await get('http://test')).status).toBe(204);
    await settle();
    expect(gate.active).toBe(0);
    expect(clock.timers).toBe(0);
  });

  it('asks with all that it was called with, and a signal of its own', async () => {
    const asked: unknown[] = [];
    const get = gateFetch(new Semaphore(1), {
      fetch: async (input, init) => {
        asked.push([input, init]);
        return new Response('x');
      },
    });
    const { signal } = new AbortController();
    await (await get('http://test', { method: 'POST', body: 'y', signal })).text();
    const init = { method: 'POST', body: 'y', signal: expect.any(AbortSignal) as AbortSignal };
    expect(asked).toEqual([['http://test', init]]);
  });

  it('stops the request with the reason for which its body is cancelled', async () => {
    let seen!: AbortSignal;
    const get = gateFetch(new Semaphore(1), {
      fetch: async (_, init) => {
        seen = init!.signal!;
        return new Response(new ReadableStream());
      },
    });
    const reason = new Error('enough');
    await (await get('http://test')).body!.cancel(reason);
    expect(seen.reason).toBe(reason);
  });

  it('reads over empty chunks, which a body of bytes cannot have', async () => {
    const body = new ReadableStream({
      start(controller) {
        for (const text of ['', 'a', '', '', 'b', '']) {
          controller.enqueue(new TextEncoder().encode(text));
        }
        controller.close();
      },
    });
    const get = gateFetch(new Semaphore(1), { fetch: async () => new Response(body) });
    expect(await (await get('http://test')).text()).toBe('ab');
  });

  it('can be read into buffers of the reader', async () => {
    const get = gateFetch(new Semaphore(1), { fetch: async () => new Response('ab') });
    const reader = (await get('http://test')).body!.getReader({ mode: 'byob' });
    const { value } = await reader.read(new Uint8Array(8));
    expect(new TextDecoder().decode(value)).toBe('ab');
    expect(await reader.read(new Uint8Array(8))).toMatchObject({ done: true });
  });

  it('gives the place back when all has arrived, though nobody has read it', async () => {
    const gate = new Semaphore(1);
    const clock = new ManualClock();
    const get = gateFetch(gate, { fetch: async () => new Response('all of it'), clock });
    const response = await get('http://test');
    await settle();
    expect(gate.active).toBe(0);
    expect(await response.text()).toBe('all of it');
    expect(clock.timers).toBe(0);
  });

  it('gives the place back when the body is cancelled, and stops the request', async () => {
    await using server = await upstream();
    const gate = new Semaphore(1);
    const response = await gateFetch(gate)(server.url);
    await response.body!.cancel();
    await until(() => gate.active === 0 && server.open() === 0);
    expect(server.asked()).toBe(1);
  });

  it('stops a request whose body is left unread for `stallMs`', async () => {
    await using server = await upstream();
    const gate = new Semaphore(1);
    const clock = new ManualClock();
    const response = await gateFetch(gate, { stallMs: 5000, clock })(server.url);
    await until(() => clock.timers === 1);
    await clock.advance(4999);
    expect(gate.active).toBe(1);
    await clock.advance(1);
    await until(() => gate.active === 0 && server.open() === 0);
    await expect(response.text()).rejects.toMatchObject({ code: 'ERR_STREAM_TIMEOUT' });
    expect(clock.timers).toBe(0);
  });

  it('fails the reader when the upstream breaks off, and gives the place back', async () => {
    await using server = await serve((_, response) => {
      response.write('a');
      setTimeout(() => response.destroy(), 5);
    });
    const gate = new Semaphore(1);
    const response = await gateFetch(gate)(server.url);
    await expect(response.text()).rejects.toThrow(/terminated/u);
    await until(() => gate.active === 0);
  });

  it('rejects as fetch does, and gives the place back', async () => {
    const gate = new Semaphore(1);
    const failure = new TypeError('fetch failed');
    const get = gateFetch(gate, {
      fetch: async () => {
        throw failure;
      },
    });
    await expect(get('http://test')).rejects.toBe(failure);
    await settle();
    expect(gate.active).toBe(0);
  });

  it('rejects as the gate does, without a request', async () => {
    let asked = 0;
    const gate = new Semaphore({ capacity: 1, maxWaiting: 0 });
    gate.tryAcquire();
    const get = gateFetch(gate, { fetch: async () => new Response(`${asked++}`) });
    await expect(get('http://test')).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL' });
    expect(asked).toBe(0);
  });

  it('minds the signal of the request: in line, while asking, while reading (T-40)', async () => {
    await using server = await upstream();
    const gate = new Semaphore(1);
    const get = gateFetch(gate);
    const reason = new Error('gone');

    const reading = new AbortController();
    const response = await get(server.url, { signal: reading.signal });
    const waiting = new AbortController();
    const waits = get(new Request(server.url, { signal: waiting.signal }));
    waiting.abort(reason);
    await expect(waits).rejects.toBe(reason);
    expect(gate.waiting).toBe(0);

    const text = response.text();
    reading.abort(reason);
    await expect(text).rejects.toBe(reason);
    await until(() => gate.active === 0 && server.open() === 0);

    const asking = new AbortController();
    const silent = gateFetch(gate, { fetch: () => new Promise(() => {}), teardownGraceMs: 0 });
    const asks = silent(server.url, { signal: asking.signal });
    await settle();
    asking.abort(reason);
    await expect(asks).rejects.toBe(reason);
    await until(() => gate.active === 0);
    await expect(get(server.url, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(server.asked()).toBe(1);
  });

  it('minds the signal of a `Request` that is not the platform’s own', async () => {
    const gate = new Semaphore(1);
    gate.tryAcquire();
    const get = gateFetch(gate, { fetch: async () => new Response('x') });
    const { signal, abort } = aborter();
    const waits = get({ url: 'http://test', signal } as Request);
    abort('gone');
    await expect(waits).rejects.toBe('gone');
    expect(gate.waiting).toBe(0);
  });

  it('takes a signal of null for none, as fetch does', async () => {
    const { signal, abort } = aborter();
    const get = gateFetch(new Semaphore(1), { fetch: async () => new Response('x') });
    const response = get(new Request('http://test', { signal }), { signal: null });
    abort('gone');
    expect(await (await response).text()).toBe('x');
  });

  it('minds a signal among the gate’s options beside that of the request', async () => {
    const gate = new Semaphore(1);
    const stopping = aborter();
    const asked = vi.fn<() => Promise<Response>>(async () => new Response(new ReadableStream()));
    const get = gateFetch(gate, { fetch: asked, options: { signal: stopping.signal } });
    const reading = (await get('http://test')).text();
    const own = aborter();
    const waits = get('http://test', { signal: own.signal });
    const waitsToo = get('http://test', { signal: aborter().signal });
    own.abort('gone');
    await expect(waits).rejects.toBe('gone');
    stopping.abort('stopping');
    await expect(waitsToo).rejects.toBe('stopping');
    await expect(reading).rejects.toBe('stopping');
    await until(() => gate.active === 0);
    await expect(get('http://test')).rejects.toBe('stopping');
    expect(asked).toHaveBeenCalledOnce();

    const later = aborter();
    const added = vi.spyOn(later.signal, 'addEventListener');
    const removed = vi.spyOn(later.signal, 'removeEventListener');
    const whole = gateFetch(gate, {
      fetch: async () => new Response('x'),
      options: { signal: later.signal },
    });
    expect(await (await whole('http://test')).text()).toBe('x');
    await settle();
    expect([added.mock.calls.length, removed.mock.calls.length]).toEqual([1, 1]);

    const wrong = gateFetch(gate, { options: { signal: 5 as never } });
    await expect(wrong('http://test')).rejects.toThrow(/`signal`/u);
  });

  it('answers with what can be copied, and each copy says where it is from', async () => {
    await using served = await serve((_, response) => {
      response.writeHead(999, 'Denied').end('hello');
    });
    const gate = new Semaphore(1);
    const response = await gateFetch(gate)(served.url);
    const copy = response.clone().clone();
    expect([copy.url, copy.status, copy.type]).toEqual([`${served.url}/`, 999, 'basic']);
    expect(await Promise.all([response.text(), copy.text()])).toEqual(['hello', 'hello']);
    expect(gate.active).toBe(0);
    expect(() => response.clone()).toThrow(TypeError);
  });

  it.each([
    ['a status that `Response` does not take', '999 Denied', 'utf8'],
    ['a reason beyond Latin-1', '404 Nicht gefunden – ähm', 'utf8'],
  ] as const)('answers with %s as fetch does', async (_, statusLine, encoding) => {
    await using server = await serve((request) => {
      request.socket.end(
        Buffer.from(`HTTP/1.1 ${statusLine}\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello`, encoding),
      );
    });
    const gate = new Semaphore(1);
    const plain = await fetch(server.url);
    await plain.text();
    const response = await gateFetch(gate)(server.url);
    expect(`${response.status} ${response.statusText}`).toBe(statusLine);
    expect([response.ok, response.statusText]).toEqual([plain.ok, plain.statusText]);
    expect(response.headers.get('x-a')).toBe('b');
    expect(await response.text()).toBe('hello');
    expect(gate.active).toBe(0);
  });

  it('rejects when a limiter of its own throws, and gives the place back', async () => {
    const gate = new Semaphore(1);
    const get = gateFetch(gate, {
      fetch: async () => new Response('x', { status: 429 }),
      limiter: {
        stats: () => ({ limits: [{ name: undefined }] }),
        sync: () => {},
        pause: () => {
          throw new Error('no pause');
        },
      },
    });
    await expect(get('http://test')).rejects.toThrow('no pause');
    await until(() => gate.active === 0);
  });

  it('leaves the chunks of the body as they are, be they small Buffers with common memory', async () => {
    const chunk = Buffer.from('ab');
    const body = new ReadableStream({
      start(controller) {
        for (const _ of [1, 2]) controller.enqueue(chunk);
        controller.close();
      },
    });
    const get = gateFetch(new Semaphore(1), { fetch: async () => new Response(body) });
    expect(await (await get('http://test')).text()).toBe('abab');
    expect(chunk.toString()).toBe('ab');
  });

  it('gives the place back where a chunk of the body is no bytes', async () => {
    const gate = new Semaphore(1);
    const body = new ReadableStream({ pull: (controller) => controller.enqueue('text') });
    const get = gateFetch(gate, { fetch: async () => new Response(body) });
    await expect((await get('http://test')).text()).rejects.toThrow(TypeError);
    await until(() => gate.active === 0);
  });

  it('gives the gate its options, made of each call where they are a function', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const seen: number[] = [];
    const get = gateFetch(queue, {
      fetch: async () => new Response('x'),
      options: (input) => ({
        priority: input === 'http://test/urgent' ? 1 : 5,
        onTicket: ({ priority }) => void seen.push(priority),
      }),
    });
    await (await get('http://test/urgent')).text();
    await (await get('http://test')).text();
    expect(seen).toEqual([1, 5]);
    const wrong = gateFetch(queue, { options: { priority: 9 } });
    await expect(wrong('http://test')).rejects.toThrow(RangeError);
  });

  it('tells a limiter what the upstream says of its limits', async () => {
    const clock = new ManualClock();
    let answer = new Response('x', {
      headers: { 'x-ratelimit-remaining-requests': '3', 'x-ratelimit-reset-requests': '10s' },
    });
    const one = new RateLimiter({ limit: 10, intervalMs: 60_000, clock });
    const both = new RateLimiter({
      limits: {
        requests: { limit: 10, intervalMs: 60_000 },
        tokens: { limit: 100, intervalMs: 60_000 },
      },
      clock,
    });
    const ask = async (limiter: UpstreamLimiter & Gate): Promise<void> => {
      const get = gateFetch(limiter, { fetch: async () => answer.clone(), limiter });
      await (await get('http://test')).text();
    };
    await ask(one);
    expect(one.available()).toBe(3);
    await ask(both);
    expect([both.available('requests'), both.available('tokens')]).toEqual([3, 99]);
    answer = new Response(null, { status: 429, headers: { 'retry-after': '7' } });
    await ask(one);
    expect(one.stats().pausedMs).toBe(7000);
    await ask(both);
    expect(both.stats().pausedMs).toBe(7000);
  });

  describe('tells a limiter', () => {
    /** What a limiter with limits of these names is told by an answer. */
    async function told(
      answer: ResponseInit,
      ...names: (string | undefined)[]
    ): Promise<{ syncs: unknown[]; pauses: number[] }> {
      const syncs: unknown[] = [];
      const pauses: number[] = [];
      const limiter: UpstreamLimiter = {
        pause: (ms) => pauses.push(ms),
        sync: (counts) => syncs.push(counts),
        stats: () => ({ limits: names.map((name) => ({ name })) }),
      };
      const get = gateFetch(new Semaphore(1), {
        fetch: async () => new Response(null, answer),
        limiter,
      });
      await get('http://test');
      return { syncs, pauses };
    }

    it('without names the count of requests, or the only one that there is', async () => {
      const headers = { 'x-ratelimit-remaining': '9', 'x-ratelimit-remaining-requests': '3' };
      expect((await told({ headers }, undefined)).syncs).toEqual([{ remaining: 3 }]);
      const only = { 'ratelimit-remaining': '9' };
      expect((await told({ headers: only }, undefined)).syncs).toEqual([{ remaining: 9 }]);
      const another = { 'x-ratelimit-remaining-tokens': '9' };
      expect((await told({ headers: another }, undefined)).syncs).toEqual([]);
    });

    it('with names the counts of those, and nothing where there are none', async () => {
      const headers = { 'x-ratelimit-remaining-images': '9', 'x-ratelimit-remaining-tokens': '3' };
      const { syncs } = await told({ headers }, 'requests', 'tokens');
      expect(syncs).toEqual([{ tokens: { remaining: 3 } }]);
      expect((await told({ headers }, 'requests')).syncs).toEqual([]);
    });

    it('to pause after a 429 or 503 alone', async () => {
      const headers = { 'retry-after': '7' };
      for (const status of [429, 503]) {
        expect((await told({ status, headers }, undefined)).pauses).toEqual([7000]);
        expect((await told({ status }, undefined)).pauses).toEqual([0]);
      }
      for (const status of [200, 500]) {
        expect((await told({ status, headers }, undefined)).pauses).toEqual([]);
      }
    });
  });

  it('refuses what it cannot work with', () => {
    const gate: Gate = new Semaphore(1);
    for (const wrong of [undefined, null, {}]) {
      expect(() => gateFetch(wrong as never)).toThrow(
        new TypeError('Expected `gate` to have a method `run`.'),
      );
    }
    expect(() => gateFetch(gate, { fetch: 1 as never })).toThrow(
      new TypeError('Expected `fetch` to be a function, got 1.'),
    );
    expect(() => gateFetch(gate, { stall: 1 } as never)).toThrow(/stall.*gateFetch/);
    expect(() => gateFetch(gate, { stallMs: -1 })).toThrow(/^Expected `stallMs` to be .*, got -1/u);
    expect(() => gateFetch(gate, { teardownGraceMs: -1 })).toThrow(
      /^Expected `teardownGraceMs` to be .*, got -1/u,
    );
  });

  it('keeps the client of OpenAI within the limit, be its answers read, left or aborted', async () => {
    using uncaught = catchUncaught();
    await using server = await upstream();
    const gate = new Semaphore(2);
    let most = 0;
    gate.on('acquired', ({ active }) => (most = Math.max(most, active)));
    const client = new OpenAI({
      apiKey: 'x',
      baseURL: server.url,
      maxRetries: 0,
      fetch: gateFetch(gate),
    });
    const going = setInterval(server.go, 2);
    const answers = await Promise.all(
      Array.from({ length: 12 }, async (_, i) => {
        const stream = await client.chat.completions.create({
          model: 'm',
          messages: [],
          stream: true,
        });
        let text = '';
        for await (const chunk of stream) {
          text += chunk.choices[0]!.delta.content;
          if (i % 3 === 1) break;
          if (i % 3 === 2) stream.controller.abort();
        }
        return text;
      }),
    );
    clearInterval(going);
    for (const [i, text] of answers.entries()) expect(text).toBe(i % 3 === 0 ? '012' : '0');
    expect(most).toBe(2);
    await until(() => gate.active === 0 && server.open() === 0);
    expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
  });
});
