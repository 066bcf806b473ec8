import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { afterEach, describe, expect, it } from 'vitest';

import { startModelServer, type ModelServer } from '../../examples/model-server/server.ts';
import { startChatServer, type ChatServer } from '../../examples/tutoring-chat/server.ts';
import { readSettings } from '../../examples/tutoring-chat/settings.ts';
import { askTogether } from '../../examples/tutoring-chat/students.ts';
import { FABLES } from './fables.ts';

const open: { close(): Promise<unknown> }[] = [];

afterEach(async () => {
  for (const server of open.splice(0).toReversed()) await server.close();
});

async function start(
  env: Readonly<Record<string, string>>,
  decodeMsPerToken = 1,
): Promise<{ chat: ChatServer; model: ModelServer }> {
  const model = await startModelServer({
    port: 0,
    parallel: 100,
    prefillMsPerToken: 0,
    decodeMsPerToken,
    corpus: FABLES,
  });
  open.push(model);
  const chat = await startChatServer(readSettings({ CHAT_PORT: '0', ...env }, `${model.url}/v1`));
  open.push(chat);
  return { chat, model };
}

/** A server that answers every question with these events. */
async function startSaying(...events: readonly string[]): Promise<string> {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(events.map((event) => `${event}\n\n`).join(''));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  open.push({
    close: async () => {
      server.closeAllConnections();
      server.close();
    },
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const event = (name: string, data: object): string =>
  `event: ${name}\ndata: ${JSON.stringify(data)}`;
const START = event('start', {});
const A = event('token', { index: 0, value: 'A' });
const DONE = event('done', { tokens: 1, elapsedMs: 1 });

describe('askTogether()', () => {
  it('has an answer for each of 100 students, with five at the model', async () => {
    const { chat, model } = await start({});
    const report = await askTogether(chat.url, 100);
    expect(report).toMatchObject({ students: 100, answered: 100, lost: [], refusals: 0 });
    expect(report.waitsMs).toHaveLength(100);
    expect(model.stats()).toMatchObject({ active: 0, peak: 5, served: 100 });
    expect(chat.stats()).toMatchObject({ active: 0, waiting: 0, completed: 100, refused: 0 });
  });

  it('has one for each who is refused and comes again', async () => {
    // Slow enough that all have asked before there is room again.
    const { chat } = await start({ CHAT_MAX_WAITING: '5' }, 10);
    const { answered, lost, refusals } = await askTogether(chat.url, 20);
    expect({ answered, lost }).toEqual({ answered: 20, lost: [] });
    expect(refusals).toBeGreaterThan(0);
    expect(chat.stats()).toMatchObject({ completed: 20, refused: refusals });
  });

  it.each([
    ['one that is cut off', [START, A], 'cut'],
    ['a token that is missing', [START, event('token', { index: 1, value: 'B' }), DONE], 'Token 1'],
    ['tokens that were not sent', [START, A, event('done', { tokens: 2 })], '1 of 2 tokens'],
    ['nothing', [START, event('done', { tokens: 0 })], 'is empty'],
    ['an error', [START, A, event('error', { code: 'ERR_X', message: 'Gone.' })], 'Gone.'],
    [
      'a place that was passed',
      [event('position', { position: 1 }), event('position', { position: 2 }), START, A, DONE],
      'From place 1 to 2',
    ],
  ])('counts as lost %s', async (_, events, reason) => {
    const url = await startSaying(...events);
    const { answered, lost } = await askTogether(url, 1);
    expect(answered).toBe(0);
    expect(lost).toEqual([expect.stringContaining(reason)]);
  });
});

describe('load.ts', () => {
  const LOAD = fileURLToPath(new URL('../../examples/tutoring-chat/load.ts', import.meta.url));

  async function load(...args: string[]): Promise<{ code: unknown; out: string; err: string }> {
    const child = spawn(process.execPath, [LOAD, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    const [out, err, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'exit'),
    ]);
    return { code, out, err };
  }

  it('prints what classes have come to, and ends', { timeout: 120_000 }, async () => {
    const { code, out, err } = await load(...'--students 3,20 --decode-ms-per-token 2'.split(' '));
    expect(err).toBe('');
    expect(code).toBe(0);
    expect(out).toMatch(/^\| 3 \| 3 \| 0 \| 0 \| .* \| [1-3] of 5 \|$/m);
    expect(out).toMatch(/^\| 20 \| 20 \| 0 \| 0 \| .* \| [1-5] of 5 \|$/m);
  });

  it('says how it is used', async () => {
    expect(await load('--help')).toMatchObject({ code: 0, out: expect.stringMatching(/^Usage: /) });
    expect(await load('--students', '10,x')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/^Usage: /),
    });
  });
});
