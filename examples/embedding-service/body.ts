import type { IncomingMessage } from 'node:http';

import { HttpFailure } from '../support/http.ts';

export function badRequest(message: string): HttpFailure {
  return new HttpFailure(400, 'ERR_BAD_REQUEST', message);
}

const MAX_BODY_BYTES = 131_072;

/** The object in the body of a request; rejects with an HttpFailure that says what is wrong. */
export async function readObject(
  request: IncomingMessage,
): Promise<Readonly<Record<string, unknown>>> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    // The rest is read and dropped, so that the client gets to see the answer.
    if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
  }
  if (bytes > MAX_BODY_BYTES) {
    const message = `Expected a body of at most ${MAX_BODY_BYTES} bytes, got ${bytes}.`;
    throw new HttpFailure(413, 'ERR_TOO_LARGE', message);
  }
  const value = parseJson(Buffer.concat(chunks));
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  throw badRequest('Expected the body to be a JSON object such as {"input":"the sky"}.');
}

function parseJson(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw badRequest('Expected the body to be JSON in UTF-8.');
  }
}
