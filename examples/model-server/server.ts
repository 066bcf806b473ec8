import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { ApiError } from './api-error.ts';
import { completion, completionEvents, identify, quotaHeaders } from './completions.ts';
import { readCorpus } from './corpus.ts';
import { Engine, type EngineStats, type Job } from './engine.ts';
import { message, messageError, messageEvents, messageQuotaHeaders } from './messages.ts';
import type { QuotaCount } from './quota.ts';
import { type ChatRequest, MODEL, parseChatRequest, parseMessagesRequest } from './request.ts';
import { settingsOf, type ModelServerOptions } from './settings.ts';
import { TrigramModel } from './trigram.ts';

const MAX_BODY_BYTES = 1_048_576;

/** `GET /health` answers these, and `status: 'ok'`. */
export interface ModelServerStats extends EngineStats {
  readonly model: string;
  /** Different tokens that the model knows. */
  readonly vocabulary: number;
  readonly parallel: number;
  readonly prefillMsPerToken: number;
  readonly decodeMsPerToken: number;
  readonly uptimeMs: number;
}

export interface ModelServer {
  /** Without a path: clients want `${url}/v1`. */
  readonly url: string;
  readonly port: number;
  stats(): ModelServerStats;
  /** Cuts the open responses and resolves when the last connection is gone. */
  close(): Promise<void>;
}

/** How a request and its answer are worded. */
interface Protocol {
  readonly parse: (body: unknown) => ChatRequest;
  readonly whole: (job: Job) => object;
  readonly events: (job: Job, request: ChatRequest, signal: AbortSignal) => AsyncIterable<string>;
  readonly quotaHeaders: (counts: readonly QuotaCount[]) => Readonly<Record<string, string>>;
}

const MESSAGES_PATH = '/v1/messages';

const MESSAGES: Protocol = {
  parse: parseMessagesRequest,
  whole: message,
  events: (job, _, signal) => messageEvents(job, signal),
  quotaHeaders: messageQuotaHeaders,
};

/** With the same fingerprint, the same seed gives the same answer. */
function completionsFrom(fingerprint: string): Protocol {
  return {
    parse: parseChatRequest,
    whole: (job) => completion(identify(fingerprint), job),
    events: (job, { includeUsage }, signal) =>
      completionEvents(identify(fingerprint), job, includeUsage, signal),
    quotaHeaders,
  };
}

interface Route {
  readonly method: 'GET' | 'POST';
  readonly open?: true;
  readonly answer: (req: IncomingMessage, res: ServerResponse) => void | Promise<void>;
}

/**
 * Trains the model and serves it on 127.0.0.1 in the protocols of OpenAI's chat completions and of
 * Anthropic's messages.
 * Rejects with a TypeError or RangeError for bad options, with the system's error for a bad port.
 */
