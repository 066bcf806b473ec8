import type { ServerResponse } from 'node:http';

import { describe, expect, it } from 'vitest';

import { AdmissionQueue } from '../../src/admission-queue.ts';
import { compose } from '../../src/gate.ts';
import { encodeEvents, pipeToResponse, toResponse } from '../../src/http/index.ts';
import { SessionManager } from '../../src/session-manager.ts';
import { type TokenStream, TokenStreamer } from '../../src/token-streamer.ts';
import { rawGet, readAll, serve, until } from '../support/serve.ts';

/** Reads a stream to its end over a transport, in contexts that have nothing to do with its own. */
const TRANSPORTS: Record<string, (stream: TokenStream<string>) => Promise<string>> = {
  pipeToResponse: async (stream) => {
    let response: ServerResponse | undefined;
    await using served = await serve((_, given) => {
      response = given;
      void pipeToResponse(stream, response);
    });
    // A client that is slow at first, so that the source is pulled when the socket drains.
    const socket = rawGet(served.port, 'Connection: close\r\n');
    await until(() => response?.writableNeedDrain === true);
    return await readAll(socket);
  },
  toResponse: async (stream) => (await toResponse(stream)).text(),
  encodeEvents: async (stream) => (await Array.fromAsync(encodeEvents(stream))).join(''),
};

describe.each(Object.entries(TRANSPORTS))('a source that is pulled by %s()', (_, send) => {
  it('is in its session all the time, the session be around the stream or its gate (T-30)', async () => {
    const sessions = new SessionManager();
    const queue = new AdmissionQueue({ concurrency: 1 });
    const streamer = new TokenStreamer({ highWaterMark: 2 });
    const seen = new Map<string, Set<string | undefined>>();
    const sourceOf = (name: string) =>
      async function* (): AsyncGenerator<string> {
        const ids = new Set<string | undefined>();
        seen.set(name, ids);
        const note = (): void => void ids.add(sessions.current()?.requestId);
        try {
          for (let i = 0; i < 1000; i++) {
            note();
            yield 'x'.repeat(10_000);
            note();
            if (i % 20 === 0) await new Promise((resolve) => void setImmediate(resolve));
            note();
          }
        } finally {
          note();
        }
      };
    const around = sessions.run(() => send(streamer.stream(sourceOf('around'), { gate: queue })), {
      requestId: 'around',
    });
    const gate = compose(sessions, queue);
    const inside = send(streamer.stream(sourceOf('inside'), { gate, requestId: 'inside' }));
    for (const answer of await Promise.all([around, inside]))
      expect(answer).toContain('event: done');
    expect(Object.fromEntries(seen)).toEqual({
      around: new Set(['around']),
      inside: new Set(['inside']),
    });
    expect([sessions.active, queue.active]).toEqual([0, 0]);
  });
});
