import type { IncomingMessage, ServerResponse } from 'node:http';

import { healthReport, toHttpError } from 'sluice/http';

import { goneSignal, HttpFailure, sendJson } from '../support/http.ts';
import { badRequest, readObject } from './body.ts';
import type { Model, Vector } from './model.ts';
import { parseLiveSettings } from './settings.ts';

type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

const MAX_TEXTS = 64;
const MAX_TEXT_BYTES = 8192;

/** The routes of the service: OpenAI's embeddings, and what an operator needs. Never rejects. */
export function createApi(
  model: Model,
): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  const { resource } = model;
  const routes: Readonly<Record<string, Handler>> = {
    'POST /v1/embeddings': (request, response) => embed(model, request, response),
    'GET /model': (_, response) => sendJson(response, 200, model.stats()),
    'POST /model/preload': async (_, response) => {
      await resource.preload();
      sendJson(response, 200, model.stats());
    },
    'POST /model/reload': async (_, response) => {
      await resource.reload();
      sendJson(response, 200, model.stats());
    },
    'POST /model/cancel': (_, response) => {
      sendJson(response, 200, { cancelled: resource.cancelLoading() });
    },
    'PATCH /model': async (request, response) => {
      configure(model, await readObject(request));
      sendJson(response, 200, model.stats());
    },
    'GET /health': async (_, response) => {
      const { status, headers, body } = await healthReport({
        model: { stats: () => model.stats() },
      });
      sendJson(response, status, body, headers);
    },
  };
  return async (request, response) => {
    try {
      const [path] = (request.url ?? '').split('?', 1);
      const handler = routes[`${request.method} ${path}`];
      if (handler === undefined) {
        throw new HttpFailure(404, 'ERR_NOT_FOUND', 'Nothing is at this path for this method.');
      }
      await handler(request, response);
    } catch (error) {
      refuse(response, error);
    }
  };
}

async function embed(
  model: Model,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = goneSignal(response);
  const { input, encoding_format: encoding = 'float' } = await readObject(request);
  const texts = typeof input === 'string' ? [input] : input;
  if (!isTexts(texts)) {
    throw badRequest(
      `Expected \`input\` to be a text of 1 to ${MAX_TEXT_BYTES} bytes, or 1 to ${MAX_TEXTS} of them.`,
    );
  }
  if (encoding !== 'float' && encoding !== 'base64') {
    throw badRequest('Expected `encoding_format` to be "float" or "base64".');
  }
  const vectors = await model.embed(texts, gone);
  sendJson(response, 200, {
    object: 'list',
    model: vectors[0]!.model,
    data: vectors.map(({ vector }, index) => ({
      object: 'embedding',
      index,
      embedding: encoding === 'float' ? [...vector] : base64(vector),
    })),
  });
}

function isTexts(texts: unknown): texts is readonly string[] {
  return (
    Array.isArray(texts) &&
    texts.length >= 1 &&
    texts.length <= MAX_TEXTS &&
    texts.every(
      (text) =>
        typeof text === 'string' && text !== '' && Buffer.byteLength(text) <= MAX_TEXT_BYTES,
    )
  );
}

function base64({ buffer, byteOffset, byteLength }: Vector['vector']): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('base64');
}

function configure(model: Model, given: Readonly<Record<string, unknown>>): void {
  let settings;
  try {
    settings = parseLiveSettings(given);
  } catch (error) {
    throw badRequest((error as Error).message);
  }
  model.configure(settings);
}

function refuse(response: ServerResponse, error: unknown): void {
  // Who is gone needs no answer.
  if (response.destroyed) return;
  let refusal = error instanceof HttpFailure ? error : toHttpError(error);
  if (refusal === undefined) {
    console.error(error);
    refusal = new HttpFailure(500, 'ERR_INTERNAL', 'The service failed.');
  }
  const { status, body, headers } = refusal;
  sendJson(response, status, body, { ...(status === 503 && { 'retry-after': '1' }), ...headers });
}
