import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';

import compression from 'compression';
import { pipeToResponse, toHttpError } from 'sluice/http';

import { type Answers, listen, main, readAsked, type Running, TEXT } from './answers.ts';

/** `node:http`, without a framework. */
export function start(answers: Answers, port: number): Promise<Running> {
  // It is typed for Express, and needs no more than this.
  const compress = compression() as unknown as (
    request: IncomingMessage,
    response: ServerResponse,
    next: () => void,
  ) => void;

  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
    if (pathname === '/answer') {
      const { question, format } = readAsked(searchParams);
      await pipeToResponse(answers.stream(question), response, { format });
    } else if (pathname === '/text') {
      response.setHeader('content-type', 'text/markdown; charset=utf-8').end(TEXT);
    } else {
      response.writeHead(404).end();
    }
  }

  const server = createServer((request, response) => {
    compress(request, response, () => {
      respond(request, response).catch((error: unknown) => {
        const { status = 500, headers, body } = toHttpError(error) ?? {};
        response.writeHead(status, headers).end(body && JSON.stringify(body));
      });
    });
  });
  return listen(server, port);
}

if (import.meta.main) await main(start);
