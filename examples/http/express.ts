import { createServer } from 'node:http';

import compression from 'compression';
import express, { type ErrorRequestHandler } from 'express';
import { pipeToResponse, toHttpError } from 'sluice/http';

import { type Answers, listen, main, readAsked, type Running, TEXT } from './answers.ts';

/** Express 5. */
export function start(answers: Answers, port: number): Promise<Running> {
  const app = express();
  app.use(compression());
  // oxlint-disable-next-line oxc/no-async-endpoint-handlers -- Express 5 catches what it rejects with.
  app.get('/answer', async (request, response) => {
    const { question, format } = readAsked(new URL(request.url, 'http://localhost').searchParams);
    await pipeToResponse(answers.stream(question), response, { format });
  });
  app.get('/text', (_, response) => {
    response.type('text/markdown').send(TEXT);
  });
  app.use(refuse);
  return listen(createServer(app), port);
}

const refuse: ErrorRequestHandler = (error, _, response, next) => {
  const refusal = toHttpError(error);
  if (refusal === undefined || response.headersSent) next(error);
  else response.status(refusal.status).set(refusal.headers).json(refusal.body);
};

if (import.meta.main) await main(start);
