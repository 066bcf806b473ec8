import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

const START = fileURLToPath(new URL('start.ts', import.meta.url));

/** What the process does beside: it collects its garbage when it is asked for its memory. */
const BESIDE = `data:text/javascript,process.on('message', () => {
  gc();
  process.send(process.memoryUsage());
})`;

interface Health {
  readonly active: number;
  readonly waiting: number;
  /** The most that the model ever had at once. */
  readonly peak: number;
}

export interface ChatProcess {
  readonly url: string;
  /** What is in use when the garbage is collected, and all that the process takes. */
  memory(): Promise<NodeJS.MemoryUsage>;
  health(): Promise<Health>;
  end(): Promise<void>;
}

/** What `npm start` starts, as a process of its own: nothing here is measured together with it. */
export async function startProcess(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ChatProcess> {
  const own = ['--expose-gc', '--import', BESIDE, START, '--port', '0'];
  const child = spawn(process.execPath, [...own, ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  const output = child.stdout as Readable;
  const urls = new Map<string, string>();
  for await (const line of createInterface({ input: output })) {
    const [, name, url] = /^(Model|Chat) .*?(http:\/\/[^/]+)/.exec(line) ?? [];
    if (name !== undefined && url !== undefined) urls.set(name, url);
    if (urls.size === 2) break;
  }
  const url = urls.get('Chat');
  if (url === undefined) throw new Error('The chat did not start.');
  output.resume();
  return {
    url,
    async memory() {
      const answer = once(child, 'message');
      child.send('memory');
      const [memory] = (await answer) as [NodeJS.MemoryUsage];
      return memory;
    },
    async health() {
      const [chat, model] = await Promise.all(
        [...urls.values()].map(async (each) => (await fetch(`${each}/health`)).json()).toReversed(),
      );
      return { ...(chat as Health), peak: (model as Health).peak };
    },
    async end() {
      const exit = once(child, 'exit');
      child.disconnect();
      child.kill('SIGTERM');
      await exit;
    },
  };
}
