import { EventEmitter, once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { Registry } from 'prom-client';
import type { RateLimiter, SessionManager } from 'sluice';
import { describe, expect, it, vi } from 'vitest';

import { runExamples } from './support/doc-examples.ts';

describe('docs/session-manager.md', () => {
  it('has examples that do what they say', async () => {
    const model = {
      begun: 0,
      finish: Promise.withResolvers<void>(),
      /** Says a word, and another one when told to or when its caller is gone. */
      async *stream({ signal }: { signal: AbortSignal }): AsyncGenerator<string> {
        model.begun++;
        yield 'Because';
        await new Promise<void>((resolve, reject) => {
          void model.finish.promise.then(resolve);
          signal.addEventListener('abort', () => reject(signal.reason as Error));
        });
        yield 'of physics.';
      },
    };
    const log = vi.fn<(...parts: unknown[]) => void>();
    const fakeProcess = Object.assign(new EventEmitter(), { env: { PORT: '0' } });
    const { server, sessions, shutDown } = (await runExamples('docs/session-manager.md', {
      callModel: Object.assign(async () => 'Because.', { stream: model.stream }),
      bus: new EventEmitter(),
      console: { log, error: log },
      process: fakeProcess,
    })) as unknown as {
      server: Server;
      sessions: SessionManager;
      shutDown: () => Promise<void>;
    };
    expect(log).toHaveBeenCalledWith('closed');

    // The server of the last example: one reader stays, one goes, then the platform says stop.
    if (!server.listening) await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const stays = await fetch(url, { headers: { 'X-Request-Id': 'stays' } });
    const leaving = new AbortController();
    await fetch(url, { signal: leaving.signal });
    expect([model.begun, sessions.active]).toEqual([2, 2]);
    leaving.abort();
    await vi.waitFor(() => expect(sessions.active).toBe(1));

    fakeProcess.emit('SIGTERM');
    await expect(sessions.run(() => {})).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    model.finish.resolve();
    await expect(stays.text()).resolves.toBe(
      'event: token\ndata: "Because"\n\nevent: token\ndata: "of physics."\n\nevent: done\ndata: {}\n\n',
    );
    await shutDown();
    expect(server.listening).toBe(false);
    expect(sessions.stats()).toMatchObject({ active: 0, cancelled: 1, closed: true });
  });
});

describe('docs/shared-resource.md', () => {
  it('has examples that do what they say', async () => {
    const unloaded: string[] = [];
    await runExamples('docs/shared-resource.md', {
      loadModel: async (name: string) => ({
        name,
        embed: () => [0.25, 0.5],
        unload: () => unloaded.push(name),
      }),
      unloaded,
    });
    expect(unloaded).toEqual(['minilm', 'bge']);
  });
});

describe('docs/rate-limiter.md', () => {
  it('has examples that do what they say', async () => {
    const refuse = vi.fn<(retryAfterMs: number) => void>();
    const usage = { usage: { total_tokens: 1500 } };
    const answers = [
      new Response(null, { status: 429, headers: { 'retry-after-ms': '1' } }),
      new Response('Because.'),
    ];
    const { limiter } = (await runExamples('docs/rate-limiter.md', {
      signal: new AbortController().signal,
      refuse,
      prompt: 'Why?',
      estimate: (prompt: string) => prompt.length + 1000,
      callModel: async () => usage,
      callApi: async () => answers.shift(),
      user: 'ann',
      response: new Response(null, {
        status: 429,
        headers: { 'retry-after-ms': '1', 'x-ratelimit-remaining-tokens': '20000' },
      }),
    })) as unknown as { limiter: RateLimiter<'requests' | 'tokens'> };
    expect(refuse).not.toHaveBeenCalled();
    expect(answers).toEqual([]);
    // 1500 of the guide's first call, what the upstream did not have, and one call of the last recipe.
    expect(limiter.stats()).toMatchObject({ granted: 3, active: 0, waiting: 0 });
    expect(limiter.available('tokens')).toBeLessThan(20_000);
  });
});

describe('docs/recipes/prometheus.md', () => {
  const read = (path: string): Promise<string> =>
    readFile(new URL(`../${path}`, import.meta.url), 'utf8');

  it('has examples that do what they say', async () => {
    const { registry } = (await runExamples('docs/recipes/prometheus.md', {
      callModel: async () => 'Because.',
    })) as unknown as { registry: Registry };
    const documented = await read('docs/recipes/prometheus.md');
    for (const { name } of await registry.getMetricsAsJSON()) {
      expect(documented).toContain(`\`${name}\``);
    }
  });

  it('has the wiring of the example that it is from', async () => {
    const [, wiring] = /^```ts\n([\s\S]*?)^```$/m.exec(await read('docs/recipes/prometheus.md'))!;
    const source = await read('examples/document-service/metrics.ts');
    expect(wiring).toBe(source.replace('export class', 'class'));
  });
});
