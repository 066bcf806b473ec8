import type { ServerResponse } from 'node:http';
import type { Http2ServerResponse } from 'node:http2';

import type { Ending } from '../internal/feed.ts';
import { handleOf, type StreamHandle } from '../internal/stream-handle.ts';
import { tick } from '../internal/tick.ts';
import type { StreamEvent, StreamReport, TokenStream } from '../token-streamer.ts';
import { clientGone } from './disconnect.ts';
import { Frames } from './frames.ts';
import { readResponseOptions, type ResponseOptions } from './options.ts';
import { refusalResponse } from './refusal.ts';

/** What Node's servers hand to a handler: of HTTP/1, or of HTTP/2 in its compatible form. */
export type NodeResponse = ServerResponse | Http2ServerResponse;

type Outgoing = Pick<
  ServerResponse,
  | 'destroyed'
  | 'end'
  | 'flushHeaders'
  | 'headersSent'
  | 'off'
  | 'on'
  | 'setHeader'
  | 'statusCode'
  | 'writableEnded'
  | 'writableFinished'
  | 'writableNeedDrain'
  | 'write'
> & {
  readonly req?: { readonly method?: string | undefined } | undefined;
  destroy(error?: Error): unknown;
  /** What compressing middleware adds: lets out what it keeps back. */
  flush?(): void;
  /** HTTP/2 only. */
  readonly stream?: { readonly destroyed: boolean; close(code: number): void };
};

type Handle = StreamHandle<StreamEvent<unknown>>;

const HTTP2_INTERNAL_ERROR = 2;

/**
 * Sends a stream as the response of a Node server: `node:http`, `node:http2`, Express, Koa,
 * Fastify's `reply.raw`.
 *
 * Nothing is sent before the stream waits in line or flows, so that one that is not let in gets a
 * status of its own, as `toHttpError` has it. Then the headers go out at once; those that are set on
 * the response already stay, save the ones that the format brings. When the client disconnects, the
 * stream ends, and one that takes nothing for `stallMs` is cut off. So does it where somebody else
 * has answered, before or meanwhile, and with the headers where the request is a HEAD, which asks for
 * no more.
 *
 * Resolves to the stream's report when the response is finished or closed. Rejects, with nothing
 * sent, for bad options, for a response that has been started and not ended and a stream that is
 * read already; and where the response throws, as for a header that it does not take, which ends the
 * stream.
 */
export async function pipeToResponse<T>(
  stream: TokenStream<T>,
  response: NodeResponse,
  options?: ResponseOptions<NoInfer<T>>,
): Promise<StreamReport> {
  const given = readResponseOptions('pipeToResponse', options);
  const out = response as Outgoing;
  if ((out as Partial<Outgoing> | null | undefined)?.setHeader === undefined) {
    throw new TypeError('Expected `response` to be a ServerResponse.');
  }
  // One that has an answer got it from somebody else, such as a time limit: no mistake of the caller.
  if (out.headersSent && !out.writableEnded) {
    throw new TypeError('Expected `response` to be one of which nothing has been sent.');
  }
  const handle: Handle = handleOf(stream);
  const onClose = (): void => void handle.end(clientGone());
  out.on('close', onClose);
  // A write to a connection that has just broken is no reason to end the process.
  out.on('error', () => {});
  if (isClosed(out) || out.writableEnded) onClose();
  try {
    await answer(out, handle, given);
  } catch (error) {
    // A header that this server does not take, for one.
    handle.end({ outcome: 'failed', error });
    throw error;
  } finally {
    out.off('close', onClose);
  }
  const report = await stream.finished;
  return report.outcome === 'completed' && !out.writableFinished
    ? { ...report, ...clientGone() }
    : report;
}

async function answer(
  out: Outgoing,
  handle: Handle,
  { encoder, status, headers, own }: ReturnType<typeof readResponseOptions>,
): Promise<void> {
  const frames = new Frames(handle, encoder);
  const verdict = await frames.verdict();
  if (out.headersSent) {
    // Somebody else has answered meanwhile: a time limit of the server's own, for one.
    handle.end(clientGone());
  } else if (verdict === 'go') {
    writeHead(out, status, headers);
    if (out.req?.method === 'HEAD') {
      handle.end(headersOnly());
      out.end();
      await finished(out, handle);
    } else {
      // What there is to say already goes out together with the headers.
      if (frames.isEmpty) out.flushHeaders();
      await send(out, frames, handle);
    }
  } else if (!isClosed(out)) {
    if (verdict === 'nothing') {
      writeHead(out, 204, own);
      out.end();
    } else {
      const refusal = refusalResponse(verdict, own);
      writeHead(out, refusal.status, refusal.headers);
      out.end(refusal.body);
    }
    await finished(out, handle);
  }
}

function headersOnly(): Ending {
  const error = new DOMException('A HEAD request asks for the headers alone.', 'AbortError');
  return { outcome: 'cancelled', error };
}

function writeHead(out: Outgoing, status: number, headers: Headers): void {
  out.statusCode = status;
  for (const [name, value] of headers) {
    // The one that may come several times, which cannot be put into one.
    out.setHeader(name, name === 'set-cookie' ? headers.getSetCookie() : value);
  }
}

async function send(out: Outgoing, frames: Frames, handle: Handle): Promise<void> {
  let goOn: (() => void) | undefined;
  const wake = (): void => goOn?.();
  // Once for all, and not in a chain: compressing middleware hands listeners for `drain` to a stream
  // of its own, from which `off` does not take them, and returns that stream.
  out.on('drain', wake);
  let chunk = await frames.next();
  for (; !frames.isOver; chunk = await frames.next()) {
    if (isClosed(out)) break;
    const taken = out.write(chunk);
    out.flush?.();
    if (taken) continue;
    // Until the client takes more, or the stream is ended: by its leaving, for one.
    await new Promise<void>((resolve) => {
      goOn = resolve;
      handle.onStop(resolve);
      if (handle.ending !== undefined) resolve();
    });
  }
  out.off('drain', wake);
  if (isClosed(out)) {
    // It may be destroyed and say so later than here.
    handle.end(clientGone());
    return;
  }
  const stalled = handle.ending!.outcome === 'timeout' && out.writableNeedDrain;
  if (frames.untold !== undefined || stalled) {
    if (chunk !== undefined) out.write(chunk);
    // HTTP/1 sends what is written at the end of the turn, and nothing once it is destroyed.
    await tick();
    cut(out);
  } else {
    out.end(chunk);
    await finished(out, handle);
  }
}

/** Ends the response in a way that no client takes for the end. */
function cut(out: Outgoing): void {
  if (out.stream === undefined) out.destroy();
  else out.stream.close(HTTP2_INTERNAL_ERROR);
}

function isClosed(out: Outgoing): boolean {
  return out.stream === undefined ? out.destroyed : out.stream.destroyed;
}

/** Until the operating system has all of it; a client that takes nothing for `stallMs` is cut off. */
function finished(out: Outgoing, handle: Handle): Promise<void> {
  return new Promise((resolve) => {
    const { deadlines, time, stallMs } = handle.settings;
    const deadline =
      stallMs === Infinity
        ? undefined
        : deadlines.add({ due: () => cut(out) }, time.now() + stallMs);
    const done = (): void => {
      out.off('finish', done).off('close', done);
      if (deadline !== undefined) deadlines.remove(deadline);
      resolve();
    };
    out.on('finish', done).on('close', done);
    if (out.writableFinished || isClosed(out)) done();
  });
}
