import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';

import { startChatServer, type ChatServer } from '../../examples/tutoring-chat/server.ts';
import { readSettings } from '../../examples/tutoring-chat/settings.ts';
import { contrast, launchBrowser } from '../support/browser.ts';
import { openTab, post, type Tab } from './chat-client.ts';
import { type Held, ScriptedModel } from './scripted-model.ts';

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
  for (const each of open.splice(0).toReversed()) await each.close();
});

interface Visit {
  readonly chat: ChatServer;
  readonly model: ScriptedModel;
  readonly page: Page;
  /** Everything that the page has asked for, and what it complained about. */
  readonly requested: string[];
  readonly complaints: string[];
}

/** A browser on the page of a chat with a scripted model. */
async function visit(
  env: Readonly<Record<string, string>> = {},
  options: Parameters<Browser['newContext']>[0] = {},
): Promise<Visit> {
  const model = await new ScriptedModel().start();
  open.push(model);
  const settings = readSettings({ CHAT_PORT: '0', CHAT_CONCURRENCY: '1', ...env }, model.baseURL);
  const chat = await startChatServer(settings);
  open.push(chat);
  const context: BrowserContext = await browser.newContext(options);
  open.push(context);
  const page = await context.newPage();
  const requested: string[] = [];
  const complaints: string[] = [];
  page.on('request', (request) => requested.push(request.url()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  await page.goto(chat.url);
  return { chat, model, page, requested, complaints };
}

async function ask(page: Page, question: string): Promise<void> {
  await page.getByLabel('Your question').fill(question);
  await page.keyboard.press('Enter');
}

/** Somebody else whose question is being answered. */
async function occupy(chat: ChatServer, model: ScriptedModel): Promise<{ tab: Tab; held: Held }> {
  const tab = await openTab(chat.url, { question: 'Somebody else?' });
  return { tab, held: await model.next() };
}

async function warmUp(chat: ChatServer, model: ScriptedModel): Promise<void> {
  for (let i = 0; i < 5; i += 1) {
    const answer = post(`${chat.url}/api/chat`, { question: 'Quick?' });
    (await model.next()).finish();
    await (await answer).text();
  }
}

function eventually<T>(read: () => T): ReturnType<typeof expect.poll<T>> {
  return expect.poll(read, { timeout: 10_000 });
}

/** Resolves when the line has come to this. */
async function until(chat: ChatServer, gauges: object): Promise<void> {
  await eventually(() => chat.stats()).toMatchObject(gauges);
}

async function seen(page: Page, text: string | RegExp): Promise<void> {
  await page.getByText(text).filter({ visible: true }).first().waitFor();
}

describe('the page', () => {
  it('shows the place in line go down, then the answer token by token', async () => {
    const { chat, model, page, complaints } = await visit();
    await warmUp(chat, model);
    const first = await occupy(chat, model);
    const second = await openTab(chat.url, { question: 'Next?' });
    await ask(page, 'Why is the sky blue?');
    expect(await page.locator('.question').textContent()).toBe('Why is the sky blue?');
    await seen(page, /^You are number 2, (?:about \d+ s|any moment now)$/);
    expect(await page.locator('.people i').count()).toBe(2);

    first.held.finish();
    await seen(page, /^You are number 1, /);
    expect(await page.locator('.people i').count()).toBe(1);
    expect(await page.getByRole('status').allTextContents()).toContainEqual(
      expect.stringMatching(/^You are number 1, /),
    );

    (await model.next()).finish();
    await second.rest();
    const held = await model.next();
    expect(held.question).toBe('Why is the sky blue?');
    held.token('Because <b>of');
    await seen(page, /^Because <b>of$/);
    await eventually(() => page.locator('.line').isVisible()).toBe(false);
    held.token(' Rayleigh</b>');
    await seen(page, 'Because <b>of Rayleigh</b>');
    held.finish(' scattering.');
    await seen(page, /3 tokens in [\d.]+ s$/);
    expect(await page.locator('.text').textContent()).toBe(
      'Because <b>of Rayleigh</b> scattering.',
    );
    expect(await page.locator('.answer').getAttribute('aria-busy')).toBe('false');
    expect(complaints).toEqual([]);
    first.tab.close();
  });

  it('leaves the line at once when the visitor stops', async () => {
    const { chat, model, page, complaints } = await visit();
    const { tab } = await occupy(chat, model);
    await ask(page, 'Am I in line?');
    await seen(page, 'You are number 1');
    expect(await page.getByRole('button', { name: 'Ask', exact: true }).isVisible()).toBe(false);
    await page.getByRole('button', { name: 'Stop' }).click();
    await seen(page, 'You left the line.');
    await until(chat, { active: 1, waiting: 0, cancelled: 1 });
    await page.getByRole('button', { name: 'Ask', exact: true }).waitFor();
    expect(complaints).toEqual([]);
    tab.close();
  });

  it('ends an answer in the middle when the visitor stops, also at the model', async () => {
    const { model, page, chat } = await visit();
    await ask(page, 'Tell me everything.');
    const held = await model.next();
    held.token('Once upon a time');
    await seen(page, 'Once upon a time');
    await page.getByRole('button', { name: 'Stop' }).click();
    await seen(page, 'stopped by you');
    expect(await page.locator('.text').textContent()).toBe('Once upon a time');
    await held.closed;
    await until(chat, { active: 0, waiting: 0 });
  });

  it('frees the place when its tab is closed', async () => {
    const { model, page, chat } = await visit();
    await ask(page, 'Tell me everything.');
    const held = await model.next();
    held.token('Once');
    await seen(page, 'Once');
    await page.close();
    await held.closed;
    await until(chat, { active: 0, waiting: 0, cancelled: 1 });
    expect(chat.stats().completed).toBe(0);
  });

  it('counts down to the next try when the line is full, and lets the visitor try', async () => {
    const { chat, model, page } = await visit({ CHAT_MAX_WAITING: '0' });
    await warmUp(chat, model);
    const { tab, held } = await occupy(chat, model);
    await ask(page, 'Is there room?');
    await seen(page, /^The line is full: 0 are waiting, at most 0 may\. The wait would be about/);
    const again = page.locator('.again');
    expect(await again.textContent()).toMatch(/^Ask again in \d+ s$/);
    expect(await again.isDisabled()).toBe(true);
    held.finish();
    await tab.rest();
    await page.getByRole('button', { name: 'Ask again', exact: true }).click();
    expect(await page.locator('article').count()).toBe(1);
    const own = await model.next();
    expect(own.question).toBe('Is there room?');
    own.finish('Now there is.');
    await seen(page, 'Now there is.');
  });

  it('tells what is wrong with a question, and when an answer breaks off', async () => {
    const { model, page } = await visit();
    await ask(page, 'a'.repeat(9000));
    await seen(page, 'Expected `question` to take at most 8192 bytes, got 9000.');
    expect(await page.locator('.again').isVisible()).toBe(false);
    await ask(page, 'And this?');
    const held = await model.next();
    held.token('Half an');
    await seen(page, 'Half an');
    held.cut();
    await seen(page, 'The answer broke off. The model failed.');
    await page.getByRole('button', { name: 'Ask again', exact: true }).waitFor();
  });

  it('asks one question at a time, with Enter, not with Shift+Enter or blanks', async () => {
    const { model, page } = await visit();
    const field = page.getByLabel('Your question');
    await ask(page, '   ');
    await field.fill('Two');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('lines?');
    await page.keyboard.press('Enter');
    const held = await model.next();
    expect(held.question).toBe('Two\nlines?');
    expect(await field.inputValue()).toBe('');
    await ask(page, 'Another one?');
    expect(await field.inputValue()).toBe('Another one?');
    held.finish();
    await page.getByRole('button', { name: 'Ask', exact: true }).click();
    expect((await model.next()).question).toBe('Another one?');
    expect(model.untaken).toBe(0);
  });

  it('shows what was asked before, the visitor’s own alone', async () => {
    const { model, page, complaints } = await visit();
    for (const question of ['First?', 'Second?']) {
      await ask(page, question);
      (await model.next()).finish(question.replace('?', '.'));
      await seen(page, question.replace('?', '.'));
      await page.locator('#send').waitFor();
    }
    await page.reload();
    await seen(page, 'Second.');
    expect(await page.locator('.question').allTextContents()).toEqual(['First?', 'Second?']);
    expect(await page.locator('.text').allTextContents()).toEqual(['First.', 'Second.']);
    expect(await page.locator('.again').filter({ visible: true }).count()).toBe(0);
    await ask(page, 'Third?');
    const held = await model.next();
    expect(held.said.slice(1)).toEqual(['First?', 'First.', 'Second?', 'Second.', 'Third?']);
    held.finish('Third.');
    await seen(page, 'Third.');

    const stranger = await browser.newContext();
    open.push(stranger);
    const other = await stranger.newPage();
    await other.goto(page.url());
    await seen(other, 'What would you like to understand?');
    expect(await other.locator('.question').count()).toBe(0);
    expect(complaints).toEqual([]);
  });

  it('comes back to its place when the server is started again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'page-'));
    open.push({ close: () => rm(folder, { recursive: true }) });
    const env = { CHAT_STATE_FILE: join(folder, 'state.json') };
    const { chat, model, page } = await visit(env);
    const { tab, held } = await occupy(chat, model);
    const next = await openTab(chat.url, { question: 'Next?' });
    await ask(page, 'Do I lose my place?');
    await seen(page, 'You are number 2');
    const drained = chat.drain();
    await seen(page, 'The server restarts and keeps your place…');
    held.finish();
    await Promise.all([tab.rest(), next.rest(), drained]);

    const { port } = chat;
    const again = { ...env, CHAT_PORT: String(port), CHAT_CONCURRENCY: '1' };
    open.push(await startChatServer(readSettings(again, model.baseURL)));
    const before = await model.next();
    expect(before.question).toBe('Next?');
    await seen(page, 'You are number 1');
    before.finish();
    const own = await model.next();
    expect(own.question).toBe('Do I lose my place?');
    own.finish('No.');
    await seen(page, /^No\.$/);
    await seen(page, /tokens in [\d.]+ s$/);
  });

  it('shows how the line is, and that it cannot when the server is gone', async () => {
    const { chat, model, page } = await visit();
    await warmUp(chat, model);
    const { tab } = await occupy(chat, model);
    const waiting = await openTab(chat.url, { question: 'Next?' });
    const figures = page.locator('#panel dd');
    await eventually(() => figures.allTextContents()).toEqual([
      '1 of 1',
      '1',
      expect.stringMatching(/^\d+$/),
      expect.stringMatching(/^[\d.]+ s$/),
    ]);
    const chart = page.getByRole('img', { name: /^Over the last minutes up to \d+ waited/ });
    await chart.waitFor();
    expect(await page.locator('#chart-active').getAttribute('d')).toMatch(/^M[\d.]+,\d.*Z$/);
    tab.close();
    waiting.close();
    await chat.close();
    await seen(page, 'No connection. Trying again…');
  });

  it('needs nothing from anywhere else', async () => {
    const { chat, page, requested, complaints } = await visit();
    await seen(page, 'What would you like to understand?');
    await eventually(() => requested).toContain(`${chat.url}/api/queue/stats`);
    expect(requested).toContain(`${chat.url}/style.css`);
    expect(
      requested.filter((url) => !url.startsWith(`${chat.url}/`) && !url.startsWith('data:')),
    ).toEqual([]);
    expect(complaints).toEqual([]);
  });

  it.each(['light', 'dark'] as const)('fits a phone, and can be read, in %s', async (scheme) => {
    const { model, page } = await visit(
      {},
      {
        colorScheme: scheme,
        viewport: { width: 390, height: 844 },
      },
    );
    await ask(page, `${'Unbreakable'.repeat(20)} ${'word '.repeat(100)}`);
    const held = await model.next();
    held.token('Supercalifragilistic'.repeat(10));
    await seen(page, /^Supercali/);
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(390);
    const stop = await page.getByRole('button', { name: 'Stop' }).boundingBox();
    expect(stop!.y + stop!.height).toBeLessThanOrEqual(844);
    for (const selector of ['.text', '.question', 'dt', 'h1', '#stop']) {
      expect(await contrast(page, selector), selector).toBeGreaterThanOrEqual(4.5);
    }
    held.finish();
    await page.locator('#send').waitFor();
    expect(await contrast(page, '#send')).toBeGreaterThanOrEqual(4.5);
  });
});
