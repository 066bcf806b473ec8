import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';
import { loadavg } from 'node:os';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

import { createParser } from 'eventsource-parser';

import { type Child, type Figures, startChild } from '../../examples/support/child.ts';
import type { Gauges, Subject } from './subjects.ts';

/** What became of a request; of one that was lost, `code` is why. */
interface Outcome {
  readonly kind: 'finished' | 'refused' | 'lost';
  readonly code: string;
  /** Until there was a connection, and from then to the end of the answer. */
  readonly connectedMs: number;
  readonly tookMs: number;
}

export interface Report {
  readonly name: string;
  /** What it can do, and what it was asked for. */
  readonly capacityPerSecond: number;
  readonly askedPerSecond: number;
  readonly outcomes: readonly Outcome[];
  /** Before, in the middle, and when everybody had an answer and had hung up. */
  readonly figures: readonly [Figures, Figures, Figures];
  /** How long a server took meanwhile that refuses everybody: as much is the machine's doing. */
  readonly bareMs: readonly number[];
  /** When everybody had an answer. */
  readonly delays: Pick<Figures, 'delayP99Ms' | 'refusalP99Ms'>;
  readonly left: Gauges;
  /** How many processes wanted to run at a time, on the whole machine. */
  readonly load: number;
  readonly exitCode: number | null;
}

/** For a measurement of what it can do, and before that for everything to be warm. */
const MEASURED_MS = 5000;
const WARM_MS = 2000;
const BARE = new URL('bare.ts', import.meta.url);
const BARE_PER_SECOND = 20;
/** As a proxy in front has some: fewer than may wait at a socket until a server accepts them. */
const CONNECTIONS = 500;
/** They are kept open for less than servers do: one would hang up on what is just being sent. */
const IDLE_MS = 2000;
/** How long an example may keep its connections to a model open when nobody asks any more. */
const CLOSING_MS = 15_000;

/** Such a one says that there is no room, and when to come again. */
const REFUSALS = new Set(['ERR_QUEUE_FULL', 'ERR_RATE_LIMITED']);

/** Starts the example, asks it for `times` what it can do for so long, and ends it. */
export async function drive(subject: Subject, times: number, seconds: number): Promise<Report> {
  const { name, args, env, title } = subject;
  const script = new URL(`../../examples/${name}/start.ts`, import.meta.url);
  const child = await startChild(script, { names: [title], args, env });
  const bare = await startChild(BARE, { names: ['Bare'] });
  const client = new Client(child.urls[title]!, subject);
  await client.inClosedLoop(WARM_MS);
  const capacityPerSecond = subject.perSecond ?? (await client.inClosedLoop(MEASURED_MS));
  const askedPerSecond = Math.round(times * capacityPerSecond);

  await client.hangUp(child);
  const before = await child.figures();
  child.reset();
  const [outcomes, middle, refused] = await Promise.all([
    client.inOpenLoop(askedPerSecond, seconds),
    sleep(500 * seconds).then(() => child.figures()),
    new Client(bare.urls['Bare']!, subject).inOpenLoop(BARE_PER_SECOND, seconds),
  ]);
  await bare.end();
  const left = await client.left();
  const delays = await child.figures();
  await client.hangUp(child);
  const after = await child.figures();
  const { code: exitCode } = await child.end();
  return {
    name,
    capacityPerSecond,
    askedPerSecond,
    outcomes,
    bareMs: refused.map(({ tookMs }) => tookMs),
    figures: [before, middle, after],
    delays,
    left,
    load: loadavg()[0]!,
    exitCode,
  };
}

