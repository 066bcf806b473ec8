import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

import type { TokenStream } from 'sluice';
import { pipeToResponse, toHttpError } from 'sluice/http';

import { readBody } from './body.ts';
import type { Asked, Chat } from './chat.ts';
import { goneSignal, HttpFailure, sendJson } from '../support/http.ts';
import { parseQuestion } from './questions.ts';

type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

const QUEUE = '/api/queue/';
const STREAM = '/api/chat/stream/';
const ID = /^[\w-]{1,64}$/;

/** What answers each method at one path. */
type Methods = Readonly<Record<string, Handler>>;

/** The routes of the chat, and of the page in front of it. */
export class Api {
  readonly #chat: Chat;
  readonly #bodyTimeoutMs: number;
  readonly #startedAt = performance.now();
  readonly #paths: ReadonlyMap<string, Methods>;

  constructor(chat: Chat, bodyTimeoutMs: number, page: ReadonlyMap<string, Handler>) {
    this.#chat = chat;
    this.#bodyTimeoutMs = bodyTimeoutMs;
    this.#paths = new Map<string, Methods>([
      ...[...page].map(([path, GET]): [string, Methods] => [path, { GET }]),
      ['/health', { GET: (_, response) => this.#health(response) }],
      ['/api/chat', { POST: (request, response) => this.#answer(request, response) }],
      ['/api/chat/stream', { POST: (request, response) => this.#stream(request, response) }],
      ['/api/history', { GET: (request, response) => this.#history(request, response) }],
      ['/api/queue/stats', { GET: (_, response) => sendJson(response, 200, chat.stats()) }],
    ]);
  }

  /** Never rejects. */
  async respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#handlerOf(request)(request, response);
    } catch (error) {
      refuse(response, error);
    }
  }

  #handlerOf(request: IncomingMessage): Handler {
    const { url = '', method = '' } = request;
    const [path = ''] = url.split('?', 1);
    const methods = this.#paths.get(path) ?? this.#place(path) ?? this.#restored(path);
    if (methods === undefined) {
      throw new HttpFailure(404, 'ERR_NOT_FOUND', `Nothing is at ${path.slice(0, 128)}.`);
    }
    // Node leaves out the body of what answers HEAD.
    const handler = methods[method === 'HEAD' ? 'GET' : method];
    if (handler !== undefined) return handler;
    const allow = Object.keys(methods).join(', ');
    const message = `Expected ${allow} at ${path}.`;
    throw new HttpFailure(405, 'ERR_METHOD_NOT_ALLOWED', message, { allow });
  }

  /** Waits in line and answers in one piece. */
  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = goneSignal(response);
    const asked = await this.#asked(request, response, gone);
    sendJson(response, 200, await this.#chat.answer(asked, gone));
  }

  /** The place in line as it changes, then the answer as it is written. */
  async #stream(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = await this.#asked(request, response, goneSignal(response));
    await sendStream(this.#chat.stream(asked), response);
  }

  /** The rest of a question that was asked before the server was started again. */
  #restored(path: string): Methods | undefined {
    const id = idAfter(STREAM, path);
    if (id === undefined) return undefined;
    return {
      GET: async (request, response) => {
        const lastEventId = request.headers['last-event-id'];
        const stream = this.#chat.restored(id, lastEventId?.toString());
        if (stream !== undefined) return sendStream(stream, response);
        // The one that comes next may know it.
        this.#checkOpen();
        throw new HttpFailure(404, 'ERR_NOT_FOUND', 'No restored question is known by this id.');
      },
    };
  }

  #history(request: IncomingMessage, response: ServerResponse): void {
    const student = idIn(request, 'X-Student-Id');
    if (student !== undefined) return sendJson(response, 200, this.#chat.history(student));
    throw new HttpFailure(400, 'ERR_BAD_REQUEST', 'Expected an X-Student-Id.');
  }

  /**
   * What is asked, with the id by which its place is known. Who waits for the answer in one piece
   * gets to see the headers together with it, and can bring an id instead.
   */
  async #asked(
    request: IncomingMessage,
    response: ServerResponse,
    gone: AbortSignal,
  ): Promise<Asked> {
    this.#checkOpen();
    const id = idIn(request, 'X-Request-Id') ?? randomUUID();
    const student = idIn(request, 'X-Student-Id');
    const question = parseQuestion(await readBody(request, gone, this.#bodyTimeoutMs));
    response.setHeader('x-request-id', id);
    return { id, student, ...question };
  }

  #checkOpen(): void {
    if (!this.#chat.closed) return;
    const message = 'The server is shutting down and takes no more questions.';
    throw new HttpFailure(503, 'ERR_CLOSED', message, { connection: 'close' });
  }

  #place(path: string): Methods | undefined {
    const id = idAfter(QUEUE, path);
    if (id === undefined) return undefined;
    const chat = this.#chat;
    return {
      GET: (_, response) => sendJson(response, 200, chat.place(id)),
      DELETE: (_, response) => {
        if (chat.cancel(id)) return sendJson(response, 200, { id, cancelled: true });
        throw chat.place(id).position === -2
          ? new HttpFailure(404, 'ERR_NOT_FOUND', 'No question is known by this id.')
          : new HttpFailure(409, 'ERR_FINISHED', 'The question is finished already.');
      },
    };
  }

  #health(response: ServerResponse): void {
    const { active, waiting, concurrency, maxWaiting } = this.#chat.stats();
    const { closed } = this.#chat;
    sendJson(response, closed ? 503 : 200, {
      status: closed ? 'draining' : 'ok',
      uptimeMs: Math.round(performance.now() - this.#startedAt),
      active,
      waiting,
      concurrency,
      maxWaiting,
    });
  }
}

function idAfter(prefix: string, path: string): string | undefined {
  const id = path.startsWith(prefix) ? path.slice(prefix.length) : '';
  return ID.test(id) ? id : undefined;
}

function idIn({ headers }: IncomingMessage, header: string): string | undefined {
  const id = headers[header.toLowerCase()];
  if (id === undefined || (typeof id === 'string' && ID.test(id))) return id;
  const message = `Expected ${header} to be 1 to 64 letters, digits, - or _.`;
  throw new HttpFailure(400, 'ERR_BAD_REQUEST', message);
}

async function sendStream(stream: TokenStream<string>, response: ServerResponse): Promise<void> {
  const { outcome, error } = await pipeToResponse(stream, response);
  if (outcome === 'failed') logCause(error);
}

function refuse(response: ServerResponse, error: unknown): void {
  // Who is gone needs no answer.
  if (response.destroyed) return;
  let refusal = error instanceof HttpFailure ? error : toHttpError(error);
  if (refusal === undefined) {
    console.error(error);
    refusal = new HttpFailure(500, 'ERR_INTERNAL', 'The server failed.');
  }
  logCause(error);
  sendJson(response, refusal.status, refusal.body, refusal.headers);
}

/** For whoever runs the server: visitors are not told why the model failed. */
function logCause(error: unknown): void {
  if (!(error instanceof HttpFailure) || error.cause === undefined) return;
  console.error(error.message, error.cause instanceof Error ? error.cause.message : error.cause);
}
