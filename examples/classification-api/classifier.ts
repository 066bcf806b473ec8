import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';

import { paragraphsOf } from '../model-server/corpus.ts';
import { type Example, NaiveBayes } from './bayes.ts';

/** What a text can be about: each is a file of the documentation. */
const LABELS = [
  'admission-queue',
  'http',
  'rate-limiter',
  'semaphore',
  'session-manager',
  'shared-resource',
  'token-streamer',
];

export interface ClassifierOptions {
  /** On 127.0.0.1; 0 takes a free one. */
  readonly port: number;
  /** How long a request takes, as on a busy GPU. */
  readonly serviceMs: number;
}

interface ClassifierStats {
  /** Requests that are worked on now, and the most that ever were. */
  readonly active: number;
  readonly peak: number;
  readonly served: number;
  /** Left by their client. */
  readonly aborted: number;
}

export interface Classifier {
  readonly url: string;
  stats(): ClassifierStats;
  /** Cuts what is open, and resolves when the server has closed. */
  close(): Promise<void>;
}

/**
 * The model behind the API, in a server of its own: it learns from this repository's documentation
 * which part of the library a text is about. It has no line and no limit, and takes its time.
 *
 * `POST /classify` with `{ texts }` is answered with `{ results }`, in the same order.
 */
export async function startClassifier(options: ClassifierOptions): Promise<Classifier> {
  const model = new NaiveBayes(await readExamples());
  const figures = { active: 0, peak: 0, served: 0, aborted: 0 };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    figures.active += 1;
    figures.peak = Math.max(figures.peak, figures.active);
    try {
      const { texts } = (await json(request)) as { readonly texts: readonly string[] };
      await sleep(options.serviceMs, undefined, { signal: gone.signal });
      const results = texts.map((text) => model.classify(text));
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ results }));
      figures.served += 1;
    } catch {
      if (gone.signal.aborted) figures.aborted += 1;
      else response.writeHead(400).end();
    } finally {
      figures.active -= 1;
    }
  };

  const server = createServer((request, response) => {
    if (request.method === 'POST' && request.url === '/classify') void answer(request, response);
    else response.writeHead(404).end();
  });
  server.listen(options.port, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stats: () => ({ ...figures }),
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function readExamples(): Promise<Example[]> {
  const files = LABELS.map(async (label) => {
    const markdown = await readFile(new URL(`../../docs/${label}.md`, import.meta.url), 'utf8');
    return paragraphsOf(markdown).map((text) => ({ label, text }));
  });
  return (await Promise.all(files)).flat();
}
