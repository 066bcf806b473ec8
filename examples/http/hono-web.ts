import { Hono } from 'hono';
import { compress } from 'hono/compress';
import { toHttpError, toResponse } from 'sluice/http';

import { Answers, readAloud, readAsked, TEXT } from './answers.ts';

/** Hono 4, as a function of a `Request` to a `Response`: for Deno, Bun, and servers of all kinds. */
export function createApp(answers: Answers): Hono {
  const app = new Hono();
  app.use(compress());
  app.get('/answer', async (context) => {
    const { method, url, signal } = context.req.raw;
    const { question, format } = readAsked(new URL(url).searchParams);
    // The signal is for a client that leaves before there is a body to be cancelled.
    const response = await toResponse(answers.stream(question, signal), { format });
    // Hono answers a HEAD with the headers of this, and leaves the body where it is.
    if (method === 'HEAD') await response.body?.cancel();
    return response;
  });
  app.get('/text', (context) => context.text(TEXT));
  app.onError((error) => {
    const refusal = toHttpError(error);
    if (refusal === undefined) throw error;
    const { status, headers, body } = refusal;
    return Response.json(body, { status, headers });
  });
  return app;
}

if (import.meta.main) {
  const response = await createApp(new Answers(readAloud)).request('/answer?question=Why?');
  for await (const text of response.body!.pipeThrough(new TextDecoderStream())) {
    process.stdout.write(text);
  }
}
