/** A model server that goes wrong on request: the real one, with a proxy in front that spoils answers. */
import { once } from 'node:events';
import {
  createServer,
  type IncomingMessage,
  request as send,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';

export type Fault = (typeof FAULTS)[number];

export const FAULTS = [
  /** Takes the request and says nothing. */
  'hangs',
  /** Resets the connection instead of answering. */
  'resets',
  /** Answers with 500. */
  'fails',
  /** Sends what is no JSON, in events or not. */
  'talks garbage',
  /** Resets the connection in the middle of the answer, … */
  'breaks off',
  /** … ends the response in good order there, between two events of a stream, … */
  'ends early',
  /** … or says no more from there on. */
  'stalls',
] as const;

export interface FaultyProxy {
  readonly url: string;
  /** Where answers come from; may be changed at any time. */
  target: string;
  /** What happens to the next requests. */
  plan: () => Fault | undefined;
  /** Requests whose response is neither finished nor cut. */
  readonly open: number;
  /** Cuts what is open, and resolves when it has closed. */
  close(): Promise<void>;
}

/** So many events are passed on before the half of one; of JSON there is only the half. */
const WHOLE_EVENTS = 3;

/** Stands on 127.0.0.1 in front of `target`, and does to each POST what `plan` says. */
export async function startFaultyProxy(
  target: string,
  plan: FaultyProxy['plan'] = () => undefined,
): Promise<FaultyProxy> {
  const open = new Set<ServerResponse>();
  const server = createServer((request, response) => {
    open.add(response);
    response.once('close', () => open.delete(response));
    response.on('error', () => {});
    const fault = request.method === 'POST' ? proxy.plan() : undefined;
    // Whoever has been cut off here has nobody left to tell why.
    answer(proxy.target, fault, request, response).catch(() => response.destroy());
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const proxy: FaultyProxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    target,
    plan,
    get open() {
      return open.size;
    },
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
  return proxy;
}

async function answer(
  target: string,
  fault: Fault | undefined,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const body = await buffer(request);
  if (fault === 'hangs') return;
  if (fault === 'resets') return void request.socket.resetAndDestroy();
  if (fault === 'fails') {
    response.writeHead(500, { 'content-type': 'application/json' });
    return void response.end('{"error":{"message":"Out of memory."}}');
  }
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const { method, url, headers } = request;
  const { connection: _, ...others } = headers;
  const upstream = send(target + url, {
    method,
    headers: others,
    signal: gone.signal,
    agent: false,
  });
  upstream.end(body);
  const [source] = (await once(upstream, 'response')) as [IncomingMessage];
  // It may be left at any time.
  upstream.on('error', () => {});
  source.on('error', () => {});
  const { 'content-length': _length, ...fields } = source.headers;
  if (fault === undefined || source.statusCode !== 200) {
    response.writeHead(source.statusCode!, source.headers);
    return pipeline(source, response);
  }
  response.writeHead(200, fields);
  if (fault === 'talks garbage') {
    response.end('data: {"choices":[{"del\n\n<html>');
    return;
  }
  await sendHalf(source, response, fault === 'ends early');
  source.destroy();
  if (fault === 'breaks off') request.socket.resetAndDestroy();
  else if (fault === 'ends early') response.end();
}

/** @param isOrderly whether a stream is to look as if it might have been all. */
async function sendHalf(
  source: IncomingMessage,
  response: ServerResponse,
  isOrderly: boolean,
): Promise<void> {
  const isStream = source.headers['content-type']?.startsWith('text/event-stream') === true;
  let pieces: string[] = [];
  let text = '';
  for await (const chunk of source as AsyncIterable<Buffer>) {
    text += chunk.toString();
    // Events end with an empty line.
    pieces = isStream ? text.split(/(?<=\n\n)/) : [text];
    if (pieces.length > WHOLE_EVENTS + 1) break;
  }
  const whole = isStream ? pieces.slice(0, WHOLE_EVENTS) : [];
  const next = isStream && isOrderly ? '' : (pieces[whole.length] ?? '');
  await new Promise((resolve) => {
    response.write(whole.join('') + next.slice(0, next.length / 2), resolve);
  });
}
