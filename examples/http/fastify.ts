import compress from '@fastify/compress';
import fastify from 'fastify';
import { pipeToResponse, toHttpError } from 'sluice/http';

import { type Answers, main, readAsked, type Running, TEXT } from './answers.ts';

/** Fastify 5. */
export async function start(answers: Answers, port: number): Promise<Running> {
  const app = fastify({ forceCloseConnections: true });
  await app.register(compress);
  app.get('/answer', async (request, reply) => {
    const { question, format } = readAsked(new URL(request.url, 'http://localhost').searchParams);
    const stream = answers.stream(question);
    // From here on the response is ours: before that, what is thrown is the handler's below.
    reply.hijack();
    await pipeToResponse(stream, reply.raw, { format });
  });
  app.get('/text', (_, reply) => {
    void reply.type('text/markdown').send(TEXT);
  });
  app.setErrorHandler((error, _, reply) => {
    const refusal = toHttpError(error);
    if (refusal === undefined) return reply.send(error);
    return reply.code(refusal.status).headers(refusal.headers).send(refusal.body);
  });
  const url = await app.listen({ port, host: '127.0.0.1' });
  return { url, close: () => app.close() };
}

if (import.meta.main) await main(start);
