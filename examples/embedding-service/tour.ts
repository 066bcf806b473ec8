import OpenAI from 'openai';

import { type EmbeddingServer, startEmbeddingServer } from './server.ts';
import type { Settings } from './settings.ts';

const TEXTS = [
  'A permit is given back when the task has settled.',
  'When its task has settled, a permit is free.',
  'Tokens come in evenly, up to the burst.',
];

/** What the service does, seen from outside: over HTTP, with the real `openai` client. */
export async function tour(settings: Settings, print: (line: string) => void): Promise<void> {
  const server = await startEmbeddingServer({ ...settings, port: 0 });
  // It would retry by itself, and a refusal is what is to be seen here.
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
  try {
    await load(server, client, print);
    await compare(client, print);
    await crowd(server, client, print);
    await swap(server, client, print);
  } finally {
    await server.close();
  }
  await standIn({ ...settings, port: 0, corpus: '/nowhere' }, print);
}

/** Thirty callers come before the model is there; ten of them with the same text. */
async function load(server: EmbeddingServer, client: OpenAI, print: Print): Promise<void> {
  const texts = Array.from({ length: 30 }, (_, i) => (i < 10 ? 'the same' : `text ${i}`));
  const answers = Promise.all(texts.map((text) => embed(client, text)));
  const haveCome = (): boolean => server.stats().texts + server.stats().joined >= 30;
  await until(haveCome, answers);
  const { active, waiting, joined, loading } = server.stats();
  print(`30 callers    loading ${loading}: ${active} use it, ${waiting} wait, ${joined} share`);
  await answers;
  const { loads, loadMs } = server.stats();
  print(`              ${loads} load of ${seconds(loadMs.mean ?? 0)}, 30 answers`);
}

async function compare(client: OpenAI, print: Print): Promise<void> {
  const [one, other, third] = (await Promise.all(TEXTS.map((text) => embed(client, text)))) as [
    number[],
    number[],
    number[],
  ];
  print(`Similarity    ${cosine(one, other).toFixed(2)}  two sentences about permits`);
  print(`              ${cosine(one, third).toFixed(2)}  one about permits, one about rates`);
}

/** More than there is room for, all at once. */
async function crowd(server: EmbeddingServer, client: OpenAI, print: Print): Promise<void> {
  const before = server.stats().turnedAway;
  const startedAt = performance.now();
  let refusedMs = 0;
  const answers = await Promise.allSettled(
    Array.from({ length: 300 }, (_, i) =>
      embed(client, `crowd ${i}`).catch((error: unknown) => {
        refusedMs = Math.max(refusedMs, performance.now() - startedAt);
        throw error;
      }),
    ),
  );
  const answered = answers.filter(({ status }) => status === 'fulfilled').length;
  const refused = server.stats().turnedAway - before;
  print(`300 at once   ${answered} answered, ${refused} told to come again`);
  const answeredMs = performance.now() - startedAt;
  print(`              last refusal: ${seconds(refusedMs)}, last answer: ${seconds(answeredMs)}`);
}

/** A new one takes the place of the old one, which serves until then. */
async function swap(server: EmbeddingServer, client: OpenAI, print: Print): Promise<void> {
  const reloaded = send('POST', `${server.url}/model/reload`);
  const isLoading = (): boolean => server.stats().loading;
  await until(isLoading, reloaded);
  await embed(client, 'meanwhile');
  print(`Reload        answers meanwhile: loading ${server.stats().loading}`);
  await reloaded;
  const again = send('POST', `${server.url}/model/reload`);
  await until(isLoading, again);
  await send('POST', `${server.url}/model/cancel`);
  const { status } = await again;
  print(`Cancel        the reload is answered with ${status}, the model stays`);
  await send('PATCH', `${server.url}/model`, { maxUsers: 2, loadTimeoutMs: 100 });
  const late = await send('POST', `${server.url}/model/reload`);
  const { error } = (await late.json()) as { error?: { code: string } };
  const told = error?.code ?? 'that was enough';
  print(`Configure     ${server.stats().maxUsers} users, 100 ms to load: ${told}`);
}

async function standIn(settings: Settings, print: Print): Promise<void> {
  const server = await startEmbeddingServer(settings);
  try {
    const response = await send('POST', `${server.url}/v1/embeddings`, { input: TEXTS[0] });
    const { model } = (await response.json()) as { model: string };
    print(`Fallback      with nothing to learn from: ${response.status}, by the model "${model}"`);
  } finally {
    await server.close();
  }
}

type Print = (line: string) => void;

async function embed(client: OpenAI, input: string): Promise<number[]> {
  const { data } = await client.embeddings.create({ model: 'any', input });
  return data[0]!.embedding;
}

function send(method: string, url: string, body: unknown = {}): Promise<Response> {
  return fetch(url, { method, ...(method !== 'GET' && { body: JSON.stringify(body) }) });
}

/** Resolves when it is so, or when the answer has come that would have shown it. */
async function until(condition: () => boolean, answer: Promise<unknown>): Promise<void> {
  const over = answer.then(
    () => true,
    () => true,
  );
  while (!condition()) {
    const next = new Promise<boolean>((resolve) => {
      setTimeout(resolve, 1, false);
    });
    if (await Promise.race([over, next])) return;
  }
}

function cosine(one: readonly number[], other: readonly number[]): number {
  return one.reduce((sum, value, index) => sum + value * other[index]!, 0);
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
