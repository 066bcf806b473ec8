import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { type Exchange, History } from '../../examples/tutoring-chat/history.ts';
import { startChatServer, type ChatServer } from '../../examples/tutoring-chat/server.ts';
import { readSettings } from '../../examples/tutoring-chat/settings.ts';
import { failure, openTab, type Tab, tabOf } from './chat-client.ts';
import { ScriptedModel } from './scripted-model.ts';

let folder: string;
let file: string;
let model: ScriptedModel;
const chats: ChatServer[] = [];

beforeEach(async () => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
  folder = await mkdtemp(join(tmpdir(), 'chat-'));
  file = join(folder, 'state.json');
  model = await new ScriptedModel().start();
});

afterEach(async () => {
  for (const chat of chats.splice(0).toReversed()) await chat.close();
  await model.close();
  await rm(folder, { recursive: true });
  vi.restoreAllMocks();
});

async function start(env: Readonly<Record<string, string>> = {}): Promise<ChatServer> {
  const settings = readSettings(
    { CHAT_PORT: '0', CHAT_CONCURRENCY: '1', CHAT_STATE_FILE: file, ...env },
    model.baseURL,
  );
  const chat = await startChatServer(settings);
  chats.push(chat);
  return chat;
}

interface Question {
  readonly question: string;
  readonly priority?: number;
}

function post(
  chat: ChatServer,
  path: string,
  body: Question,
  headers: Readonly<Record<string, string>>,
  signal?: AbortSignal,
): Promise<Response> {
  const init = { method: 'POST', headers, body: JSON.stringify(body), ...(signal && { signal }) };
  return fetch(chat.url + path, init);
}

function ask(chat: ChatServer, id: string, body: Question, student = 'ann'): Promise<Tab> {
  const headers = { 'x-request-id': id, 'x-student-id': student };
  return tabOf((signal) => post(chat, '/api/chat/stream', body, headers, signal));
}

function comeBack(chat: ChatServer, id: string, headers: Record<string, string> = {}) {
  return tabOf((signal) => fetch(`${chat.url}/api/chat/stream/${id}`, { headers, signal }));
}

interface Place {
  readonly position: number;
  readonly waitedMs?: number;
}

async function placeOf(chat: ChatServer, id: string): Promise<Place> {
  const response = await fetch(`${chat.url}/api/queue/${id}`);
  return (await response.json()) as Place;
}

async function positions(chat: ChatServer, ...ids: readonly string[]): Promise<number[]> {
  const places = await Promise.all(ids.map((id) => placeOf(chat, id)));
  return places.map(({ position }) => position);
}

async function historyOf(chat: ChatServer, student = 'ann'): Promise<Exchange[]> {
  const response = await fetch(`${chat.url}/api/history`, { headers: { 'x-student-id': student } });
  return (await response.json()) as Exchange[];
}

async function until(chat: ChatServer, gauges: object): Promise<void> {
  await vi.waitFor(() => expect(chat.stats()).toMatchObject(gauges), {
    interval: 1,
    timeout: 25_000,
  });
}

async function textOf(tab: Tab): Promise<string> {
  const events = await tab.rest();
  expect(events.at(-1)).toMatchObject({ event: 'done' });
  return events
    .filter(({ event }) => event === 'token')
    .map(({ data }) => data['value'])
    .join('');
}

