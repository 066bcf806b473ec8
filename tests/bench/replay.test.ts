import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { replay } from '../../bench/replay/command.ts';
import { readTrace } from '../../bench/trace.ts';
import { startModelServer } from '../../examples/model-server/server.ts';
import { startChatServer } from '../../examples/tutoring-chat/server.ts';
import { readSettings } from '../../examples/tutoring-chat/settings.ts';
import { FABLES } from '../examples/fables.ts';

let folder: string;
const open: { close(): Promise<unknown> }[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'replay-'));
});

afterEach(async () => {
  for (const server of open.splice(0).toReversed()) await server.close();
  await rm(folder, { recursive: true });
});

/** A trace with these calls: the second of each, and its tokens. */
async function trace(...calls: readonly (readonly [number, number, number])[]): Promise<string> {
  const path = join(folder, 'trace.csv');
  const lines = calls.map(([second, context, generated]) => {
    const time = new Date(Date.UTC(2023, 10, 16, 18, 15, 46) + 1000 * second).toISOString();
    return `${time.replace('T', ' ').replace('Z', '6789')},${context},${generated}`;
  });
  await writeFile(path, ['TIMESTAMP,ContextTokens,GeneratedTokens', ...lines, ''].join('\r\n'));
  return path;
}

/** Ten calls a second for three seconds, of which each takes a tenth of a second and one more. */
function busy(): Promise<string> {
  const calls = Array.from({ length: 30 }, (_, i) => [i / 10, 100, 10 + (i % 3)] as const);
  return trace(...calls);
}

interface Printed {
  readonly code: 0 | 1;
  readonly figures: Readonly<Record<string, string | undefined>>;
}

async function run(path: string, options: string): Promise<Printed> {
  const lines: string[] = [];
  const code = await replay([path, ...options.split(' ')], (line) => lines.push(line));
  const rows = lines.map((line) => line.split('|').map((cell) => cell.trim()));
  return { code, figures: Object.fromEntries(rows.map(([, name, figure]) => [name, figure])) };
}

describe('readTrace()', () => {
  it('gives the calls in the order of their times, counted from the first', async () => {
    const path = await trace([0.5, 10, 20], [0, 30, 40], [1.25, 50, 60]);
    expect(readTrace(path)).toEqual([
      { atMs: 0, contextTokens: 30, generatedTokens: 40 },
      { atMs: 500, contextTokens: 10, generatedTokens: 20 },
      { atMs: 1250, contextTokens: 50, generatedTokens: 60 },
    ]);
    expect(readTrace(path, 1)).toEqual([{ atMs: 0, contextTokens: 10, generatedTokens: 20 }]);
  });

  it.each(['yesterday,1,2', '2023-11-16 18:15:46.6805900,1', '2023-11-16 18:15:46.6805900,a,2'])(
    'names the line that is none: %s',
    async (line) => {
      const path = await trace([0, 1, 2]);
      await writeFile(path, `${await readFile(path, 'utf8')}${line}\n`);
      expect(() => readTrace(path)).toThrow(`in line 3, got "${line}"`);
    },
  );
});

describe('replay()', () => {
  it('simulates the chat in virtual time, the same each time', async () => {
    const path = await busy();
    const options = '--simulate --concurrency 2 --decode-ms-per-token 30';
    const first = await run(path, options);
    expect(first).toEqual({
      code: 0,
      figures: {
        'calls sent': '30',
        completed: '30',
        refused: '0',
        failed: '0',
        // 15 for each place, of 20 ms and 9 to 11 times 30 ms, while a call comes each 200 ms.
        'time in line': expect.stringMatching(/^p50 \d+ ms, p95 1\.\d s, p99 1\.\d s$/),
        'time to first token': expect.stringMatching(/^p50 \d+ ms, p99 1\.\d s$/),
        'tokens per second': expect.stringMatching(/^6\d$/),
        'highest concurrency at the model': '2 of 2',
        'error of the announced waits': expect.stringMatching(/^p50 \d+ %, p95 \d+ % \(of 2\d\)$/),
        took: '4.9 s',
      },
    });
    expect(await run(path, options)).toEqual(first);
  });

  it('counts those for whom there is no room', async () => {
    const options = '--simulate --concurrency 1 --max-waiting 3 --decode-ms-per-token 50';
    const { figures } = await run(await busy(), options);
    const refused = Number(/^(\d+) ERR_QUEUE_FULL$/.exec(figures['refused']!)?.[1]);
    expect(refused).toBeGreaterThan(10);
    expect(Number(figures['completed'])).toBe(30 - refused);
  });

  it('replays over HTTP, as fast as it is told, and never above the limit', async () => {
    const model = await startModelServer({
      port: 0,
      parallel: 30,
      minTokens: 1024,
      prefillMsPerToken: 0,
      decodeMsPerToken: 5,
      corpus: FABLES,
    });
    open.push(model);
    const env = { CHAT_PORT: '0', CHAT_CONCURRENCY: '2' };
    const chat = await startChatServer(readSettings(env, `${model.url}/v1`));
    open.push(chat);
    const svg = join(folder, 'replay.svg');
    const { code, figures } = await run(
      await busy(),
      `--target ${chat.url} --model ${model.url} --speed 10 --seconds 1.95 --svg ${svg}`,
    );
    expect(code).toBe(0);
    expect(figures).toMatchObject({
      'calls sent': '20',
      completed: '20',
      refused: '0',
      failed: '0',
      'highest concurrency at the model': '2 of 2, 0 refused by the model',
      'error of the announced waits': expect.stringMatching(/^p50 \d+ %, p95 \d+ % \(of \d+\)$/),
    });
    expect(model.stats()).toMatchObject({ active: 0, served: 20, peak: 2 });
    expect(chat.stats()).toMatchObject({ active: 0, waiting: 0, completed: 20 });
    expect(await readFile(svg, 'utf8')).toMatch(/^<svg .*<path .*<\/svg>\n$/s);
  });

  it('says so, with the exit code too, where the model had more at once than it should', async () => {
    const model = await startModelServer({ port: 0, decodeMsPerToken: 5, corpus: FABLES });
    open.push(model);
    const start = (concurrency: string): ReturnType<typeof startChatServer> => {
      const env = { CHAT_PORT: '0', CHAT_CONCURRENCY: concurrency };
      return startChatServer(readSettings(env, `${model.url}/v1`));
    };
    const [one, two] = [await start('1'), await start('2')];
    open.push(one, two);
    const path = await trace([0, 1, 20], [0.001, 1, 20]);
    const target = (url: string): string[] => [path, '--target', url, '--model', model.url];
    const lines: string[] = [];
    const print = (line: string): void => void lines.push(line);
    expect(await replay(target(two.url), print)).toBe(0);
    expect(await replay(target(one.url), print)).toBe(1);
    expect(lines.at(-1)).toBe('The model had 2 calls at once, and should have had 1 at most.');
  });

  it.each<[args: string[], message: string]>([
    [[], 'Usage: '],
    [['trace.csv'], 'Usage: '],
    [['trace.csv', '--simulate', '--target', 'http://127.0.0.1:1'], 'Usage: '],
    [['trace.csv', '--simulate', '--speed', 'fast'], 'Expected --speed to be a number'],
    [['trace.csv', '--simulate', '--speed', '0'], 'Expected --speed to be a number'],
    [['no-such-trace.csv', '--simulate'], 'ENOENT'],
    [['trace.csv', '--simulate', '--spee', '1'], "Unknown option '--spee'"],
  ])('refuses %j', async (args, message) => {
    await expect(replay(args, expect.fail)).rejects.toThrow(message);
  });
});
