import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { AdmissionQueue } from 'sluice';
import { expect, vi } from 'vitest';

import { type ModelServer, startModelServer } from '../../../../examples/model-server/server.ts';
import { FABLES } from '../../../examples/fables.ts';
import type { Page } from '../../../support/doc-examples.ts';

let model: ModelServer;

export const page = {
  async open() {
    const quick = { prefillMsPerToken: 0, decodeMsPerToken: 0, corpus: FABLES };
    model = await startModelServer({ port: 0, ...quick });
    vi.stubEnv('OPENAI_BASE_URL', `${model.url}/v1`);
  },
  async check(declared) {
    const { server, upstream, conversations } = declared as {
      server: Server;
      upstream: AdmissionQueue;
      conversations: AdmissionQueue;
    };
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/?prompt=Why`;
    const whole = await (await fetch(url)).text();
    expect(whole).toMatch(/"type":"text-delta".*"type":"finish".*\[DONE\]/s);

    // The model refuses: the answer must not look like one that is whole.
    await model.close();
    const refusing = createServer((_request, response) => response.writeHead(400).end('{}'));
    await once(refusing.listen(Number(new URL(model.url).port), '127.0.0.1'), 'listening');
    const failed = await (await fetch(url)).text();
    expect(failed).toContain('"type":"error"');
    expect(failed).not.toContain('"type":"finish"');
    server.close();
    refusing.close();
    expect([upstream.active, conversations.active]).toEqual([0, 0]);
  },
  async close() {
    vi.unstubAllEnvs();
    await model.close();
  },
} satisfies Page;
