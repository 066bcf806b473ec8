import { createServer, type ServerResponse } from 'node:http';
import { Duplex } from 'node:stream';

/** A response of `node:http` to a GET, with a client in memory that takes as much as a test wants. */
export class Wire {
  readonly response: ServerResponse;
  readonly #client: Client;

  private constructor(response: ServerResponse, client: Client) {
    this.response = response;
    this.#client = client;
  }

  static async open(): Promise<Wire> {
    const client = new Client();
    const response = await new Promise<ServerResponse>((resolve) => {
      createServer((_, answer) => resolve(answer)).emit('connection', client);
      client.push('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
    });
    return new Wire(response, client);
  }

  /** What has arrived, by the writes to the connection that brought it. */
  get writes(): readonly string[] {
    return this.#client.writes;
  }

  get text(): string {
    return this.writes.join('');
  }

  get isConnected(): boolean {
    return !this.#client.destroyed;
  }

  /** From now on the client takes nothing, until `take`. */
  hold(): void {
    this.#client.takesAll = false;
  }

  take(): void {
    this.#client.takesAll = true;
    this.#client.taken?.();
  }

  /** The client goes away. */
  leave(): void {
    this.#client.destroy();
  }
}

class Client extends Duplex {
  readonly writes: string[] = [];
  takesAll = true;
  taken: (() => void) | undefined;

  override _read(): void {
    // It asks once and says nothing more.
  }

  override _write(chunk: unknown, _encoding: string, taken: () => void): void {
    this.#arrive(String(chunk), taken);
  }

  override _writev(chunks: { readonly chunk: unknown }[], taken: () => void): void {
    this.#arrive(chunks.map(({ chunk }) => String(chunk)).join(''), taken);
  }

  #arrive(text: string, taken: () => void): void {
    this.writes.push(text);
    if (this.takesAll) taken();
    else this.taken = taken;
  }
}
