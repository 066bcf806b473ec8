import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type Agent, type IncomingMessage, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

import { createParser } from 'eventsource-parser';

import type { Random } from './random.ts';

/** What a student does; those who come up more often are named more than once. */
const MANNERS = [
  'reads',
  'reads',
  'reads',
  'reads in one piece',
  'reads in one piece',
  'reads slowly',
  'takes it back',
  'vanishes soon',
  'vanishes while reading',
] as const;

type Manner = (typeof MANNERS)[number];

/** Nothing takes longer than this, unless it is lost. */
const PATIENCE_MS = 60_000;

/** What became of a question. */
export interface Outcome {
  readonly manner: Manner;
  /** `told` is for every answer that is none, with the code of why. */
  readonly kind: 'answered' | 'told' | 'left' | 'lost';
  readonly why: string;
}

export interface Class {
  readonly url: string;
  readonly agent: Agent;
  readonly random: Random;
  readonly onOutcome: (outcome: Outcome) => void;
}

/** Asks again and again, each time in another manner, until the signal. Never rejects. */
export async function attend(number: number, own: Class, ended: AbortSignal): Promise<void> {
  while (!ended.aborted) {
    await sleep(own.random.between(0, 2000), undefined, { signal: ended }).catch(() => {});
    if (ended.aborted) return;
    own.onOutcome(await askOnce(number, own.random.pick(MANNERS), own));
  }
}

async function askOnce(number: number, manner: Manner, own: Class): Promise<Outcome> {
  const asked = new Asked(number, manner === 'reads in one piece' ? '' : '/stream', own);
  try {
    const leaves = manner === 'vanishes soon' && sleep(own.random.between(0, 1500));
    if (leaves !== false) void leaves.then(() => asked.vanish());
    const takesBack = manner === 'takes it back' && sleep(own.random.between(0, 1500));
    if (takesBack !== false) void takesBack.then(() => asked.takeBack());
    const told = await asked.outcome(async (tokens) => {
      if (manner === 'vanishes while reading' && tokens === 5) asked.vanish();
      if (manner === 'reads slowly') await sleep(own.random.between(0, 50));
    });
    return { manner, kind: told === '' ? 'answered' : 'told', why: told };
  } catch (error) {
    if (asked.vanished) return { manner, kind: 'left', why: '' };
    return { manner, kind: 'lost', why: `${manner}: ${String(error)}` };
  }
}

/** One question, on a connection that can be reset. */
class Asked {
  readonly #id = randomUUID();
  readonly #own: Class;
  readonly #request;
  #vanished = false;
  #over = false;

  constructor(number: number, path: string, own: Class) {
    this.#own = own;
    this.#request = request(`${own.url}/api/chat${path}`, {
      method: 'POST',
      agent: own.agent,
      signal: AbortSignal.timeout(PATIENCE_MS),
      headers: {
        'content-type': 'application/json',
        'x-request-id': this.#id,
        'x-student-id': `student-${number}`,
      },
    });
    this.#request.on('error', () => {});
    this.#request.end(JSON.stringify({ question: `What is question ${number} about?` }));
  }

  get vanished(): boolean {
    return this.#vanished;
  }

  /** As if the machine of the student had been switched off, in the middle of all this. */
  vanish(): void {
    // The connection is somebody else's by now.
    if (this.#over) return;
    this.#vanished = true;
    this.#request.socket?.resetAndDestroy();
    this.#request.destroy();
  }

  takeBack(): void {
    const { url, agent } = this.#own;
    const path = `${url}/api/queue/${this.#id}`;
    const call = request(path, { method: 'DELETE', agent }, (response) => response.resume());
    call.on('error', () => {}).end();
  }

  /**
   * Empty for a whole answer, else the code of why there is none. Rejects for what is neither: a
   * connection that is cut, tokens that are missing, a place that goes up, a failure of the server.
   */
  async outcome(onToken: (tokens: number) => Promise<void>): Promise<string> {
    const [response] = (await once(this.#request, 'response')) as [IncomingMessage];
    response.setEncoding('utf8');
    response.once('end', () => {
      this.#over = true;
    });
    const isStream = response.headers['content-type']?.startsWith('text/event-stream') === true;
    return isStream ? readStream(response, onToken) : readJson(response);
  }
}

async function readJson(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) text += String(chunk);
  const { answer, error } = JSON.parse(text) as { answer?: string; error?: { code: string } };
  if (response.statusCode === 200 && answer !== undefined && answer !== '') return '';
  return reasonOf(error?.code);
}

/** Each kind of event has some of these. */
interface EventData {
  readonly position?: number;
  readonly index?: number;
  readonly tokens?: number;
  readonly code?: string;
}

async function readStream(
  response: IncomingMessage,
  onToken: (tokens: number) => Promise<void>,
): Promise<string> {
  let [place, tokens] = [Infinity, 0];
  let end: string | undefined;
  const parser = createParser({
    onEvent({ event, data }) {
      const { position = 0, index, tokens: all, code } = JSON.parse(data) as EventData;
      if (end !== undefined) throw new Error('There is more after the end.');
      if (event === 'position') {
        if (position >= place) throw new Error(`From place ${place} to ${position}.`);
        place = position;
      } else if (event === 'token') {
        if (index !== tokens) throw new Error(`Token ${index} came as number ${tokens}.`);
        tokens += 1;
      } else if (event === 'done') {
        if (all !== tokens || tokens === 0) throw new Error(`${tokens} of ${all} tokens came.`);
        end = '';
      } else if (event === 'error') {
        end = reasonOf(code);
      }
    },
  });
  let told = 0;
  for await (const chunk of response) {
    parser.feed(String(chunk));
    for (; told < tokens; told += 1) await onToken(told + 1);
  }
  if (end === undefined) throw new Error(`The stream was cut after ${tokens} tokens.`);
  return end;
}

/** Rejects what is a failure of the server itself, and what has no reason. */
function reasonOf(code: string | undefined): string {
  if (code !== undefined && code !== 'ERR_INTERNAL') return code;
  throw new Error(`The server failed: ${code}.`);
}