/** All who ask one example. */
class Client {
  readonly #url: string;
  readonly #subject: Subject;
  readonly #connections = new Agent({
    keepAlive: true,
    timeout: IDLE_MS,
    maxSockets: CONNECTIONS,
    maxFreeSockets: CONNECTIONS,
  });

  constructor(url: string, subject: Subject) {
    this.#url = url;
    this.#subject = subject;
  }

  /** So many at a time, each of whom asks again when there is an answer; resolves to answers a second. */
  async inClosedLoop(forMs: number): Promise<number> {
    const { atOnce } = this.#subject;
    const begun = performance.now();
    let finished = 0;
    const askAgain = async (own: number): Promise<void> => {
      for (let number = own; performance.now() - begun < forMs; number += atOnce) {
        const { kind } = await this.#ask(number);
        if (kind === 'finished') finished += 1;
      }
    };
    await Promise.all(Array.from({ length: atOnce }, (_, own) => askAgain(own)));
    return (1000 * finished) / (performance.now() - begun);
  }

  /** Each when it is due, whatever becomes of those before it. */
  async inOpenLoop(perSecond: number, seconds: number): Promise<Outcome[]> {
    const begun = performance.now();
    const asked: Promise<Outcome>[] = [];
    for (let number = 0; number < perSecond * seconds; number += 1) {
      const leftMs = begun + (1000 * number) / perSecond - performance.now();
      if (leftMs > 0) await sleep(leftMs);
      asked.push(this.#ask(number));
    }
    return Promise.all(asked);
  }

  async left(): Promise<Gauges> {
    const response = await fetch(this.#url + this.#subject.gaugesPath);
    const told = this.#subject.gauges(await response.json());
    const sumOf = (name: keyof Gauges): number => told.reduce((sum, each) => sum + each[name], 0);
    return { active: sumOf('active'), waiting: sumOf('waiting') };
  }

  /** Closes its connections, and waits until the example has none: what is kept open takes room. */
  async hangUp(child: Child): Promise<void> {
    this.#connections.destroy();
    const deadline = performance.now() + CLOSING_MS;
    while (performance.now() < deadline) {
      const { resources } = await child.figures();
      if (!resources.includes('TCPSocketWrap')) return;
      await sleep(250);
    }
  }

  /** Never rejects. */
  async #ask(number: number): Promise<Outcome> {
    const begun = performance.now();
    let connectedAt = Number.NaN;
    const ended = (kind: Outcome['kind'], code = ''): Outcome => ({
      kind,
      code,
      connectedMs: connectedAt - begun,
      tookMs: performance.now() - connectedAt,
    });
    try {
      const {
        headers,
        statusCode: status,
        body,
      } = await this.#send(number, () => {
        connectedAt = performance.now();
      });
      if (status === 200) {
        const why = whyNotWhole(headers, body);
        return why === undefined ? ended('finished') : ended('lost', why);
      }
      const { error } = JSON.parse(body) as { error: { code: string } };
      const isHonest = REFUSALS.has(error.code) && Number(headers['retry-after']) > 0;
      return ended(isHonest ? 'refused' : 'lost', `${status} ${error.code}`);
    } catch (error) {
      return ended('lost', String(error));
    }
  }

  async #send(
    number: number,
    onConnection: () => void,
  ): Promise<Pick<IncomingMessage, 'headers' | 'statusCode'> & { readonly body: string }> {
    // Of `fetch`, it would take more to send a request than to refuse it.
    const call = request(this.#url + this.#subject.path, {
      method: 'POST',
      agent: this.#connections,
      headers: this.#subject.headers(number),
    });
    call.end(this.#subject.body(number));
    const [socket] = (await once(call, 'socket')) as [Socket];
    if (socket.connecting) await once(socket, 'connect');
    onConnection();
    const [response] = (await once(call, 'response')) as [IncomingMessage];
    const { headers, statusCode } = response;
    return { headers, statusCode, body: await text(response) };
  }
}

/** Undefined for an answer that has come to its end. */
function whyNotWhole(headers: IncomingMessage['headers'], body: string): string | undefined {
  if (headers['content-type']?.startsWith('text/event-stream') !== true) {
    JSON.parse(body);
    return undefined;
  }
  let why: string | undefined = 'The stream was cut.';
  const parser = createParser({
    onEvent({ event, data }) {
      if (event === 'done' || data === '[DONE]') why = undefined;
      else if (event === 'error' || data.startsWith('{"error"')) why = data;
    },
  });
  parser.feed(body);
  return why;
}
