import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

/** How a process is. Times are in ms. */
export interface Figures {
  /** When the garbage is collected. */
  readonly memory: NodeJS.MemoryUsage;
  /** Since the last `reset`, at p99: how late its event loop was, … */
  readonly delayP99Ms: number;
  /** … and how long it took from the head of a request to the end of a response that is 429 or 503. */
  readonly refusalP99Ms: number;
  /** What keeps it alive: a name for each. */
  readonly resources: readonly string[];
}

/** How a process has ended. */
interface Exit {
  readonly code: number | null;
  /** From the signal on. */
  readonly tookMs: number;
}

export interface Child {
  /** Where it is, by the first word of the line that says so. */
  readonly urls: Readonly<Record<string, string>>;
  figures(): Promise<Figures>;
  reset(): void;
  /** Asks it to end, as Ctrl-C does; kills it when it does not for a minute: then there is no code. */
  end(): Promise<Exit>;
}

const MOST_ENDING_MS = 60_000;

const WATCHED = fileURLToPath(new URL('watched.ts', import.meta.url));

export interface ChildOptions {
  /** Of the things whose places it says. */
  readonly names: readonly string[];
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** What becomes of what it says about failures (shown). */
  readonly stderr?: 'inherit' | 'ignore';
}

/**
 * Starts the command of an example as a process of its own: nothing here is measured together with it.
 * Resolves when it has said where everything in `names` is.
 */
export async function startChild(
  script: URL,
  { names, args = [], env = {}, stderr = 'inherit' }: ChildOptions,
): Promise<Child> {
  const own = ['--expose-gc', '--import', WATCHED, fileURLToPath(script)];
  const child = spawn(process.execPath, [...own, ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', stderr, 'ipc'],
  });
  const output = child.stdout as Readable;
  const urls: Record<string, string> = {};
  for await (const line of createInterface({ input: output })) {
    const [, name, url] = /^(\w+) .*?(http:\/\/[^/\s]+)/.exec(line) ?? [];
    if (name !== undefined && url !== undefined) urls[name] = url;
    if (names.every((each) => each in urls)) break;
  }
  if (!names.every((each) => each in urls)) throw new Error(`${script.pathname} did not start.`);
  output.resume();
  return {
    urls,
    async figures() {
      const answer = once(child, 'message');
      child.send('figures');
      const [figures] = (await answer) as [Figures];
      return figures;
    },
    reset: () => void child.send('reset'),
    async end() {
      const begun = performance.now();
      const exit = once(child, 'exit');
      child.kill('SIGINT');
      const timer = setTimeout(() => child.kill('SIGKILL'), MOST_ENDING_MS);
      const [code] = (await exit) as [number | null];
      clearTimeout(timer);
      return { code, tookMs: performance.now() - begun };
    },
  };
}
