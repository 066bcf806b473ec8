import { on } from 'node:events';
import type { IncomingMessage } from 'node:http';

import { Semaphore, SluiceError } from 'sluice';

import { HttpFailure } from '../support/http.ts';

/** Even a question of 8 kB of which every character is escaped is smaller. */
const MAX_BYTES = 131_072;

/**
 * What a question takes before it is in line is beyond what the line can bound: bodies are read by
 * few at once. Memory is the process's, and so is this.
 */
const reading = new Semaphore({ capacity: 64 });

/**
 * The body of a request, which has `timeoutMs` to arrive, and as long to wait for its turn. Rejects
 * with an HttpFailure when it is too long or too slow.
 */
export async function readBody(
  request: IncomingMessage,
  gone: AbortSignal,
  timeoutMs: number,
): Promise<Buffer> {
  try {
    return await reading.run(({ signal }) => collect(request, signal), {
      signal: gone,
      waitTimeoutMs: timeoutMs,
      runTimeoutMs: timeoutMs,
    });
  } catch (error) {
    if (!(error instanceof SluiceError) || error.code !== 'ERR_RUN_TIMEOUT') throw error;
    throw new HttpFailure(408, 'ERR_TOO_SLOW', 'The question took too long to arrive.', {
      connection: 'close',
    });
  }
}

async function collect(request: IncomingMessage, signal: AbortSignal): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const [chunk] of on(request, 'data', { signal, close: ['end'] }) as AsyncIterable<
    [Buffer]
  >) {
    bytes += chunk.length;
    // The rest is read and dropped, so that the client gets to see the answer.
    if (bytes <= MAX_BYTES) chunks.push(chunk);
  }
  if (bytes <= MAX_BYTES) return Buffer.concat(chunks);
  const message = `Expected a body of at most ${MAX_BYTES} bytes, got ${bytes}.`;
  throw new HttpFailure(413, 'ERR_TOO_LARGE', message);
}
