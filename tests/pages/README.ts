import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';

import { expect, vi } from 'vitest';

import type { Page } from '../support/doc-examples.ts';
import { serve, type Served } from '../support/serve.ts';

let api: Served;

const log = vi.fn<(text: string) => void>();
export const console = { log };

/** The model of the second one. */
export const model = {
  async *tokens(_path: string | undefined, { signal }: { signal: AbortSignal }) {
    for (const token of ['Hel', 'lo']) {
      signal.throwIfAborted();
      yield token;
    }
  },
};

export const page = {
  async open() {
    // The API of the first example: it tells what it was asked.
    api = await serve((request, response) => {
      void json(request).then((body) => {
        const { input } = body as { input: string };
        const content = [{ type: 'output_text', text: `${input} Because.`, annotations: [] }];
        const output = [{ type: 'message', role: 'assistant', content }];
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify({ id: 'a', object: 'response', output }));
      });
    });
    vi.stubEnv('OPENAI_API_KEY', 'none');
    vi.stubEnv('OPENAI_BASE_URL', `${api.url}/v1`);
  },
  async check(declared) {
    const { ask, server } = declared as {
      ask: (question: string, client: AbortSignal) => Promise<{ output_text: string }>;
      server: Server;
    };
    const { output_text } = await ask('Why?', new AbortController().signal);
    expect(output_text).toBe('Why? Because.');
    expect(log.mock.calls).toEqual([['Number 0']]);

    await once(server.listen(0, '127.0.0.1'), 'listening');
    const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    expect(await answer.text()).toMatch(/^event: start\ndata: .*event: done\ndata: .*\n\n$/s);
    server.close();
  },
  async close() {
    vi.unstubAllEnvs();
    await api[Symbol.asyncDispose]();
  },
} satisfies Page;
