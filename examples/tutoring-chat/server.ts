import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { ShutdownReport } from 'sluice';

import { Api } from './api.ts';
import { type ChatStats, openChat } from './chat.ts';
import { readPage } from './page.ts';
import type { Settings } from './settings.ts';
import { readState } from './state.ts';

export interface ChatServer {
  readonly url: string;
  readonly port: number;
  /** How many questions of before the last shutdown are in line again. */
  readonly restored: number;
  stats(): ChatStats;
  /**
   * Answers new questions with 503 from now on, and everything else as before; resolves when the
   * questions that were taken are answered, or in the file for those in line, and the server has
   * closed.
   */
  drain(): Promise<ShutdownReport>;
  /** Cuts what is open, and resolves when the server has closed. */
  close(): Promise<void>;
}

/**
 * Serves the chat on 127.0.0.1. Rejects with the system's error for a port that it cannot have, or a
 * file that it cannot read.
 */
export async function startChatServer(settings: Settings): Promise<ChatServer> {
  const page = await readPage();
  const state = await readState(settings.stateFile);
  const server = createServer();
  server.listen(settings.port, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  // No sooner, as what is restored is asked at once; and no request can have come in between.
  const chat = openChat(settings, state);
  const api = new Api(chat, settings.bodyTimeoutMs, page);
  const responses = new Set<ServerResponse>();
  server.on('request', (request, response) => {
    responses.add(response);
    response.once('close', () => responses.delete(response));
    void api.respond(request, response);
  });

  const shutDown = async (): Promise<ShutdownReport> => {
    const report = await chat.drain();
    // What was answered last may still be on its way, and would be cut by `server.close()`.
    await Promise.all([...responses].map((response) => once(response, 'close')));
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
    return report;
  };

  let drained: Promise<ShutdownReport> | undefined;
  const drain = (): Promise<ShutdownReport> => (drained ??= shutDown());

  return {
    url: `http://127.0.0.1:${port}`,
    port,
    restored: state.questions.length,
    stats: () => chat.stats(),
    drain,
    async close() {
      const closed = drain();
      // Whose connection is cut has left: their sessions end, and with the last of them the drain.
      server.closeAllConnections();
      chat.cut();
      await closed;
    },
  };
}
