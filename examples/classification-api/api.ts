import { once } from 'node:events';
import type { ServerResponse } from 'node:http';

import fastify, { type FastifyError, type FastifyInstance, type FastifyReply } from 'fastify';
import type { FastifyRequest } from 'fastify';
import type { AdmissionQueueStats, ShutdownReport } from 'sluice';
import { toHttpError } from 'sluice/http';

import { Failure } from './failure.ts';
import { Limits } from './limits.ts';
import { type CallOptions, Service } from './service.ts';
import type { Settings } from './settings.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Of a route's requests, from 1, the most urgent, to 5, the default. */
    priority?: number;
  }
}

export interface ClassificationApi {
  readonly url: string;
  stats(): AdmissionQueueStats;
  /**
   * Refuses new requests from now on; resolves when those that were accepted are answered and the
   * server has closed.
   */
  close(): Promise<ShutdownReport>;
}

const TEXT = { type: 'string', minLength: 1, maxLength: 8192 };
const TEXTS = { type: 'array', items: TEXT, minItems: 1, maxItems: 20 };

const ONE = { type: 'object', required: ['text'], properties: { text: TEXT } };
const MANY = { type: 'object', required: ['texts'], properties: { texts: TEXTS } };

interface One {
  readonly Body: { readonly text: string };
}
interface Many {
  readonly Body: { readonly texts: readonly string[] };
}

/** Serves the API on 127.0.0.1. Rejects with the system's error for a port that it cannot have. */
export async function startApi(settings: Settings): Promise<ClassificationApi> {
  const service = new Service(settings);
  const limits = new Limits(settings);
  const responses = new Set<ServerResponse>();
  let shutdown: Promise<ShutdownReport> | undefined;

  const app = fastify({
    bodyLimit: 262_144,
    // For a body to arrive.
    requestTimeout: 10_000,
    forceCloseConnections: true,
    // The service does that, in the form of all other refusals.
    return503OnClosing: false,
    ajv: { customOptions: { coerceTypes: false } },
  });
  app.setErrorHandler(refuse);
  app.setNotFoundHandler(({ url }) => {
    throw new Failure(404, 'ERR_NOT_FOUND', `Nothing is at ${url.slice(0, 128)}.`);
  });

  app.addHook('preHandler', async (_, { raw }) => {
    responses.add(raw);
    raw.once('close', () => responses.delete(raw));
  });
  // Before it stops listening, so that whoever still comes is told; then all connections are cut.
  app.addHook('preClose', async () => {
    await (shutdown ??= service.shutdown());
    await Promise.all([...responses].map((response) => once(response, 'close')));
  });
  app.addHook('onSend', async (_, reply) => {
    if (shutdown !== undefined) reply.header('connection', 'close');
  });

  app.get('/health', async (_, reply) => {
    const { status, headers, body } = await service.health();
    return reply.code(status).headers(headers).send(body);
  });
  app.get('/queue/health', (_, reply) => {
    const health = { ...service.queueHealth(), rate: limits.gauges() };
    const takesMore = health.status === 'ok' || health.status === 'busy';
    return reply.code(takesMore ? 200 : 503).send(health);
  });
  app.register((limited, _, done) => {
    // Before the body is read: to be refused costs next to nothing.
    limited.addHook('onRequest', async (request) => limits.admit(userOf(request, settings)));
    addRoutes(limited, service, settings);
    done();
  });

  const url = await app.listen({ port: settings.port, host: '127.0.0.1' });
  return {
    url,
    stats: () => service.stats(),
    async close() {
      await app.close();
      return shutdown!;
    },
  };
}

/** Who waits for an answer to go on goes before who does not. */
function addRoutes(app: FastifyInstance, service: Service, settings: Settings): void {
  const optionsOf = (request: FastifyRequest, reply: FastifyReply): CallOptions => ({
    priority: request.routeOptions.config.priority,
    key: userOf(request, settings),
    requestId: request.id,
    signal: goneSignal(reply.raw),
  });
  app.post<One>(
    '/moderate',
    { config: { priority: 2 }, schema: { body: ONE } },
    async (request, reply) => {
      const [result] = await service.classify([request.body.text], optionsOf(request, reply));
      // A text with no word of ours in it is about nothing that we know.
      return { onTopic: result!.words.length > 0 };
    },
  );
  app.post<One>(
    '/classify',
    { config: { priority: 3 }, schema: { body: ONE } },
    async (request, reply) => {
      const [result] = await service.classify([request.body.text], optionsOf(request, reply));
      const { label, probability } = result!;
      return { label, probability };
    },
  );
  app.post<One>(
    '/explain',
    { config: { priority: 4 }, schema: { body: ONE } },
    async (request, reply) => {
      const [result] = await service.classify([request.body.text], optionsOf(request, reply));
      return result;
    },
  );
  app.post<Many>('/classify/batch', { schema: { body: MANY } }, async (request, reply) => {
    const results = await service.classify(request.body.texts, optionsOf(request, reply));
    return { results: results.map(({ label, probability }) => ({ label, probability })) };
  });
}

/** Whose request it is: by key, or by address where there are no keys. */
function userOf({ headers, ip }: FastifyRequest, { users }: Settings): string {
  if (users.size === 0) return ip;
  const [, key = ''] = /^Bearer (\S+)$/.exec(headers.authorization ?? '') ?? [];
  const user = users.get(key);
  if (user !== undefined) return user;
  throw new Failure(401, 'ERR_UNAUTHORIZED', 'Expected a known key in `Authorization: Bearer …`.');
}

/**
 * Aborts when the client is gone. Fastify's own `request.signal` does so when the body of a request
 * has been read, too.
 */
function goneSignal(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.once('close', () => {
    if (response.writableFinished) return;
    gone.abort(new DOMException('The client has disconnected.', 'AbortError'));
  });
  return gone.signal;
}

function refuse(error: FastifyError | Error, _: FastifyRequest, reply: FastifyReply): void {
  // Who is gone needs no answer.
  if (reply.raw.destroyed) return void reply.hijack();
  const { status, headers, body } = refusalOf(error);
  reply.code(status).headers(headers);
  // A 503 is over some day.
  if (status === 503 && !('retry-after' in headers)) reply.header('retry-after', 1);
  void reply.send(body);
}

function refusalOf(error: FastifyError | Error): {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: object;
} {
  const known = toHttpError(error);
  if (known !== undefined) return known;
  let failure: Failure;
  if (error instanceof Failure) {
    failure = error;
    // For whoever runs the server: clients are not told why the model failed.
    if (error.cause instanceof Error) console.error(error.message, error.cause.message);
  } else if ('statusCode' in error && (error.statusCode ?? 500) < 500) {
    // Of Fastify: no JSON, not what the schema says, too long.
    failure = new Failure(error.statusCode, error.code, error.message);
  } else {
    console.error(error);
    failure = new Failure(500, 'ERR_INTERNAL', 'The server failed.');
  }
  return { status: failure.status, headers: { 'cache-control': 'no-store' }, body: failure.body };
}
