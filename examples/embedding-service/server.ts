import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { createApi } from './api.ts';
import { Model, type ModelStats } from './model.ts';
import type { Settings } from './settings.ts';

export interface EmbeddingServer {
  readonly url: string;
  stats(): ModelStats;
  /** Lets those finish who use the model, answers everybody else with 503, and closes the server. */
  drain(): Promise<void>;
  /** Cuts what is open, and resolves when the server has closed. */
  close(): Promise<void>;
}

/** Serves embeddings on 127.0.0.1. Rejects with the system's error for a port that it cannot have. */
export async function startEmbeddingServer(settings: Settings): Promise<EmbeddingServer> {
  const model = new Model(settings);
  const respond = createApi(model);
  const responses = new Set<ServerResponse>();
  const server = createServer((request, response) => {
    responses.add(response);
    response.once('close', () => responses.delete(response));
    void respond(request, response);
  });
  server.listen(settings.port, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  const shutDown = async (): Promise<void> => {
    await model.resource.close();
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
    stats: () => model.stats(),
    drain,
    async close() {
      const closed = drain();
      // Whose connection is cut has left, and uses the model no longer.
      server.closeAllConnections();
      await closed;
    },
  };
}
