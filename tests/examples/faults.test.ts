import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

import { EventSourceParserStream } from 'eventsource-parser/stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { startApi } from '../../examples/classification-api/api.ts';
import { startClassifier } from '../../examples/classification-api/classifier.ts';
import { readSettings as readApiSettings } from '../../examples/classification-api/settings.ts';
import { startDocumentServer } from '../../examples/document-service/server.ts';
import { readSettings as readDocumentSettings } from '../../examples/document-service/settings.ts';
import { startEmbeddingServer } from '../../examples/embedding-service/server.ts';
import { readSettings as readEmbeddingSettings } from '../../examples/embedding-service/settings.ts';
import { startModelServer } from '../../examples/model-server/server.ts';
import { startGateway } from '../../examples/provider-gateway/server.ts';
import { readSettings as readGatewaySettings } from '../../examples/provider-gateway/settings.ts';
import {
  type Fault,
  FAULTS,
  type FaultyProxy,
  startFaultyProxy,
} from '../../examples/support/faulty-proxy.ts';
import { startChatServer } from '../../examples/tutoring-chat/server.ts';
import { readSettings as readChatSettings } from '../../examples/tutoring-chat/settings.ts';
import { FABLES } from './fables.ts';

/** Longer than any answer takes on a machine with much else to do. */
const A_WHILE = '1000';
const FOR_EVER = '1000000';

interface Gauges {
  readonly active: number;
  readonly waiting: number;
}

/** An example with room for two, behind which everything can go wrong. */
interface Running {
  readonly url: string;
  /** Of its queues, semaphores and sessions, and of the model server behind it. */
  gauges(): Gauges[];
  readonly proxies: readonly FaultyProxy[];
}

interface Example {
  readonly path: string;
  readonly type: string;
  readonly body: string;
  /** @param patienceMs how long it waits for a model that says nothing. */
  start(patienceMs: string): Promise<Running>;
}

const open: { close(): Promise<unknown> }[] = [];

beforeEach(() => {
  vi.spyOn(console, 'error').mockImplementation(() => {});
});

afterEach(async () => {
  // Whoever still waits for a model is told that it is gone.
  for (const server of open.splice(0)) await server.close();
  vi.restoreAllMocks();
});

/** The model server of the repository with a proxy in front, closed before what stands before it. */
async function startModel(): Promise<{ proxy: FaultyProxy; gauges: () => Gauges }> {
  const pace = { prefillMsPerToken: 0, decodeMsPerToken: 0, parallel: 100 };
  const model = await startModelServer({ port: 0, corpus: FABLES, ...pace });
  const proxy = await startFaultyProxy(model.url);
  open.push(proxy, model);
  return { proxy, gauges: () => ({ active: model.stats().active + proxy.open, waiting: 0 }) };
}

function gaugesOf({ active, waiting }: Gauges): Gauges {
  return { active, waiting };
}

async function startChat(patienceMs: string): Promise<Running> {
  const { proxy, gauges } = await startModel();
  const env = { CHAT_PORT: '0', CHAT_CONCURRENCY: '2', CHAT_ANSWER_TIMEOUT_MS: patienceMs };
  const chat = await startChatServer(readChatSettings(env, `${proxy.url}/v1`));
  open.push(chat);
  return { url: chat.url, gauges: () => [gaugesOf(chat.stats()), gauges()], proxies: [proxy] };
}

async function startDocuments(patienceMs: string): Promise<Running> {
  const { proxy, gauges } = await startModel();
  const env = {
    DOCUMENT_PORT: '0',
    DOCUMENT_CONCURRENCY: '2',
    DOCUMENT_MODEL_CALLS: '2',
    DOCUMENT_MODEL_TIMEOUT_MS: patienceMs,
  };
  const service = await startDocumentServer(readDocumentSettings(env, `${proxy.url}/v1`));
  open.push(service);
  const { queue, calls } = service.documents;
  return {
    url: service.url,
    gauges: () => [gaugesOf(queue.stats()), gaugesOf(calls.stats()), gauges()],
    proxies: [proxy],
  };
}

async function startClassification(patienceMs: string): Promise<Running> {
  const model = await startClassifier({ port: 0, serviceMs: 0 });
  const proxy = await startFaultyProxy(model.url);
  open.push(proxy, model);
  const env = { CLASSIFY_PORT: '0', CLASSIFY_WORKERS: '2', CLASSIFY_TIMEOUT_MS: patienceMs };
  const api = await startApi(readApiSettings(env, proxy.url));
  open.push(api);
  const atModel = (): Gauges => ({ active: model.stats().active + proxy.open, waiting: 0 });
  return { url: api.url, gauges: () => [gaugesOf(api.stats()), atModel()], proxies: [proxy] };
}

