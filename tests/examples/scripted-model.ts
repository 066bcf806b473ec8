import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';

/** What the chat asks a model for. */
interface CompletionRequest {
  readonly stream?: boolean;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
}

/** A request that waits for what a test makes of it. */
export class Held {
  readonly question: string;
  /** All that was said, the question included. */
  readonly said: readonly string[];
  readonly #response: ServerResponse;
  readonly #streams: boolean;
  /** Resolves when the response is finished or its client is gone. */
  readonly closed: Promise<unknown>;

  constructor({ messages, stream }: CompletionRequest, response: ServerResponse) {
    this.said = messages.map(({ content }) => content);
    this.question = this.said.at(-1) ?? '';
    this.#streams = stream === true;
    this.#response = response;
    this.closed = once(response, 'close');
  }

  token(content: string): void {
    this.write(chunk({ content }, null));
  }

  finish(content = 'Because.'): void {
    if (this.#streams) {
      this.token(content);
      this.#response.end(`${chunk({}, 'stop')}data: [DONE]\n\n`);
    } else {
      const choices = [
        { index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' },
      ];
      this.refuse(200, { choices });
    }
  }

  refuse(status: number, body: object = {}, headers: Record<string, string> = {}): void {
    this.#response.writeHead(status, { 'content-type': 'application/json', ...headers });
    this.#response.end(JSON.stringify(body));
  }

  /** Answers with events, or with what should be some. */
  write(text: string): void {
    if (!this.#response.headersSent) {
      this.#response.writeHead(200, { 'content-type': 'text/event-stream' });
    }
    this.#response.write(text);
  }

  /** Ends the response in good order, in the middle of the answer. */
  end(): void {
    this.#response.end();
  }

  cut(): void {
    this.#response.destroy();
  }
}

/** A model whose answers are in the hands of the test. */
export class ScriptedModel {
  readonly #server = createServer((request, response) => void this.#take(request, response));
  readonly #arrived: Held[] = [];
  readonly #takers: ((held: Held) => void)[] = [];

  async start(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return this;
  }

  get baseURL(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  /** How many requests have come that nobody has taken. */
  get untaken(): number {
    return this.#arrived.length;
  }

  /** The next request in order of arrival. */
  next(): Promise<Held> {
    const held = this.#arrived.shift();
    if (held !== undefined) return Promise.resolve(held);
    return new Promise((resolve) => this.#takers.push(resolve));
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // Somebody asks whether it is well.
    if (request.method === 'GET') return void response.end('{}');
    let body: CompletionRequest;
    try {
      body = (await json(request)) as CompletionRequest;
    } catch {
      // It was left before it had come wholly.
      return void response.destroy();
    }
    const held = new Held(body, response);
    const taker = this.#takers.shift();
    if (taker === undefined) this.#arrived.push(held);
    else taker(held);
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

function chunk(delta: object, finishReason: string | null): string {
  const choices = [{ index: 0, delta, finish_reason: finishReason }];
  return `data: ${JSON.stringify({ object: 'chat.completion.chunk', choices })}\n\n`;
}
