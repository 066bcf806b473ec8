import type { ServerResponse } from 'node:http';

import { streamHandle, type StreamHandle } from '../internal/stream-handle.ts';
import type { StreamEvent, StreamReport, TokenStream } from '../token-streamer.ts';
import { clientGone } from './disconnect.ts';
import { Frames } from './frames.ts';
import { readResponseOptions, refusalResponse, type ResponseOptions } from './options.ts';

type Handle = StreamHandle<StreamEvent<unknown>>;

/**
 * Sends a stream as the response of a Node server: `node:http`, Express, Koa, Fastify's `reply.raw`.
 *
 * Nothing is sent before the stream waits in line or flows, so that one that is not let in gets a
 * status of its own, as `toHttpError` has it. Then the headers go out at once; those that are set on
 * the response already stay, save the ones that the format brings. When the client disconnects, the
 * stream ends, and one that takes nothing for `stallMs` is cut off.
 *
 * Resolves to the stream's report when the response is finished or closed. Rejects, with nothing
 * sent, for bad options, for a response that has been started and a stream that is read already.
 */
export async function pipeToResponse<T>(
  stream: TokenStream<T>,
  response: ServerResponse,
  options?: ResponseOptions,
): Promise<StreamReport> {
  const { encoder, status, headers } = readResponseOptions('pipeToResponse', options);
  if (response.headersSent) {
    throw new TypeError('Expected `response` to be one of which nothing has been sent.');
  }
  const handle: Handle = stream[streamHandle]();
  const onClose = (): void => void handle.end(clientGone());
  response.on('close', onClose);
  // A write to a connection that has just broken is no reason to end the process.
  response.on('error', () => {});
  if (response.destroyed) onClose();
  const frames = new Frames(handle, encoder);
  const refusal = await frames.refusal();
  if (!response.destroyed) {
    if (refusal === undefined) {
      await send(response, status, headers, frames, handle);
    } else {
      const { status: code, headers: fields, body } = refusalResponse(refusal);
      response.writeHead(code, fields).end(JSON.stringify(body));
      await finished(response, handle.settings);
    }
  }
  response.off('close', onClose);
  const report = await stream.finished;
  return report.outcome === 'completed' && !response.writableFinished
    ? { ...report, ...clientGone() }
    : report;
}

async function send(
  response: ServerResponse,
  status: number,
  headers: Headers,
  frames: Frames,
  handle: Handle,
): Promise<void> {
  response.statusCode = status;
  for (const [name, value] of headers) response.setHeader(name, value);
  response.flushHeaders();
  for (let chunk = await frames.next(); chunk !== undefined; chunk = await frames.next()) {
    if (response.destroyed) return;
    const taken = response.write(chunk);
    // Middleware that compresses keeps small writes back until it is told not to.
    (response as { flush?: () => void }).flush?.();
    if (!taken) await drained(response, handle);
  }
  if (response.destroyed) return;
  const stalled = handle.ending?.outcome === 'timeout' && response.writableNeedDrain;
  if (frames.untold !== undefined || stalled) {
    response.destroy();
  } else {
    response.end();
    await finished(response, handle.settings);
  }
}

/** Until the client takes more, or is gone, or the stream is ended and there is no need to wait. */
function drained(response: ServerResponse, handle: Handle): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done).off('close', done);
      handle.onStop(undefined);
      resolve();
    };
    response.on('drain', done).on('close', done);
    handle.onStop(done);
    if (response.destroyed || handle.ending !== undefined) done();
  });
}

/** Until the operating system has all of it; a client that takes nothing for `stallMs` is cut off. */
function finished(response: ServerResponse, settings: Handle['settings']): Promise<void> {
  return new Promise((resolve) => {
    const { deadlines, time, stallMs } = settings;
    const deadline =
      stallMs === Infinity
        ? undefined
        : deadlines.add({ due: () => response.destroy() }, time.now() + stallMs);
    const done = (): void => {
      response.off('finish', done).off('close', done);
      if (deadline !== undefined) deadlines.remove(deadline);
      resolve();
    };
    response.on('finish', done).on('close', done);
    if (response.writableFinished || response.destroyed) done();
  });
}