async function startProviders(patienceMs: string): Promise<Running> {
  const [fast, slow] = await Promise.all([startModel(), startModel()]);
  const env = {
    GATEWAY_PORT: '0',
    GATEWAY_FAST_CONCURRENCY: '2',
    GATEWAY_FAST_MAX_WAITING: '10',
    GATEWAY_SLOW_CONCURRENCY: '2',
    GATEWAY_FIRST_TOKEN_MS: patienceMs,
    GATEWAY_FAST_SHORT_TIMEOUT_MS: String(3 * Number(patienceMs)),
    GATEWAY_SLOW_SHORT_TIMEOUT_MS: String(3 * Number(patienceMs)),
    // Circuits have tests of their own.
    GATEWAY_FAULTS: '1000',
  };
  const urls = { fast: `${fast.proxy.url}/v1`, slow: `${slow.proxy.url}/v1` };
  const { url, gateway, close } = await startGateway(readGatewaySettings(env, urls));
  open.push({ close });
  const sessions = (): Gauges => ({ active: gateway.health().sessions.active, waiting: 0 });
  return {
    url,
    gauges: () => [
      sessions(),
      ...gateway.health().providers.map(gaugesOf),
      fast.gauges(),
      slow.gauges(),
    ],
    proxies: [fast.proxy, slow.proxy],
  };
}

/** Has no model behind HTTP: that it says nothing is the only thing that can be wrong with it. */
async function startEmbedding(patienceMs: string): Promise<Running> {
  const env = {
    EMBEDDING_PORT: '0',
    EMBEDDING_MAX_USERS: '2',
    EMBEDDING_LOAD_MS: '0',
    EMBEDDING_USE_MS: patienceMs,
  };
  const server = await startEmbeddingServer(readEmbeddingSettings(env));
  open.push(server);
  const gauges = (): Gauges[] => {
    const { active, waiting, texts } = server.stats();
    return [
      { active, waiting },
      { active: texts, waiting: 0 },
    ];
  };
  return { url: server.url, gauges, proxies: [] };
}

const JSON_TYPE = 'application/json';
const QUESTION = { model: 'short', messages: [{ role: 'user', content: 'What did the fox see?' }] };

const EXAMPLES = {
  'tutoring-chat': {
    path: '/api/chat',
    type: JSON_TYPE,
    body: '{"question":"What did the fox see?"}',
    start: startChat,
  },
  'tutoring-chat, in a stream': {
    path: '/api/chat/stream',
    type: JSON_TYPE,
    body: '{"question":"What did the fox see?"}',
    start: startChat,
  },
  'document-service': {
    path: '/documents',
    type: 'text/plain',
    body: 'The fox saw the grapes.',
    start: startDocuments,
  },
  'classification-api': {
    path: '/classify',
    type: JSON_TYPE,
    body: '{"text":"What did the fox see?"}',
    start: startClassification,
  },
  'provider-gateway': {
    path: '/v1/chat/completions',
    type: JSON_TYPE,
    body: JSON.stringify(QUESTION),
    start: startProviders,
  },
  'provider-gateway, in a stream': {
    path: '/v1/chat/completions',
    type: JSON_TYPE,
    body: JSON.stringify({ ...QUESTION, stream: true }),
    start: startProviders,
  },
} as const satisfies Readonly<Record<string, Example>>;

type Name = keyof typeof EXAMPLES;

const BROKEN = ['resets', 'fails', 'talks garbage', 'breaks off', 'ends early'] as const;
const SILENT = ['hangs', 'stalls'] as const;

/** What each caller is told. In a stream that has begun it is an error there. */
const TOLD: Readonly<Record<Name, Readonly<Record<Fault, string>>>> = {
  'tutoring-chat': {
    ...all(BROKEN, '502 ERR_MODEL_FAILED'),
    resets: '502 ERR_MODEL_UNREACHABLE',
    ...all(SILENT, '504 ERR_RUN_TIMEOUT'),
  },
  'tutoring-chat, in a stream': {
    ...all(BROKEN, 'error ERR_MODEL_FAILED'),
    resets: 'error ERR_MODEL_UNREACHABLE',
    ...all(SILENT, 'error ERR_RUN_TIMEOUT'),
  },
  'document-service': {
    ...all(BROKEN, '502 ERR_MODEL_FAILED'),
    ...all(SILENT, '504 ERR_MODEL_TIMEOUT'),
  },
  'classification-api': {
    ...all(BROKEN, '502 ERR_MODEL_FAILED'),
    ...all(SILENT, '504 ERR_SESSION_TIMEOUT'),
  },
  'provider-gateway': {
    ...all(BROKEN, '502 ERR_PROVIDER_FAILED'),
    hangs: '504 ERR_PROVIDER_SLOW',
    stalls: '504 ERR_SESSION_TIMEOUT',
  },
  'provider-gateway, in a stream': {
    ...all(BROKEN, '502 ERR_PROVIDER_FAILED'),
    'breaks off': 'error ERR_STREAM_FAILED',
    'ends early': 'error ERR_STREAM_FAILED',
    hangs: '504 ERR_PROVIDER_SLOW',
    stalls: 'error ERR_SESSION_TIMEOUT',
  },
};

function all<F extends Fault>(faults: readonly F[], told: string): Record<F, string> {
  return Object.fromEntries(faults.map((fault) => [fault, told])) as Record<F, string>;
}

