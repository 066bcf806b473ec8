import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { chartOf } from '../../examples/document-service/chart.ts';
import { summaryOf } from '../../examples/document-service/summary.ts';
import { sendTraffic, type TrafficReport } from '../../examples/document-service/traffic.ts';
import { serve, until } from '../support/serve.ts';

const LOAD = fileURLToPath(new URL('../../examples/document-service/load.ts', import.meta.url));

const HEALTH = JSON.stringify({
  parts: { documents: { active: 15, waiting: 45 }, calls: { active: 10, waiting: 5 } },
});

describe('sendTraffic()', () => {
  it('sends so many documents, so many at a time, and counts what becomes of them', async () => {
    const bodies: string[] = [];
    let now = 0;
    let peak = 0;
    let healths = 0;
    await using service = await serve((request, response) => {
      if (request.url === '/health') {
        healths += 1;
        response.end(HEALTH);
        return;
      }
      now += 1;
      peak = Math.max(peak, now);
      void text(request).then(async (body) => {
        const number = bodies.push(body);
        // The first ones wait until all that may come at once are there, and one look at the lines.
        if (number <= 5) await until(() => peak === 5 && healths > 0);
        now -= 1;
        if (number === 6) response.destroy();
        else response.writeHead(number % 4 === 0 ? 503 : 200).end();
      });
    });
    const report = await sendTraffic(service.url, {
      requests: 20,
      concurrency: 5,
      text: 'A text.',
    });
    expect([bodies.length, new Set(bodies).size, peak]).toEqual([20, 20, 5]);
    expect(report).toMatchObject({
      requests: 20,
      concurrency: 5,
      statuses: { 0: 1, 200: 14, 503: 5 },
      successRate: 0.7,
      latencyMs: { min: expect.any(Number), p95: expect.any(Number) },
    });
    expect(report.throughputPerSecond).toBeCloseTo(14_000 / report.elapsedMs, 5);
    expect(report.samples).toHaveLength(20);
    expect(report.depths[0]).toEqual({
      atMs: expect.any(Number),
      active: 15,
      waiting: 45,
      calls: 10,
    });
  });
});

describe('summaryOf()', () => {
  it('has nothing to say of nothing', () => {
    expect(summaryOf([])).toBeUndefined();
  });

  it('tells mean, median and the nearest rank, whatever the order', () => {
    const values = Array.from({ length: 100 }, (_, index) => ((index * 37) % 100) + 1);
    expect(summaryOf(values)).toEqual({ min: 1, mean: 50.5, median: 50, p95: 95, max: 100 });
    expect(summaryOf([7])).toEqual({ min: 7, mean: 7, median: 7, p95: 7, max: 7 });
  });
});

describe('chartOf()', () => {
  const report: TrafficReport = {
    requests: 2,
    concurrency: 1,
    elapsedMs: 2000,
    statuses: { 200: 1, 503: 1 },
    successRate: 0.5,
    throughputPerSecond: 0.5,
    latencyMs: undefined,
    refusalMs: undefined,
    samples: [
      { startedMs: 0, latencyMs: 1000, status: 200 },
      { startedMs: 1990, latencyMs: 10, status: 503 },
    ],
    depths: [
      { atMs: 0, active: 1, waiting: 4, calls: 1 },
      { atMs: 2000, active: 0, waiting: 0, calls: 0 },
    ],
  };

  it('has a dot for each answer, at its time and height', () => {
    const dots = [...chartOf(report).matchAll(/<circle cx="(.+?)" cy="(.+?)" .*? fill="(.+?)"/g)];
    // From 60 to 840 are two seconds; from 250 up to 50 is one.
    expect(dots.map(([, x, y]) => [x, y])).toEqual([
      ['450', '50'],
      ['840', '248'],
    ]);
    expect(dots[0]![3]).not.toBe(dots[1]![3]);
  });

  it('has a line for each of the figures', () => {
    const lines = [...chartOf(report).matchAll(/<polyline points="(.+?)"/g)].map(
      ([, line]) => line,
    );
    expect(lines).toEqual(['60,310 840,510', '60,460 840,510', '60,460 840,510']);
  });

  it('is there for a run without an answer', () => {
    const empty = chartOf({ ...report, elapsedMs: 0, samples: [], depths: [] });
    expect(empty).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
    expect(empty).not.toMatch(/NaN|Infinity|undefined/);
  });
});

describe('load.ts', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'load-'));
  });

  afterEach(() => rm(directory, { recursive: true }));

  async function run(
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<{ code: unknown; out: string; err: string }> {
    const child = spawn(process.execPath, [LOAD, ...args], {
      env: { PATH: process.env['PATH'], ...env },
    });
    const exit = once(child, 'exit');
    const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
    return { code: (await exit)[0], out, err };
  }

  it('starts a service, and writes what it has seen', { timeout: 60_000 }, async () => {
    const path = join(directory, 'results');
    const { code, out, err } = await run(
      ['--requests', '30', '--concurrency', '20', '--out', path],
      { DOCUMENT_MAX_TOKENS: '5' },
    );
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^30 documents, 20 at a time, in [\d.]+ s$/m);
    expect(out).toMatch(/^success +100\.0 % \(30 x 200\)$/m);
    expect(out).toMatch(/^answered +min .* s, mean .* s, median .* s, p95 .* s, max .* s$/m);
    const report = JSON.parse(await readFile(`${path}.json`, 'utf8')) as TrafficReport;
    expect(report).toMatchObject({ requests: 30, successRate: 1, statuses: { 200: 30 } });
    expect(Math.max(...report.depths.map(({ calls }) => calls))).toBeLessThanOrEqual(10);
    const chart = await readFile(`${path}.svg`, 'utf8');
    expect(chart.match(/<circle /g)).toHaveLength(30);
  });

  it('takes a service that is there', async () => {
    await using service = await serve((request, response) => {
      request.resume().once('end', () => response.end(HEALTH));
    });
    const path = join(directory, 'results');
    const { code, out } = await run([
      '--url',
      service.url,
      '--requests',
      '3',
      '--concurrency',
      '1',
      '--out',
      path,
    ]);
    expect(code).toBe(0);
    expect(out).toMatch(/^success +100\.0 % \(3 x 200\)$/m);
  });

  it('says so where nobody answers', async () => {
    const path = join(directory, 'results');
    const args = ['--url', 'http://127.0.0.1:1', '--requests', '2', '--out', path];
    expect((await run(args)).out).toMatch(/^success +0\.0 % \(2 x no answer\)$/m);
  });

  it.each([
    [['--help'], 0, /^Usage: /],
    [['--requests', '0'], 1, /^Expected --requests to be an integer from 1 to 1000000, got "0"\./],
    [['--concurrency=x'], 1, /^Expected --concurrency .*, got "x"\./],
    [['--request', '1'], 1, /^Unknown option '--request'/],
    [['--url', 'here'], 1, /^Expected --url to be an http or https URL, got "here"\./],
  ])('%j ends with %i and says why', async (args, status, message) => {
    const { code, out, err } = await run(args);
    expect(code).toBe(status);
    expect(out + err).toMatch(message);
  });
});
