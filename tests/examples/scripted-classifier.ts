import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';

/** A request that waits for what a test makes of it. */
export class HeldTexts {
  readonly texts: readonly string[];
  readonly response: ServerResponse;
  /** Resolves when the response is finished or its client is gone. */
  readonly closed: Promise<unknown>;

  constructor(texts: readonly string[], response: ServerResponse) {
    this.texts = texts;
    this.response = response;
    this.closed = once(response, 'close');
  }

  finish(label = 'semaphore'): void {
    const results = this.texts.map(() => ({ label, probability: 0.5, words: ['permit'] }));
    this.response.end(JSON.stringify({ results }));
  }
}

/** A classifier whose answers are in the hands of the test. */
export class ScriptedClassifier {
  readonly #arrived: HeldTexts[] = [];
  readonly #takers: ((held: HeldTexts) => void)[] = [];
  readonly #server = createServer((request, response) => {
    void json(request).then((body) => {
      const held = new HeldTexts((body as { texts: string[] }).texts, response);
      const taker = this.#takers.shift();
      if (taker === undefined) this.#arrived.push(held);
      else taker(held);
    });
  });

  async start(): Promise<this> {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening');
    return this;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** How many requests have come that nobody has taken. */
  get untaken(): number {
    return this.#arrived.length;
  }

  /** The next request in order of arrival. */
  next(): Promise<HeldTexts> {
    const held = this.#arrived.shift();
    if (held !== undefined) return Promise.resolve(held);
    return new Promise((resolve) => this.#takers.push(resolve));
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}
