import { type IncomingMessage, type ServerResponse } from 'node:http';

/** Why a request is not answered as it wished, in the form of the library's own refusals. */
export class HttpFailure extends Error {
  override readonly name = 'HttpFailure';
  readonly status: number;
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    code: string,
    message: string,
    headers: Readonly<Record<string, string>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.status = status;
    this.code = code;
    this.headers = headers;
  }

  get body(): { readonly error: { readonly code: string; readonly message: string } } {
    const { code, message } = this;
    return { error: { code, message } };
  }
}

export function badRequest(message: string): HttpFailure {
  return new HttpFailure(400, 'ERR_BAD_REQUEST', message);
}

export function sendJson(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
    ...headers,
  });
  response.end(JSON.stringify(body));
}

/** Aborts when the client is gone: the connection closed before the response was finished. */
export function goneSignal(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.once('close', () => {
    if (response.writableFinished) return;
    gone.abort(new DOMException('The client has disconnected.', 'AbortError'));
  });
  return gone.signal;
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
