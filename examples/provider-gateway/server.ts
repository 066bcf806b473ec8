import { once } from 'node:events';
import type { Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { createAdaptorServer } from '@hono/node-server';
import type { ShutdownReport } from 'sluice';

import { createApp } from './app.ts';
import { Gateway } from './gateway.ts';
import type { Settings } from './settings.ts';

export interface GatewayServer {
  readonly url: string;
  readonly gateway: Gateway;
  /**
   * Refuses new requests from now on; resolves when the answers that have begun are sent and the
   * server has closed.
   */
  close(): Promise<ShutdownReport>;
}

/** Serves the gateway on 127.0.0.1. Rejects with the system's error for a port that it cannot have. */
export async function startGateway(settings: Settings): Promise<GatewayServer> {
  const gateway = new Gateway(settings);
  const server = createAdaptorServer({
    fetch: createApp(gateway).fetch,
    // For a body to arrive.
    serverOptions: { requestTimeout: 10_000 },
  }) as Server;
  const responses = new Set<ServerResponse>();
  server.on('request', (_, response: ServerResponse) => {
    responses.add(response);
    response.once('close', () => responses.delete(response));
  });
  server.listen(settings.port, '127.0.0.1');
  await once(server, 'listening');

  const shutDown = async (): Promise<ShutdownReport> => {
    const report = await gateway.shutdown();
    // What was answered last may still be on its way, and would be cut by `server.close()`.
    await Promise.all([...responses].map((response) => once(response, 'close')));
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
    return report;
  };
  let closing: Promise<ShutdownReport> | undefined;
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    gateway,
    close: () => (closing ??= shutDown()),
  };
}
