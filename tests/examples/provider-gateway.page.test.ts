import type { Browser, Page } from 'playwright-core';
import type { SessionRecord } from 'sluice';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';

import { type GatewayServer, startGateway } from '../../examples/provider-gateway/server.ts';
import { readSettings } from '../../examples/provider-gateway/settings.ts';
import { timelinePage } from '../../examples/provider-gateway/timeline.ts';
import { contrast, launchBrowser } from '../support/browser.ts';
import { ScriptedModel } from './scripted-model.ts';

let browser: Browser;
const open: { close(): Promise<unknown> }[] = [];

beforeAll(async () => {
  browser = await launchBrowser();
}, 60_000);

afterAll(() => browser.close());

beforeEach(() => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
});

afterEach(async () => {
  vi.restoreAllMocks();
  // The browser leaves first, then the providers go.
  for (const each of open.splice(0).toReversed()) await each.close();
});

interface Visit {
  readonly gateway: GatewayServer;
  readonly fast: ScriptedModel;
  readonly slow: ScriptedModel;
  readonly page: Page;
  /** Everything that the page has asked for, and what it complained about. */
  readonly requested: string[];
  readonly complaints: string[];
}

/** A browser on the page of a gateway with room for one at each of two scripted providers. */
async function visit(viewport = { width: 1280, height: 800 }): Promise<Visit> {
  const [fast, slow] = [await new ScriptedModel().start(), await new ScriptedModel().start()];
  const env = { GATEWAY_PORT: '0', GATEWAY_FAST_CONCURRENCY: '1', GATEWAY_FAULTS: '1' };
  const urls = { fast: fast.baseURL, slow: slow.baseURL };
  const gateway = await startGateway(readSettings(env, urls));
  const context = await browser.newContext({ viewport });
  open.push(gateway, fast, slow, context);
  const page = await context.newPage();
  const requested: string[] = [];
  const complaints: string[] = [];
  page.on('request', (request) => requested.push(request.url()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  await page.goto(gateway.url);
  return { gateway, fast, slow, page, requested, complaints };
}

function ask({ url }: GatewayServer): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"model":"short","messages":[{"role":"user","content":"Why?"}]}',
  });
}

/** One answer by the fast provider, for which another had to wait, and one by the slow when that fails. */
async function askThree({ gateway, fast, slow }: Visit): Promise<void> {
  const answers = [ask(gateway), ask(gateway)];
  const first = await fast.next();
  await vi.waitFor(() =>
    expect(gateway.gateway.health().providers[0]).toMatchObject({ active: 1, waiting: 1 }),
  );
  first.finish();
  (await fast.next()).finish();
  answers.push(ask(gateway));
  (await fast.next()).refuse(500);
  (await slow.next()).finish();
  for (const answer of answers) expect((await answer).status).toBe(200);
}

function statuses(page: Page): Promise<string[]> {
  return page.locator('tr td:nth-child(5)').allInnerTexts();
}

describe('the page of phases', () => {
  it('shows what comes by itself: each attempt, the latest first, and how the circuits are', async () => {
    const visited = await visit();
    const { page, requested, complaints, gateway } = visited;
    expect(await statuses(page)).toEqual([]);
    expect(await page.locator('.provider').allInnerTexts()).toEqual([
      'fast circuit closed, 0 active, 0 waiting',
      'slow circuit closed, 0 active, 0 waiting',
    ]);
    await askThree(visited);
    await page.getByText('fast circuit open, 0 active, 0 waiting').waitFor();
    expect(await statuses(page)).toEqual([
      'completed',
      'failed ERR_PROVIDER_FAILED',
      'completed',
      'completed',
    ]);
    expect(await page.locator('tr td:nth-child(3)').allInnerTexts()).toEqual([
      'slow',
      'fast',
      'fast',
      'fast',
    ]);
    // The two attempts of the one request.
    const [second, first] = await page.locator('tr td:first-child').allInnerTexts();
    expect(second).toBe(first);
    expect(new Set(requested)).toEqual(new Set([`${gateway.url}/`]));
    expect(complaints).toEqual([]);
  });

  it('draws phases as long as they took', async () => {
    const { page } = await visit();
    const phases = { received: 0, queued: 100, dequeued: 500, allocated: 500, callStart: 600 };
    const attempt = { id: 'a', requestId: 'r', status: 'completed', metadata: {} };
    const records = [
      { ...attempt, elapsedMs: 2000, phases: { ...phases, callEnd: 1400, released: 1900 } },
      // It was in line to its end.
      { ...attempt, elapsedMs: 1000, phases: { received: 0, queued: 500 } },
    ];
    await page.setContent(String(await timelinePage(records as unknown as SessionRecord[], [])));
    const bars = [
      { received: 100, queued: 400, allocated: 100, callStart: 800, callEnd: 500, released: 100 },
      { received: 500, queued: 500 },
    ];
    for (const [index, parts] of bars.entries()) {
      const bar = page.locator('.bar').nth(index);
      const whole = (await bar.boundingBox())!;
      let left = whole.x;
      for (const [phase, ms] of Object.entries(parts)) {
        const box = (await bar.locator(`[title^="${phase} "]`).boundingBox())!;
        expect(Math.abs(box.x - left), phase).toBeLessThanOrEqual(2);
        expect(Math.abs(box.width - (ms / 2000) * whole.width), phase).toBeLessThanOrEqual(2);
        left = box.x + box.width;
      }
    }
  });

  it('fits a phone, and can be read', async () => {
    const visited = await visit({ width: 390, height: 844 });
    const { page } = visited;
    await askThree(visited);
    await page.reload();
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(390);
    const bar = (await page.locator('.bar').first().boundingBox())!;
    expect(bar.width).toBeGreaterThan(300);
    for (const selector of ['h1', '.provider', '.key', '.completed td', '.failed td']) {
      expect(await contrast(page, selector), selector).toBeGreaterThanOrEqual(4.5);
    }
  });
});
