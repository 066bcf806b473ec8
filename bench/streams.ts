// node --expose-gc bench/streams.ts [--smoke]
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { Agent, get } from 'node:http';
import { connect, type Socket } from 'node:net';

import {
  figures,
  heading,
  interleave,
  median,
  note,
  smoke,
  type Subject,
  verdict,
} from './harness.ts';

/**
 * Servers run in processes of their own, the clients in this one: what is measured is the server,
 * as long as a client does less for a token than a server does. So the clients are sockets that
 * look at the bytes for the end of an answer and nothing else.
 */
class Server {
  readonly #child: ChildProcess;
  readonly port: number;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(subject: string): Promise<Server> {
    const child = fork(new URL('streams-server.ts', import.meta.url), [subject], {
      execArgv: ['--expose-gc'],
    });
    const [port] = (await once(child, 'message')) as [number];
    return new Server(child, port);
  }

  async ask<T>(path: string): Promise<T> {
    return (await (await fetch(`http://127.0.0.1:${this.port}/${path}`)).json()) as T;
  }

  stop(): void {
    this.#child.disconnect();
  }
}

const END = Buffer.from('\r\n0\r\n\r\n');

/** A client that keeps its connection and asks again and again. */
class Client {
  readonly #socket: Socket;

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1').setNoDelay();
  }

  /** Resolves at the end of the answer with the time to its first byte, in ms. */
  ask(path: string): Promise<number> {
    const start = performance.now();
    let firstMs: number | undefined;
    let tail = Buffer.alloc(0);
    return new Promise((resolve, reject) => {
      const read = (chunk: Buffer): void => {
        firstMs ??= performance.now() - start;
        // Of what has come only the end matters.
        const seen = tail.length === 0 ? chunk : Buffer.concat([tail, chunk]);
        if (seen.subarray(-END.length).equals(END)) {
          clearTimeout(patience);
          this.#socket.off('data', read).off('close', fail);
          resolve(firstMs);
        } else {
          tail = Buffer.from(seen.subarray(-32));
        }
      };
      const fail = (): void => reject(new Error('The server hung up.'));
      const patience = setTimeout(() => {
        reject(new Error(`No end of the answer to ${path} after 30 s: ${tail.toString()}`));
      }, 30_000);
      this.#socket.on('data', read).once('close', fail);
      this.#socket.write(`GET /${path} HTTP/1.1\r\nHost: bench\r\n\r\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

const CLIENTS = 20;
const TOKENS = 500;
const SUBJECTS = ['sluice', 'bare', 'better-sse', 'hono'] as const;

for (const [pace, words, answers] of [
  ['fast', 'as fast as taken', smoke ? 1 : 10],
  ['turns', 'one in each turn of the loop', smoke ? 1 : 2],
] as const) {
  const servers: Server[] = [];
  const clients: Client[] = [];
  const firsts = new Map<string, number[]>();
  const firstsAlone = new Map<string, number[]>();
  const subjects: Subject[] = [];
  for (const name of SUBJECTS) {
    const server = await Server.start(name);
    const own = Array.from({ length: CLIENTS }, () => new Client(server.port));
    servers.push(server);
    clients.push(...own);
    firsts.set(name, []);
    firstsAlone.set(name, []);
    subjects.push({
      name,
      round: async () => {
        const start = performance.now();
        await Promise.all(
          own.map(async (client) => {
            for (let i = 0; i < answers; i++) firsts.get(name)!.push(await client.ask(pace));
          }),
        );
        const seconds = (performance.now() - start) / 1000;
        // One client alone, for the time to the first byte while the server has nothing else to do.
        for (let i = 0; i < answers; i++) firstsAlone.get(name)!.push(await own[0]!.ask(pace));
        return (CLIENTS * answers * TOKENS) / seconds / 1000;
      },
    });
  }
  heading(`${CLIENTS} clients, ${TOKENS} tokens each, ${words}: thousands of tokens a second`);
  const medians = await interleave(subjects, 9);
  figures(medians, 'k/s');
  const ours = medians.get('sluice')!;
  // Tokens a second: the more the better, so the ratios are those of the times for a token.
  verdict('time for a token, to better-sse', medians.get('better-sse')! / ours, 1 / 2);
  verdict('time for a token, to hono streamSSE', medians.get('hono')! / ours, 1 / 2.5);
  verdict('time for a token, to a bare res.write', medians.get('bare')! / ours, 1 / 1.2);
  for (const [clientele, all] of [
    [`${CLIENTS} clients`, firsts],
    ['one client alone', firstsAlone],
  ] as const) {
    heading(`${clientele}: time to the first byte, p50, ms`);
    const p50 = new Map([...all].map(([name, each]) => [name, median(each)]));
    figures(p50, 'ms');
    verdict('to a bare res.write', p50.get('sluice')! / p50.get('bare')!, 1.1);
  }
  if (pace === 'turns') {
    note(
      'Where the source is what is waited for, there is nothing to be gained by writing less often, ' +
        'and what is left is the work for a stream before its first byte: a place in a queue, signals ' +
        'for gate and source, time limits, the async context.',
    );
  }
  for (const client of clients) client.close();
  for (const server of servers) server.stop();
}

/** Opens `count` streams that wait, each on a socket of its own, and leaves them open. */
async function wait(server: Server, count: number): Promise<Agent> {
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
  let open = 0;
  const one = (): Promise<void> =>
    new Promise((resolve, reject) => {
      get({ port: server.port, host: '127.0.0.1', path: '/turns', agent }, (response) => {
        response.once('data', () => resolve()).on('error', () => undefined);
      }).on('error', (error) => (open < count ? reject(error) : undefined));
    });
  // A few at a time, so that nobody's backlog overflows.
  while (open < count) {
    const next = Math.min(100, count - open);
    await Promise.all(Array.from({ length: next }, one));
    open += next;
  }
  return agent;
}

interface Memory {
  readonly heapUsed: number;
  readonly external: number;
  readonly rss: number;
}

{
  const count = smoke ? 20 : 2000;
  heading(`memory for each of ${count} streams that wait, kB`);
  const bytes = new Map<string, number>();
  for (const name of ['waiting bare', 'waiting sluice']) {
    const server = await Server.start(name);
    (await wait(server, 10)).destroy();
    const before = await server.ask<Memory>('memory');
    const agent = await wait(server, count);
    const after = await server.ask<Memory>('memory');
    const held = after.heapUsed + after.external - before.heapUsed - before.external;
    bytes.set(name, held / count / 1024);
    agent.destroy();
    server.stop();
  }
  figures(bytes, 'kB');
  verdict('kB over the bare socket', bytes.get('waiting sluice')! - bytes.get('waiting bare')!, 16);
}

{
  const count = smoke ? 20 : 10_000;
  heading(`${count} streams that wait are told of their places, ms of delay of the event loop`);
  const server = await Server.start('waiting sluice');
  const agent = await wait(server, count);
  const { waiting, ...delay } =
    await server.ask<Record<'p50' | 'p99' | 'max' | 'waiting', number>>('moves');
  figures(new Map(Object.entries(delay)), 'ms');
  console.log(`  ${waiting} wait still`);
  verdict('p99', delay.p99, 50);
  agent.destroy();
  server.stop();
}
