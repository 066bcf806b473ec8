import { randomUUID } from 'node:crypto';

import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { requestId, type RequestIdVariables } from 'hono/request-id';
import type { Session } from 'sluice';
import { toHttpError, toResponse } from 'sluice/http';

import { Failure } from './failure.ts';
import type { Gateway } from './gateway.ts';
import { parseRequest } from './request.ts';
import { MODELS } from './settings.ts';
import { timelinePage } from './timeline.ts';

const MAX_BODY_BYTES = 1_048_576;

/** The gateway as a function of a `Request` to a `Response`. */
export function createApp(gateway: Gateway): Hono<{ Variables: RequestIdVariables }> {
  const app = new Hono<{ Variables: RequestIdVariables }>();
  app.use(requestId({ generator: () => randomUUID() }));
  app.use(
    bodyLimit({
      maxSize: MAX_BODY_BYTES,
      onError: () => {
        const message = `Expected a body of at most ${MAX_BODY_BYTES} bytes.`;
        throw new Failure(413, 'ERR_TOO_LARGE', message);
      },
    }),
  );

  app.post('/v1/chat/completions', async (context) => {
    const request = parseRequest(await readJson(context.req.raw));
    let session: Session | undefined;
    const options = {
      requestId: context.get('requestId'),
      signal: context.req.raw.signal,
      onSession: (admitted: Session) => {
        session = admitted;
      },
    };
    if (!request.stream) {
      const completion = await gateway.complete(request, options);
      return context.json(completion, 200, headersOf(session!));
    }
    const stream = gateway.stream(request, options);
    const response = await toResponse(stream, { format: 'openai', model: request.model });
    // Nothing was sent: what no provider has let in is answered like everything else that fails.
    if (session === undefined) throw (await stream.finished).error;
    for (const [name, value] of Object.entries(headersOf(session))) {
      response.headers.set(name, value);
    }
    return response;
  });

  app.get('/v1/models', (context) => {
    const data = [...MODELS.keys()].map((id) => ({
      id,
      object: 'model',
      created: 0,
      owned_by: 'sluice',
    }));
    return context.json({ object: 'list', data });
  });
  app.get('/sessions', (context) => {
    const id = context.req.query('requestId');
    const records = gateway.records();
    return context.json(
      id === undefined ? records : records.filter((record) => record.requestId === id),
    );
  });
  app.get('/health', (context) => {
    const health = gateway.health();
    // Circuits are no reason for 503: it takes a request to close one.
    return context.json(health, health.sessions.closed ? 503 : 200);
  });
  app.get('/', (context) => {
    context.header('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'");
    return context.html(timelinePage(gateway.records(), gateway.health().providers));
  });

  app.notFound(() => {
    throw new Failure(404, 'ERR_NOT_FOUND', 'Nothing is here.');
  });
  app.onError((error, context) => refuse(error, context.get('requestId')));
  return app;
}

async function readJson(request: Request): Promise<unknown> {
  const text = await request.text();
  try {
    return JSON.parse(text);
  } catch {
    throw new Failure(400, 'ERR_BAD_REQUEST', 'Expected the body to be JSON.');
  }
}

/** Who answers, in which session, and how long that took so far, as `Server-Timing` has it. */
function headersOf(session: Session): Record<string, string> {
  const { id, requestId: request, provider, model, metadata, phases } = session.toJSON();
  return {
    'x-request-id': request!,
    'x-session-id': id,
    'x-session-provider': provider!,
    'x-session-model': model!,
    'x-session-attempt': JSON.stringify(metadata['attempt']),
    'server-timing': Object.entries(phases)
      .map(([phase, ms]) => `${phase};dur=${Math.round(ms)}`)
      .join(', '),
  };
}

function refuse(error: Error, id: string): Response {
  const known = toHttpError(error);
  const { status, headers, body } = known ?? refusalOf(error);
  // A 503 is over some day.
  const retryAfter = status === 503 ? { 'retry-after': '1' } : {};
  return Response.json(body, {
    status,
    headers: { 'x-request-id': id, ...retryAfter, ...headers },
  });
}

function refusalOf(error: Error): {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: object;
} {
  // Who is gone gets to see nothing of it.
  if (error.name === 'AbortError') return { status: 499, headers: {}, body: {} };
  let failure: Failure;
  if (error instanceof Failure) {
    failure = error;
    // For whoever runs the server: clients are not told why a provider failed.
    if (error.status >= 500 && error.cause instanceof Error) {
      console.error(error.message, error.cause.message);
    }
  } else {
    console.error(error);
    failure = new Failure(500, 'ERR_INTERNAL', 'The gateway failed.');
  }
  const { status, code, message, retryAfterMs } = failure;
  return {
    status,
    headers: {
      'cache-control': 'no-store',
      ...(retryAfterMs !== undefined && {
        'retry-after': String(Math.max(1, Math.ceil(retryAfterMs / 1000))),
      }),
    },
    body: {
      error: { code, message, type: status < 500 ? 'invalid_request_error' : 'server_error' },
    },
  };
}
