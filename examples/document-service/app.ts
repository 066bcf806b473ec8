import { randomUUID } from 'node:crypto';

import express, { type ErrorRequestHandler, type Express, type Response } from 'express';
import type { Registry } from 'prom-client';
import { healthReport, toHttpError } from 'sluice/http';

import { cached } from './cached.ts';
import type { Documents } from './documents.ts';
import { HttpFailure } from './failure.ts';
import type { Settings } from './settings.ts';

/** The routes of the service, in Express 5, which catches what a handler rejects with. */
export function createApp(settings: Settings, documents: Documents, registry: Registry): Express {
  const { queue, calls, model } = documents;
  const checkModel = cached(settings.healthTtlMs, () => model.check());
  const app = express();
  app.disable('x-powered-by');

  app.post(
    '/documents',
    express.text({ type: 'text/*', limit: settings.maxTextBytes }),
    // oxlint-disable-next-line oxc/no-async-endpoint-handlers -- Express 5 catches what it rejects with.
    async (request, response) => {
      const gone = goneSignal(response);
      const text = textOf(request.body);
      const id = randomUUID();
      response.set('x-request-id', id);
      response.json(await documents.process(id, text, gone));
    },
  );

  // oxlint-disable-next-line oxc/no-async-endpoint-handlers -- As above.
  app.get('/health', async (_, response) => {
    const report = await healthReport({
      documents: queue,
      calls,
      quota: model.quota,
      model: checkModel,
    });
    response.status(report.status).set(report.headers).json(report.body);
  });

  // oxlint-disable-next-line oxc/no-async-endpoint-handlers -- As above.
  app.get('/metrics', async (_, response) => {
    response.set('content-type', registry.contentType).send(await registry.metrics());
  });

  app.use(() => {
    throw new HttpFailure(404, 'ERR_NOT_FOUND', 'Nothing is at this path for this method.');
  });
  app.use(refuse);
  return app;
}

function textOf(body: unknown): string {
  if (typeof body !== 'string') {
    const message = 'Expected a body of type text/plain, or another one of text.';
    throw new HttpFailure(415, 'ERR_UNSUPPORTED_TYPE', message);
  }
  if (body.trim() !== '') return body;
  throw new HttpFailure(400, 'ERR_BAD_REQUEST', 'Expected the text not to be empty.');
}

/** Aborts when the client is gone: the connection closed before the response was finished. */
function goneSignal(response: Response): AbortSignal {
  const gone = new AbortController();
  const leave = (): void => {
    if (response.writableFinished) return;
    gone.abort(new DOMException('The client has disconnected.', 'AbortError'));
  };
  // It may have left while its text was read.
  if (response.destroyed) leave();
  else response.once('close', leave);
  return gone.signal;
}

const refuse: ErrorRequestHandler = (error, _request, response, _next) => {
  // Who is gone needs no answer.
  if (response.destroyed) return;
  const { status, headers, body } =
    error instanceof HttpFailure
      ? error
      : (toHttpError(error) ?? unreadable(error) ?? failed(error));
  if (error instanceof HttpFailure && error.cause !== undefined) logCause(error);
  if (status === 503) response.set('retry-after', '1');
  response.status(status).set(headers).json(body);
};

/** What `express.text` says of a body that it cannot read. */
function unreadable(error: unknown): HttpFailure | undefined {
  const { expose, status, message } = error as {
    expose?: boolean;
    status: number;
    message: string;
  };
  return expose === true ? new HttpFailure(status, 'ERR_BAD_REQUEST', message) : undefined;
}

function failed(error: unknown): HttpFailure {
  console.error(error);
  return new HttpFailure(500, 'ERR_INTERNAL', 'The service failed.');
}

/** For whoever runs the service: callers are not told why the model failed. */
function logCause({ message, cause }: HttpFailure): void {
  console.error(message, cause instanceof Error ? cause.message : cause);
}
