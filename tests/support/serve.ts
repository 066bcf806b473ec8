import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';

export interface Served extends AsyncDisposable {
  readonly server: Server;
  readonly port: number;
  readonly url: string;
}

/** A server on a free port of this machine, closed with all its connections when disposed of. */
export async function serve(listener: RequestListener): Promise<Served> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    server,
    port,
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose](): Promise<void> {
      const closed = new Promise((resolve) => {
        server.close(resolve);
      });
      server.closeAllConnections();
      await closed;
    },
  };
}

/** A GET by hand over a socket, of which a test reads when and as much as it likes. */
export function rawGet(port: number, headers = '', path = '/'): Socket {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(`GET ${path} HTTP/1.1\r\nHost: test\r\n${headers}\r\n`);
  return socket;
}

/** Resolves when `condition` holds: looked at again whenever the event loop has come round. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) {
    await new Promise((resolve) => {
      setTimeout(resolve, 1);
    });
  }
}

/** All that comes over a socket until it is closed, and whether it was closed in order. */
export async function readAll(socket: Socket): Promise<string> {
  let all = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk) => {
    all += String(chunk);
  });
  await new Promise((resolve) => {
    socket.on('close', resolve);
  });
  return all;
}