describe('a restart', () => {
  it('keeps the line: those in it are told to come back, and find their old places', async () => {
    const first = await start();
    const active = await ask(first, 'active', { question: 'Active?' });
    const held = await model.next();
    const early = await ask(first, 'early', { question: 'Early?' });
    const late = await ask(first, 'late', { question: 'Late?' });
    const lateAt = performance.now();
    const urgent = await ask(first, 'urgent', { question: 'Urgent?', priority: 1 });
    const json = post(first, '/api/chat', { question: 'JSON?' }, { 'x-request-id': 'json' });
    await until(first, { active: 1, waiting: 4 });
    const ids = ['active', 'urgent', 'early', 'late', 'json'];
    expect(await positions(first, ...ids)).toEqual([0, 1, 2, 3, 4]);

    const drained = first.drain();
    for (const tab of [early, late, urgent]) {
      const last = (await tab.rest()).at(-1);
      expect(last).toMatchObject({ event: 'error', data: { code: 'ERR_RESTARTING' } });
    }
    const refused = await failure(await json);
    expect([refused.status, refused.error['code']]).toEqual([503, 'ERR_RESTARTING']);
    expect(refused.headers.get('retry-after')).toBe('5');
    expect(refused.headers.get('x-request-id')).toBe('json');
    // Who comes back too soon is told to try again: the next process will know.
    const tooSoon = await fetch(`${first.url}/api/chat/stream/early`);
    expect((await failure(tooSoon)).status).toBe(503);
    held.finish('Active.');
    expect(await textOf(active)).toBe('Active.');
    expect(await drained).toMatchObject({ aborted: 0, stuck: [] });

    const second = await start();
    expect(second.restored).toBe(4);
    // Who comes now stands behind them.
    const newcomer = await ask(second, 'new', { question: 'New?' });
    expect(await positions(second, ...ids, 'new')).toEqual([-2, 0, 1, 2, 3, 4]);
    const sinceLateMs = performance.now() - lateAt;
    expect((await placeOf(second, 'late')).waitedMs).toBeGreaterThanOrEqual(sinceLateMs);
    const back = await comeBack(second, 'late');
    expect(await back.next()).toMatchObject({ event: 'position', data: { position: 2 } });
    for (const question of ['Urgent?', 'Early?', 'Late?', 'JSON?', 'New?']) {
      const next = await model.next();
      expect(next.question).toBe(question);
      next.finish(`${question} Yes.`);
    }
    expect(await textOf(back)).toBe('Late? Yes.');
    expect(await textOf(newcomer)).toBe('New? Yes.');
    expect(await textOf(await comeBack(second, 'json'))).toBe('JSON? Yes.');
    const answered = await historyOf(second);
    expect(answered.map(({ id }) => id)).toEqual(['active', 'urgent', 'early', 'late', 'new']);
    await until(second, { active: 0, waiting: 0, completed: 5 });
  });

  it('can come again and again, and no answer is lost or given twice', async () => {
    let chat = await start({ CHAT_CONCURRENCY: '2' });
    const ids = Array.from({ length: 20 }, (_, i) => `q${i}`);
    for (const [i, id] of ids.entries()) {
      await ask(chat, id, { question: id });
      await until(chat, { active: Math.min(2, i + 1), waiting: Math.max(0, i - 1) });
    }
    const asked: string[] = [];
    const answerTwo = async (): Promise<void> => {
      for (const held of [await model.next(), await model.next()]) {
        asked.push(held.question);
        held.finish();
      }
    };
    while (asked.length < ids.length) {
      const drained = chat.drain();
      await answerTwo();
      await drained;
      expect(model.untaken).toBe(0);
      chat = await start({ CHAT_CONCURRENCY: '2' });
      expect(chat.restored).toBe(ids.length - asked.length);
    }
    expect(asked.toSorted()).toEqual(ids.toSorted());
    expect((await historyOf(chat)).map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
  });

  it('asks again what took too long to be finished, before all others', async () => {
    const first = await start({ CHAT_DRAIN_MS: '50' });
    const active = await ask(first, 'active', { question: 'Active?' });
    const held = await model.next();
    held.token('Half');
    await ask(first, 'waiting', { question: 'Waiting?' });
    expect(await first.drain()).toMatchObject({ aborted: 1 });
    expect((await active.rest()).at(-1)).toMatchObject({ data: { code: 'ERR_CLOSED' } });
    await held.closed;

    const second = await start();
    const back = await comeBack(second, 'active');
    const again = await model.next();
    expect(again.question).toBe('Active?');
    again.finish('All of it.');
    expect(await textOf(back)).toBe('All of it.');
    expect((await model.next()).question).toBe('Waiting?');
  });

  it('has written the line down before the last answers are finished', async () => {
    const first = await start();
    await ask(first, 'active', { question: 'Active?' });
    const held = await model.next();
    await ask(first, 'waiting', { question: 'Waiting?' });
    const drained = first.drain();
    const saved = await vi.waitFor(
      async () => JSON.parse(await readFile(file, 'utf8')) as { tickets: { id: string }[] },
    );
    expect(saved.tickets.map(({ id }) => id)).toEqual(['active', 'waiting']);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    held.finish();
    await drained;
    const after = JSON.parse(await readFile(file, 'utf8')) as typeof saved;
    expect(after.tickets.map(({ id }) => id)).toEqual(['waiting']);
  });

  it('forgets those who leave while the last answers are finished, and failures', async () => {
    const first = await start({ CHAT_CONCURRENCY: '3' });
    const leaves = await ask(first, 'leaves', { question: 'Leaves?' });
    const gone = await model.next();
    await ask(first, 'fails', { question: 'Fails?' });
    const failing = await model.next();
    await ask(first, 'stays', { question: 'Stays?' });
    const staying = await model.next();
    const drained = first.drain();
    leaves.close();
    await gone.closed;
    failing.refuse(500);
    staying.finish();
    await drained;
    expect((await start()).restored).toBe(0);
  });

  it('answers those who do not come back too, and keeps the answer for them', async () => {
    const first = await start();
    await ask(first, 'active', { question: 'Active?' });
    const held = await model.next();
    await ask(first, 'waiting', { question: 'Waiting?' }, 'bea');
    const drained = first.drain();
    held.finish();
    await drained;

    const second = await start();
    const own = await model.next();
    own.token('Nobody ');
    own.token('is ');
    own.finish('here.');
    await until(second, { active: 0, completed: 1 });
    expect(await historyOf(second, 'bea')).toEqual([
      {
        id: 'waiting',
        question: 'Waiting?',
        answer: 'Nobody is here.',
        answeredAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      },
    ]);
    expect(await textOf(await comeBack(second, 'waiting'))).toBe('Nobody is here.');
    const rest = await comeBack(second, 'waiting', { 'last-event-id': '0' });
    expect(await textOf(rest)).toBe('is here.');
    const { status } = await failure(await fetch(`${second.url}/api/chat/stream/active`));
    expect(status).toBe(404);
  });

  it('can come in the middle of an answer that nobody has come back for', async () => {
    const first = await start();
    await ask(first, 'active', { question: 'Active?' });
    const held = await model.next();
    await ask(first, 'waiting', { question: 'Waiting?' });
    const drained = first.drain();
    held.finish();
    await drained;
    const second = await start();
    const again = await model.next();
    await second.close();
    await again.closed;
    expect((await start()).restored).toBe(1);
    expect((await model.next()).question).toBe('Waiting?');
  });

  it('lets who has come back take the question back', async () => {
    const first = await start();
    await ask(first, 'active', { question: 'Active?' });
    const held = await model.next();
    await ask(first, 'waiting', { question: 'Waiting?' });
    const drained = first.drain();
    held.finish();
    await drained;
    const second = await start();
    const again = await model.next();
    const response = await fetch(`${second.url}/api/queue/waiting`, { method: 'DELETE' });
    expect(response.status).toBe(200);
    await again.closed;
    await until(second, { active: 0, waiting: 0, cancelled: 1 });
    expect(await historyOf(second)).toMatchObject([{ id: 'active' }]);
  });

  it.each([
    ['no JSON', '{'],
    ['another version', '{"version":2,"tickets":[],"history":[]}'],
    [
      'a ticket that asks nothing',
      '{"version":1,"tickets":[{"id":"a","priority":1}],"history":[]}',
    ],
    [
      'a ticket without a place',
      '{"version":1,"tickets":[{"id":"a","priority":1,"metadata":{"question":"A?"}}],"history":[]}',
    ],
    ['answers of nobody', '{"version":1,"tickets":[],"history":[[1,[]]]}'],
    ['null', 'null'],
  ])('refuses a file that is no state: %s', async (_, text) => {
    await writeFile(file, text);
    await expect(start()).rejects.toThrow(`Expected CHAT_STATE_FILE ${file} to be`);
    expect(await readFile(file, 'utf8')).toBe(text);
  });

  it('refuses a file that could not be written at the end', async () => {
    const nowhere = join(folder, 'none', 'state.json');
    await expect(start({ CHAT_STATE_FILE: nowhere })).rejects.toThrow(
      `Expected CHAT_STATE_FILE ${nowhere} to be in a directory`,
    );
  });
});

describe('GET /api/history', () => {
  it('tells each student what they asked and were told, and nobody else', async () => {
    const chat = await start({ CHAT_STATE_FILE: '' });
    const tab = await ask(chat, 'one', { question: 'One?' });
    (await model.next()).finish('One.');
    await textOf(tab);
    const headers = { 'x-student-id': 'ann', 'x-request-id': 'two' };
    const json = post(chat, '/api/chat', { question: 'Two?' }, headers);
    (await model.next()).finish('Two.');
    await (await json).json();
    const anonymous = await openTab(chat.url, { question: 'Who am I?' });
    (await model.next()).finish('Nobody.');
    await textOf(anonymous);
    expect(await historyOf(chat)).toMatchObject([
      { id: 'one', question: 'One?', answer: 'One.' },
      { id: 'two', question: 'Two?', answer: 'Two.' },
    ]);
    expect(await historyOf(chat, 'bea')).toEqual([]);
  });

  it('has nothing of answers that broke off', async () => {
    const chat = await start();
    const tab = await ask(chat, 'one', { question: 'One?' });
    const held = await model.next();
    held.token('Half');
    held.cut();
    expect((await tab.rest()).at(-1)).toMatchObject({ event: 'error' });
    expect(await historyOf(chat)).toEqual([]);
  });

  it('is what the model is reminded of: the latest three', async () => {
    const chat = await start();
    for (const [i, question] of ['A?', 'B?', 'C?', 'D?', 'E?'].entries()) {
      const tab = await ask(chat, `q${i}`, { question });
      const held = await model.next();
      const before = ['A?', 'A.', 'B?', 'B.', 'C?', 'C.', 'D?', 'D.'].slice(0, 2 * i).slice(-6);
      expect(held.said.slice(1)).toEqual([...before, question]);
      held.finish(question.replace('?', '.'));
      await textOf(tab);
    }
    const other = await ask(chat, 'other', { question: 'Me?' }, 'bea');
    const held = await model.next();
    expect(held.said.slice(1)).toEqual(['Me?']);
    held.finish();
    await textOf(other);
  });

  it.each([undefined, '', 'a b', 'x'.repeat(65)])('wants an id, not %j', async (id) => {
    const chat = await start();
    const headers = id === undefined ? {} : { 'x-student-id': id };
    const { status, error } = await failure(await fetch(`${chat.url}/api/history`, { headers }));
    expect(status).toBe(400);
    expect(error['message']).toMatch(/X-Student-Id/);
  });
});

describe('History', () => {
  const exchange = (id: string, length = 1): Exchange => {
    return { id, question: '?'.repeat(length), answer: '', answeredAt: '' };
  };

  it('keeps the latest 20 of a student', () => {
    const history = new History();
    for (let i = 0; i < 25; i += 1) history.add('ann', exchange(String(i)));
    const ids = Array.from({ length: 20 }, (_, i) => String(i + 5));
    expect(history.of('ann').map(({ id }) => id)).toEqual(ids);
  });

  it('forgets who has not asked for longest when all of it grows too large', () => {
    const history = new History();
    const students = ['ann', 'bea', 'cy', 'dan'];
    for (const student of students) history.add(student, exchange('large', 4_000_000));
    history.add('ann', exchange('small'));
    history.add('eve', exchange('large', 4_000_000));
    const kept = [...students, 'eve'].filter((student) => history.of(student).length > 0);
    expect(kept).toEqual(['ann', 'cy', 'dan', 'eve']);
    expect(history.of(undefined)).toEqual([]);
    // What is forgotten counts no more.
    history.add('fay', exchange('small'));
    expect(history.of('cy')).toHaveLength(1);
  });
});
