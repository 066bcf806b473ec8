import { EventSourceParserStream } from 'eventsource-parser/stream';

/** An event of `POST /api/chat/stream`: its name and what its data say. */
export interface ChatEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** A visitor's tab with one question in it. */
export interface Tab {
  readonly response: Response;
  readonly id: string;
  /** The next event; undefined when the response has ended. */
  next(): Promise<ChatEvent | undefined>;
  /** All events that are left. */
  rest(): Promise<ChatEvent[]>;
  /** Goes away, whatever is still to come. */
  close(): void;
}

export interface Failure {
  readonly status: number;
  readonly headers: Headers;
  readonly error: Readonly<Record<string, unknown>>;
}

export function post(url: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body:
      typeof body === 'string' || body instanceof Uint8Array
        ? (body as never)
        : JSON.stringify(body),
    ...(signal && { signal }),
  });
}

/** Asks for a stream and resolves when it is answered with one. */
export function openTab(chatURL: string, body: unknown): Promise<Tab> {
  return tabOf((signal) => post(`${chatURL}/api/chat/stream`, body, signal));
}

/** A tab with the stream that is answered with. */
export async function tabOf(ask: (signal: AbortSignal) => Promise<Response>): Promise<Tab> {
  const leaving = new AbortController();
  const response = await ask(leaving.signal);
  if (!response.ok || response.body === null) {
    throw new Error(`Not let in: ${response.status} ${await response.text()}`);
  }
  const parsed = response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  const events = parsed[Symbol.asyncIterator]();
  const next = async (): Promise<ChatEvent | undefined> => {
    const { done, value } = await events.next();
    if (done === true) return undefined;
    return { event: value.event ?? 'message', data: JSON.parse(value.data) as ChatEvent['data'] };
  };
  return {
    response,
    id: response.headers.get('x-request-id') ?? '',
    next,
    async rest() {
      const all: ChatEvent[] = [];
      for (let event = await next(); event !== undefined; event = await next()) all.push(event);
      return all;
    },
    close: () => leaving.abort(),
  };
}

export async function failure(response: Response): Promise<Failure> {
  const { error } = (await response.json()) as { error: Failure['error'] };
  return { status: response.status, headers: response.headers, error };
}
