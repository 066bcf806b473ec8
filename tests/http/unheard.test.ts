import { once } from 'node:events';

import { describe, expect, it } from 'vitest';

import { pipeToResponse, toResponse } from '../../src/http/index.ts';
import { Semaphore } from '../../src/semaphore.ts';
import { settle } from '../../src/testing.ts';
import { type TokenStream, TokenStreamer } from '../../src/token-streamer.ts';
import { rawGet, serve, until } from '../support/serve.ts';
import { catchUncaught } from '../support/uncaught.ts';

const TOKENS = 4;
const WAYS = ['fails at its abort', 'fails a while later', 'fails in its return()'] as const;

/** Gives some tokens, waits to be aborted, and fails in one of these ways. */
function failing(how: (typeof WAYS)[number], signal: AbortSignal): AsyncIterable<string> {
  let given = 0;
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        if (given < TOKENS) return { done: false, value: String(given++) };
        if (!signal.aborted) await once(signal, 'abort');
        if (how === 'fails a while later') await settle();
        throw new Error(how);
      },
      async return() {
        if (how === 'fails in its return()') throw new Error(how);
        return { done: true, value: undefined };
      },
    }),
  };
}

describe('a client that leaves', () => {
  it.each(WAYS)(
    'after any number of tokens is all that is heard of a source that %s (T-17, T-42)',
    async (how) => {
      using uncaught = catchUncaught();
      const gate = new Semaphore(1);
      const streamer = new TokenStreamer({ highWaterMark: 1, teardownGraceMs: 100 });
      const stream = (): TokenStream<string> =>
        streamer.stream(({ signal }) => failing(how, signal), { gate });
      await using served = await serve((_, response) => void pipeToResponse(stream(), response));
      for (let seen = 0; seen <= TOKENS; seen++) {
        const wanted = seen === 0 ? 'event: start' : `"index":${seen - 1}`;

        const socket = rawGet(served.port);
        let received = '';
        socket.on('data', (chunk) => (received += String(chunk)));
        await until(() => received.includes(wanted));
        socket.destroy();

        const { body } = await toResponse(stream());
        const reader = body!.pipeThrough(new TextDecoderStream()).getReader();
        let text = '';
        while (!text.includes(wanted)) text += (await reader.read()).value;
        await reader.cancel();
      }
      await until(() => streamer.stats().active === 0);
      await settle();
      expect(streamer.stats()).toMatchObject({ disconnected: 2 * (TOKENS + 1), abandoned: 0 });
      expect(gate.active).toBe(0);
      expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
    },
  );
});
