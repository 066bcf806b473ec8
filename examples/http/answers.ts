/** What the examples have in common: the answers, who may have one when, and a server that runs. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout } from 'node:timers/promises';

import {
  AdmissionQueue,
  RateLimitedError,
  RateLimiter,
  type TaskContext,
  type TokenStream,
  TokenStreamer,
} from 'sluice';

import { fail } from '../support/command.ts';
import { numberIn } from '../support/environment.ts';

/** Answers token by token, and stops when its signal says that nobody listens any more. */
export type Model = (question: string, context: TaskContext) => AsyncIterable<string>;

export interface AnswersOptions {
  /** How many are answered at once; the others see their place in line. Default 2. */
  readonly concurrency?: number;
  /** How long the line may be; who comes then gets 503. Default 100. */
  readonly maxWaiting?: number;
  /** How many may ask in a second; who comes too soon gets 429. Default 10. */
  readonly perSecond?: number;
}

export class Answers {
  readonly queue: AdmissionQueue;
  readonly #limiter: RateLimiter;
  readonly #streamer = new TokenStreamer({ firstTokenTimeoutMs: 60_000, idleTimeoutMs: 30_000 });
  readonly #model: Model;

  constructor(
    model: Model,
    { concurrency = 2, maxWaiting = 100, perSecond = 10 }: AnswersOptions = {},
  ) {
    this.#model = model;
    this.queue = new AdmissionQueue({ concurrency, maxWaiting });
    this.#limiter = new RateLimiter({ limit: perSecond });
  }

  /**
   * An answer to be sent. A full line is told when it is read; what comes too soon is thrown here,
   * for the framework's own handler of errors.
   */
  stream(question: string, signal?: AbortSignal): TokenStream<string> {
    if (this.#limiter.tryAcquire() === undefined) {
      throw new RateLimitedError(this.#limiter.retryAfterMs());
    }
    return this.#streamer.stream((context) => this.#model(question, context), {
      gate: this.queue,
      signal,
    });
  }
}

/** What `?question=…&format=…` asks for. */
export function readAsked(search: URLSearchParams): {
  readonly question: string;
  readonly format: 'events' | 'openai';
} {
  return {
    question: search.get('question') ?? '',
    format: search.get('format') === 'openai' ? 'openai' : 'events',
  };
}

/** A text that is worth compressing, which the streams beside it are not. */
export const TEXT = readFileSync(new URL('README.md', import.meta.url), 'utf8');

/** A model that answers every question by reading that text aloud. */
export async function* readAloud(
  question: string,
  { signal }: TaskContext,
): AsyncGenerator<string> {
  yield `${question} `;
  for (const word of TEXT.split(/(?<=\s)/)) {
    await setTimeout(50, undefined, { signal });
    yield word;
  }
}

export interface Running {
  readonly url: string;
  /** Cuts what is still open. */
  readonly close: () => Promise<void>;
}

export async function listen(server: Server, port: number): Promise<Running> {
  await once(server.listen(port, '127.0.0.1'), 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

const PORT = { variable: 'PORT', standard: 3000, min: 0, max: 65_535 };

/** Starts one of the examples and ends it at Ctrl-C. */
export async function main(
  start: (answers: Answers, port: number) => Promise<Running>,
): Promise<void> {
  try {
    const { url, close } = await start(new Answers(readAloud), numberIn(process.env, PORT));
    console.log(`curl -N --compressed '${url}/answer?question=Why?'`);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void close());
  } catch (error) {
    fail(error, PORT.variable);
  }
}
