import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { afterEach, describe, expect, it } from 'vitest';

import { demo, startProvider } from '../../examples/llm-quota/demo.ts';
import { estimateOf, LimitedProvider, type Quota } from '../../examples/llm-quota/limited.ts';
import { anthropic, openai } from '../../examples/llm-quota/providers.ts';
import { exhaust } from '../../examples/llm-quota/report.ts';
import { type ModelServer, startModelServer } from '../../examples/model-server/server.ts';
import type { ModelServerOptions } from '../../examples/model-server/settings.ts';
import { FABLES } from './fables.ts';

const servers: ModelServer[] = [];

afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
});

const PROVIDERS = [
  ['openai', (url: string) => openai(`${url}/v1`)],
  ['anthropic', (url: string) => anthropic(url)],
] as const;

async function start(options: ModelServerOptions): Promise<ModelServer> {
  const server = await startModelServer({
    port: 0,
    prefillMsPerToken: 0,
    decodeMsPerToken: 0,
    corpus: FABLES,
    ...options,
  });
  servers.push(server);
  return server;
}

describe('with the limits that the provider has', () => {
  it('is never refused, and uses at least 95 % of what it could have', async () => {
    const reports = await demo(60);
    for (const report of reports) {
      expect(report).toMatchObject({ sent: 60, completed: 60, refused: 0 });
      const binding = Math.max(report.utilisation.requests, report.utilisation.tokens);
      expect(binding).toBeGreaterThanOrEqual(0.95);
      expect(binding).toBeLessThanOrEqual(1);
    }
    const [first, second] = reports.map(({ utilisation }) => utilisation);
    expect(first!.tokens).toBeGreaterThan(first!.requests);
    expect(second!.requests).toBeGreaterThan(second!.tokens);
  });
});

describe.each(PROVIDERS)('%s', (name, providerAt) => {
  it('is refused with limits that are too high, heeds that, and has every answer in the end', async () => {
    const real: Quota = { requests: 20, tokens: 1500, windowMs: 1000 };
    const believed: Quota =
      name === 'openai'
        ? { ...real, requests: 60, tokens: 6000 }
        : { ...real, requests: 60, tokens: 4500 };
    const server = await startProvider(real);
    servers.push(server);
    const report = await exhaust(providerAt(server.url), believed, 60);
    expect(report).toMatchObject({ completed: 60, sent: 60 + report.refused });
    // With the one that went ahead.
    expect(server.stats()).toMatchObject({ served: 61, limited: report.refused, active: 0 });
    // Three times the quota, not heeded, is refused twice for each answer.
    expect(report.refused).toBeGreaterThan(0);
    expect(report.refused).toBeLessThan(60);
  });

  it('estimates no less than is used, which it settles', async () => {
    const server = await start({});
    const quota = { requests: 100, tokens: 100_000, windowMs: 3_600_000 };
    const limited = new LimitedProvider(providerAt(server.url), quota);
    let used = 0;
    for (const prompt of [
      'Why?',
      'What did the fox, the crow and the tortoise see?',
      'a b c d e',
    ]) {
      const question = { prompt, maxTokens: 400 };
      const { text: answer, tokens } = await limited.ask(question);
      expect(answer).toMatch(/^[A-Z].*\.$/);
      expect(tokens).toBeLessThan(estimateOf(question));
      used += tokens;
    }
    const { burst, available } = limited.limiter.stats().limits[1]!;
    // A few have come in meanwhile: 28 a second.
    expect(available).toBeGreaterThanOrEqual(burst - used);
    expect(available).toBeLessThan(burst - used + 150);
  });

  it('gives up at once on what is no refusal for the quota', async () => {
    const server = await start({ apiKey: 'open sesame' });
    const quota = { requests: 10, tokens: 1000, windowMs: 1000 };
    const limited = new LimitedProvider(providerAt(server.url), quota);
    await expect(limited.ask({ prompt: 'Why?', maxTokens: 9 })).rejects.toMatchObject({
      status: 401,
    });
    expect([limited.sent, limited.refused, limited.limiter.active]).toEqual([1, 0, 0]);
  });
});

describe('start.ts', () => {
  const path = fileURLToPath(new URL('../../examples/llm-quota/start.ts', import.meta.url));

  /** What it imports by the name of the package is in dist. */
  async function run(...args: string[]): Promise<{ code: unknown; out: string; err: string }> {
    const child = spawn(process.execPath, [path, ...args]);
    const exit = once(child, 'exit');
    const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
    return { code: (await exit)[0], out, err };
  }

  it('prints a row for each provider, and ends', async () => {
    const { code, out, err } = await run('--calls', '12');
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^provider +sent +completed +429s +tokens +time +of requests +of tokens$/m);
    for (const [name] of PROVIDERS) {
      expect(out).toMatch(
        new RegExp(`^${name} +12 +12 +0 +\\d+ +[\\d.]+ s +[\\d.]+ % +[\\d.]+ %$`, 'm'),
      );
    }
  });

  it.each([
    [['--calls', '0'], 'Expected --calls to be an integer from 1 to 100000, got "0".'],
    [['--calls='], 'got ""'],
    [['--cals', '5'], "Unknown option '--cals'"],
  ])('refuses %j and says why', async (args, message) => {
    const { code, out, err } = await run(...args);
    expect([code, out]).toEqual([1, '']);
    expect(err).toContain(message);
    expect(err).not.toContain('    at ');
  });
});