const CELLS = (Object.keys(EXAMPLES) as Name[]).flatMap((name) =>
  FAULTS.map((fault): [Name, Fault, string] => [name, fault, TOLD[name][fault]]),
);

describe('A model that goes wrong', () => {
  it.each(CELLS)('%s: when it %s, each caller is told "%s"', async (name, fault, told) => {
    const example: Example = EXAMPLES[name];
    const running = await example.start(A_WHILE);
    const { url, gauges, proxies } = running;
    for (const proxy of proxies) proxy.plan = () => fault;
    // Twice as many as have room: the others come to it when the first have been told.
    const answers = Array.from({ length: 4 }, () => ask(url, example));
    expect(await Promise.all(answers)).toEqual([told, told, told, told]);
    await nobody(gauges);

    for (const proxy of proxies) proxy.plan = () => undefined;
    expect(await ask(url, example)).toBe('whole');
    await nobody(gauges);
  });

  it.each<Name>(['provider-gateway', 'provider-gateway, in a stream'])(
    '%s: is none when there is another one, which answers everybody',
    async (name) => {
      const example: Example = EXAMPLES[name];
      for (const fault of ['hangs', 'resets', 'fails', 'talks garbage'] as const) {
        const { url, gauges, proxies } = await example.start(A_WHILE);
        proxies[0]!.plan = () => fault;
        const answers = Array.from({ length: 2 }, () => ask(url, example));
        expect(await Promise.all(answers), fault).toEqual(['whole', 'whole']);
        await nobody(gauges);
      }
    },
  );
});

const EMBEDDING: Example = {
  path: '/v1/embeddings',
  type: JSON_TYPE,
  body: '{"input":"The fox saw the grapes."}',
  start: startEmbedding,
};

describe('Clients that vanish', () => {
  it.each<[name: string, fault: Fault, example: Example]>([
    ...Object.entries(EXAMPLES).flatMap(([name, example]): [string, Fault, Example][] =>
      SILENT.map((fault) => [name, fault, example]),
    ),
    ['embedding-service', 'hangs', EMBEDDING],
  ])(
    '%s: in the middle of a request, in line, and at a model that %s, leave nothing behind',
    async (_, fault, example) => {
      const { url, gauges, proxies } = await example.start(FOR_EVER);
      for (const proxy of proxies) proxy.plan = () => fault;
      const whole = requestOf(example);
      // Texts of their own: nobody shares an answer.
      const requests = Array.from({ length: 6 }, (__, i) => whole.replace('fox', `f${i}x`));
      const head = whole.indexOf('\r\n\r\n') + 4;
      const parts = [whole.slice(0, 20), whole.slice(0, head), whole.slice(0, head + 10)];
      const sockets = await Promise.all([...parts, ...requests].map((text) => say(url, text)));
      await vi.waitFor(() => expect(total(gauges())).toBeGreaterThanOrEqual(6), WAIT);
      // Some in good order, some as if their machine had been switched off.
      for (const [index, socket] of sockets.entries()) {
        if (index % 2 === 0) socket.resetAndDestroy();
        else socket.destroy();
      }
      await nobody(gauges);
    },
  );
});

const WAIT = { interval: 1, timeout: 25_000 };

/** Resolves when nobody is anywhere, up to the model server. */
async function nobody(gauges: () => Gauges[]): Promise<void> {
  await vi.waitFor(
    () => expect(gauges()).toEqual(gauges().map(() => ({ active: 0, waiting: 0 }))),
    WAIT,
  );
}

function total(gauges: readonly Gauges[]): number {
  return gauges.reduce((sum, { active, waiting }) => sum + active + waiting, 0);
}

/** What one caller is told: `whole` for an answer that has come to its end. */
async function ask(url: string, { path, type, body }: Example): Promise<string> {
  const headers = { 'content-type': type };
  const response = await fetch(url + path, { method: 'POST', headers, body });
  if (response.ok && response.headers.get('content-type')?.startsWith('text/event-stream')) {
    return endOf(response);
  }
  const answer = (await response.json()) as { readonly error?: { readonly code: string } };
  return response.ok ? 'whole' : `${response.status} ${answer.error?.code}`;
}

/** How a stream ends. */
async function endOf(response: Response): Promise<string> {
  const events = response
    .body!.pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  let end = 'nothing';
  for await (const { event, data } of events) {
    const { code, error } = (data === '[DONE]' ? {} : JSON.parse(data)) as {
      readonly code?: string;
      readonly error?: { readonly code: string };
    };
    if (event === 'done' || data === '[DONE]') end = 'whole';
    else if (event === 'error' || error !== undefined) end = `error ${error?.code ?? code}`;
  }
  return end;
}

function requestOf({ path, type, body }: Example): string {
  const length = `content-length: ${Buffer.byteLength(body)}`;
  return `POST ${path} HTTP/1.1\r\nhost: test\r\ncontent-type: ${type}\r\n${length}\r\n\r\n${body}`;
}

/** A connection on which this has been sent. */
async function say(url: string, text: string): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  socket.on('error', () => {});
  await once(socket, 'connect');
  await new Promise((resolve) => {
    socket.write(text, resolve);
  });
  return socket.resume();
}
