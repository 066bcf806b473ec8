import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

import { afterEach, describe, expect, it, vi } from 'vitest';

import { startModelServer } from '../../examples/model-server/server.ts';
import { post } from './chat-client.ts';
import { FABLES } from './fables.ts';

const START = fileURLToPath(new URL('../../examples/tutoring-chat/start.ts', import.meta.url));

/** With all of a machine busy with other tests. */
const PATIENCE = { timeout: 20_000, interval: 20 };

type Child = ChildProcessByStdio<null, Readable, Readable>;

/** `npm start` builds and calls this. What it imports by the name of the package is in dist. */
class Started {
  readonly child: Child;
  readonly exit: Promise<unknown[]>;
  out = '';
  err = '';

  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.child = spawn(process.execPath, [START, ...args], {
      env: { PATH: process.env['PATH'], CHAT_PORT: '0', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.exit = once(this.child, 'exit');
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => (this.out += text));
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => (this.err += text));
  }

  /** Resolves when the output has come to this; to what the group in it has matched. */
  async printed(pattern: RegExp): Promise<string> {
    return vi.waitFor(() => {
      const [, group = ''] = pattern.exec(this.out) ?? expect.fail(this.out + this.err);
      return group;
    }, PATIENCE);
  }

  url(): Promise<string> {
    return this.printed(/^Chat +(http:\S+)$/m);
  }
}

const started: Started[] = [];

function start(...given: ConstructorParameters<typeof Started>): Started {
  const all = new Started(...given);
  started.push(all);
  return all;
}

afterEach(async () => {
  for (const { child, exit } of started.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await exit;
    }
  }
});

async function stats(url: string): Promise<Record<string, number>> {
  const response = await fetch(`${url}/api/queue/stats`);
  return (await response.json()) as Record<string, number>;
}

async function untilStats(
  url: string,
  check: (figures: Record<string, number>) => void,
): Promise<void> {
  await vi.waitFor(async () => check(await stats(url)), PATIENCE);
}

describe('start.ts', () => {
  it(
    'starts model, chat and visitors, who form a line; Ctrl-C lets answers finish',
    { timeout: 60_000 },
    async () => {
      const all = start(['--visitors', '200', '--decode-ms-per-token', '50']);
      const url = await all.url();
      await untilStats(url, ({ active, waiting }) => {
        expect(active).toBe(5);
        expect(waiting).toBeGreaterThan(0);
      });
      // Before everybody else in line, so that the test need not wait for them.
      const own = fetch(`${url}/api/chat`, {
        method: 'POST',
        headers: { 'x-request-id': 'own' },
        body: JSON.stringify({ question: 'What is a semaphore?', priority: 1 }),
      });
      await vi.waitFor(async () => {
        const place = await fetch(`${url}/api/queue/own`);
        expect([0, 1]).toContain(((await place.json()) as { position: number }).position);
      }, PATIENCE);

      all.child.kill('SIGINT');
      await all.printed(/^Finishing: 5 are being answered, (\d+) are in line\.$/m);
      const late = await post(`${url}/api/chat`, { question: 'Am I late?' });
      expect(late.status).toBe(503);
      const answer = await own;
      expect(answer.status).toBe(200);
      expect(await answer.json()).toMatchObject({ answer: expect.stringMatching(/\w/) });
      expect(await all.exit).toEqual([0, null]);
      expect(all.out).toMatch(/^Finished\.$/m);
      expect(all.err).toBe('');
    },
  );

  it('keeps the line over a restart, and the answer that a second Ctrl-C has cut', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'start-'));
    const file = join(folder, 'state.json');
    try {
      const env = { CHAT_CONCURRENCY: '1', CHAT_STATE_FILE: file };
      const headers = { 'x-student-id': 'ann' };
      const first = start(['--decode-ms-per-token=60000'], env);
      const url = await first.url();
      const body = JSON.stringify({ question: 'What is a semaphore?' });
      const asked = Array.from({ length: 3 }, () =>
        fetch(`${url}/api/chat`, { method: 'POST', headers, body }).then(
          ({ status }) => status,
          () => 'cut',
        ),
      );
      await untilStats(url, (figures) => expect(figures).toMatchObject({ active: 1, waiting: 2 }));
      first.child.kill('SIGTERM');
      await first.printed(/^Finishing: 1 .* 2 are in line, whose places are kept\.$/m);
      await vi.waitFor(() => access(file), PATIENCE);
      first.child.kill('SIGTERM');
      expect(await first.exit).toEqual([130, null]);
      const statuses = (await Promise.all(asked)).map(String);
      expect(statuses.toSorted()).toEqual(['503', '503', 'cut']);

      const second = start(['--decode-ms-per-token=0'], env);
      const again = await second.url();
      expect(second.out).toMatch(/^Restored +3 in line, in their old places$/m);
      await vi.waitFor(async () => {
        const history = await fetch(`${again}/api/history`, { headers });
        expect(await history.json()).toHaveLength(3);
      }, PATIENCE);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('ends at once on a second Ctrl-C', async () => {
    const all = start(['--decode-ms-per-token=60000']);
    const url = await all.url();
    const own = post(`${url}/api/chat`, { question: 'What is a semaphore?' }).catch(() => 'cut');
    await untilStats(url, ({ active }) => expect(active).toBe(1));
    all.child.kill('SIGINT');
    await all.printed(/^Finishing: 1 are being answered, 0 are in line\.$/m);
    all.child.kill('SIGINT');
    expect(await all.exit).toEqual([130, null]);
    expect(await own).toBe('cut');
  });

  it('asks the model at OPENAI_BASE_URL, and starts none then', async () => {
    const model = await startModelServer({
      port: 0,
      decodeMsPerToken: 0,
      corpus: FABLES,
      apiKey: 'open sesame',
    });
    try {
      const all = start([], {
        OPENAI_BASE_URL: `${model.url}/v1`,
        OPENAI_API_KEY: 'open sesame',
      });
      const url = await all.url();
      expect(all.out).toContain(`Model      trigram at ${model.url}/v1\n`);
      const answer = await post(`${url}/api/chat`, { question: 'What did the fox see?' });
      expect(answer.status).toBe(200);
      expect(model.stats()).toMatchObject({ served: 1 });
      all.child.kill('SIGTERM');
      expect(await all.exit).toEqual([0, null]);
    } finally {
      await model.close();
    }
  });

  it.each<[args: string[], env: Record<string, string>, code: number, message: RegExp]>([
    [['--help'], {}, 0, /^Usage: npm start .*--visitors N/s],
    [['--visitors', 'many'], {}, 1, /^Expected --visitors .* from 0 to 10000, got "many"\.$/m],
    [['--visitorz', '3'], {}, 1, /^Unknown option '--visitorz'/],
    [['--parallel', '0'], {}, 1, /^Expected --parallel /],
    [[], { CHAT_CONCURRENCY: '0' }, 1, /^Expected CHAT_CONCURRENCY .*, got "0"\.$/m],
  ])('%j with %j ends with %i and says why', async (args, env, code, message) => {
    const all = start(args, env);
    expect(await all.exit).toEqual([code, null]);
    await vi.waitFor(() => expect(all.out + all.err).toMatch(message), PATIENCE);
    expect(all.err + all.out).not.toContain('    at ');
  });

  it('says that its port is taken, and leaves nothing running', async () => {
    const first = start([]);
    const { port } = new URL(await first.url());
    const second = start(['--port', port]);
    expect(await second.exit).toEqual([1, null]);
    expect(second.err).toBe(
      `Port ${port} is taken. Choose another one with --port or CHAT_PORT.\n`,
    );
  });
});
