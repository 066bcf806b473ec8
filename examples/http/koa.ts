import { createServer } from 'node:http';

import Koa from 'koa';
import compress from 'koa-compress';
import { pipeToResponse, toHttpError } from 'sluice/http';

import { type Answers, listen, main, readAsked, type Running, TEXT } from './answers.ts';

/** Koa 3. */
export function start(answers: Answers, port: number): Promise<Running> {
  const app = new Koa();
  // A client that is gone is no error.
  app.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ECONNRESET') app.onerror(error);
  });
  app.use(compress());
  app.use(async (context, next) => {
    try {
      await next();
    } catch (error) {
      const refusal = toHttpError(error);
      if (refusal === undefined) throw error;
      context.status = refusal.status;
      context.set(refusal.headers);
      context.body = refusal.body;
    }
  });
  app.use(async (context) => {
    if (context.path === '/answer') {
      const { question, format } = readAsked(context.URL.searchParams);
      const stream = answers.stream(question);
      // From here on the response is ours.
      context.respond = false;
      await pipeToResponse(stream, context.res, { format });
    } else if (context.path === '/text') {
      context.type = 'text/markdown';
      context.body = TEXT;
    }
  });
  const handle = app.callback();
  return listen(
    createServer((request, response) => void handle(request, response)),
    port,
  );
}

if (import.meta.main) await main(start);
