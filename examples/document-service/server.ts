import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { Registry } from 'prom-client';

import { createApp } from './app.ts';
import { Documents } from './documents.ts';
import { GateMetrics } from './metrics.ts';
import type { Settings } from './settings.ts';

export interface DocumentServer {
  readonly url: string;
  readonly documents: Documents;
  /** Takes no more documents; resolves when those that were taken are done and it has closed. */
  drain(): Promise<void>;
  /** Cuts what is open, and resolves when the server has closed. */
  close(): Promise<void>;
}

/** Serves on 127.0.0.1. Rejects with the system's error for a port that it cannot have. */
export async function startDocumentServer(
  settings: Settings,
  registry: Registry = new Registry(),
): Promise<DocumentServer> {
  const documents = new Documents(settings);
  const metrics = new GateMetrics(registry);
  metrics.queue('documents', documents.queue);
  metrics.semaphore('calls', documents.calls);
  metrics.limiter('quota', documents.model.quota);

  const responses = new Set<ServerResponse>();
  const app = createApp(settings, documents, registry);
  const server = createServer((request, response) => {
    responses.add(response);
    response.once('close', () => responses.delete(response));
    app(request, response);
  });
  server.listen(settings.port, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  const shutDown = async (): Promise<void> => {
    await documents.drain();
    // What was answered last may still be on its way, and would be cut by `closeAllConnections`.
    await Promise.all([...responses].map((response) => once(response, 'close')));
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  };

  let drained: Promise<void> | undefined;
  const drain = (): Promise<void> => (drained ??= shutDown());

  return {
    url: `http://127.0.0.1:${port}`,
    documents,
    drain,
    async close() {
      const closed = drain();
      // Whose connection is cut has left, and with the last of them the drain ends.
      server.closeAllConnections();
      await closed;
    },
  };
}