export async function startModelServer(options: ModelServerOptions = {}): Promise<ModelServer> {
  const settings = settingsOf(options);
  const corpus = settings.corpus ?? (await readCorpus());
  const model = new TrigramModel(corpus);
  const engine = new Engine(model, settings);
  const startedAt = performance.now();
  const fingerprint = `fp_${createHash('sha256').update(corpus.join('\n')).digest('hex').slice(0, 10)}`;
  const card = {
    id: MODEL,
    object: 'model',
    created: Math.floor(Date.now() / 1000),
    owned_by: 'sluice',
  };
  let closing: Promise<void> | undefined;

  const stats = (): ModelServerStats => ({
    model: MODEL,
    vocabulary: model.vocabulary,
    parallel: settings.parallel,
    prefillMsPerToken: settings.prefillMsPerToken,
    decodeMsPerToken: settings.decodeMsPerToken,
    uptimeMs: Math.round(performance.now() - startedAt),
    ...engine.stats(),
  });

  const routes = new Map<string, Route>([
    [
      '/health',
      {
        method: 'GET',
        open: true,
        answer: (_, res) => sendJson(res, 200, { status: 'ok', ...stats() }),
      },
    ],
    [
      '/v1/models',
      { method: 'GET', answer: (_, res) => sendJson(res, 200, { object: 'list', data: [card] }) },
    ],
    [`/v1/models/${MODEL}`, { method: 'GET', answer: (_, res) => sendJson(res, 200, card) }],
    [
      '/v1/chat/completions',
      {
        method: 'POST',
        answer: (req, res) => complete(engine, completionsFrom(fingerprint), req, res),
      },
    ],
    [MESSAGES_PATH, { method: 'POST', answer: (req, res) => complete(engine, MESSAGES, req, res) }],
  ]);

  const answering = new Set<Promise<void>>();
  const server = createServer((req, res) => {
    const answer = respond(routes, settings.apiKey, req, res);
    answering.add(answer);
    void answer.then(() => answering.delete(answer));
  });
  server.listen(settings.port, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  return {
    url: `http://127.0.0.1:${port}`,
    port,
    stats,
    close() {
      closing ??= (async () => {
        const closed = once(server, 'close');
        server.close();
        server.closeAllConnections();
        await closed;
        // A server is closed a little before its last requests are told so.
        await Promise.all(answering);
      })();
      return closing;
    },
  };
}

/** Never rejects. */
async function respond(
  routes: ReadonlyMap<string, Route>,
  apiKey: string | undefined,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  res.setHeader('x-request-id', randomUUID());
  try {
    await routeOf(routes, req, apiKey).answer(req, res);
  } catch (error) {
    refuse(res, error, pathOf(req) === MESSAGES_PATH ? messageError : undefined);
  }
}

function pathOf(req: IncomingMessage): string {
  return (req.url ?? '').split('?', 1)[0] ?? '';
}

function routeOf(
  routes: ReadonlyMap<string, Route>,
  req: IncomingMessage,
  apiKey: string | undefined,
): Route {
  const path = pathOf(req);
  const route = routes.get(path);
  if (route === undefined) throw new ApiError(404, `Nothing is at ${path.slice(0, 128)}.`);
  if (req.method !== route.method) {
    const headers = { Allow: route.method };
    throw new ApiError(405, `Expected ${route.method} at ${path}.`, { headers });
  }
  if (apiKey !== undefined && route.open !== true) {
    const { authorization, 'x-api-key': key } = req.headers;
    if (authorization !== `Bearer ${apiKey}` && key !== apiKey) {
      throw new ApiError(401, 'Incorrect API key provided.', { code: 'invalid_api_key' });
    }
  }
  return route;
}

async function complete(
  engine: Engine,
  protocol: Protocol,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const request = protocol.parse(await readJson(req));
  // A client that left while it was read holds no place.
  if (res.closed) return;
  let job: Job;
  try {
    job = engine.admit(request);
  } finally {
    // Refused or not, it is told how its quota stands.
    res.setHeaders(new Map(Object.entries(protocol.quotaHeaders(engine.quota()))));
  }
  const gone = new AbortController();
  res.once('close', () => {
    job.leave('aborted');
    gone.abort();
  });
  try {
    if (request.stream) {
      await sendEvents(res, protocol.events(job, request, gone.signal), gone.signal);
    } else {
      await job.finish(gone.signal);
      sendJson(res, 200, protocol.whole(job));
    }
  } catch (error) {
    if (!gone.signal.aborted) throw error;
  }
}

async function readJson(req: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of req as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    // The rest is read and dropped, so that the client gets to see the answer.
    if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  if (bytes > MAX_BODY_BYTES) {
    throw new ApiError(413, `Expected a body of at most ${MAX_BODY_BYTES} bytes, got ${bytes}.`);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new ApiError(400, 'Expected the body to be JSON.');
  }
}

async function sendEvents(
  res: ServerResponse,
  events: AsyncIterable<string>,
  signal: AbortSignal,
): Promise<void> {
  res.writeHead(200, {
    'Content-Type': 'text/event-stream; charset=utf-8',
    'Cache-Control': 'no-cache, no-transform',
  });
  for await (const event of events) {
    if (!res.write(event)) await once(res, 'drain', { signal });
  }
  res.end();
}

function sendJson(
  res: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  res.writeHead(status, { 'Content-Type': 'application/json; charset=utf-8', ...headers });
  res.end(JSON.stringify(body));
}

function refuse(
  res: ServerResponse,
  error: unknown,
  bodyOf: (refusal: ApiError) => object = (refusal) => refusal,
): void {
  if (res.destroyed) return;
  let refusal: ApiError;
  if (error instanceof ApiError) {
    refusal = error;
  } else {
    console.error(error);
    refusal = new ApiError(500, 'The server failed.', { type: 'server_error' });
  }
  // An answer that broke off must not look like one that ended.
  if (res.headersSent) res.destroy();
  else sendJson(res, refusal.status, bodyOf(refusal), refusal.headers);
}
