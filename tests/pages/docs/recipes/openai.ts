import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { AdmissionQueue } from 'sluice';
import { expect, vi } from 'vitest';

import { type ModelServer, startModelServer } from '../../../../examples/model-server/server.ts';
import { FABLES } from '../../../examples/fables.ts';
import type { Page } from '../../../support/doc-examples.ts';

let model: ModelServer;

export const page = {
  async open() {
    model = await startModelServer({
      port: 0,
      prefillMsPerToken: 0,
      decodeMsPerToken: 0,
      parallel: 2,
      corpus: FABLES,
    });
    vi.stubEnv('OPENAI_API_KEY', 'none');
    vi.stubEnv('OPENAI_BASE_URL', `${model.url}/v1`);
    vi.stubEnv('OPENAI_MODEL', 'trigram');
  },
  async check(declared) {
    const { server, queue } = declared as { server: Server; queue: AdmissionQueue };
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as AddressInfo;
    const answer = await fetch(`http://127.0.0.1:${port}/?question=What+did+the+fox+see`);
    expect(await answer.text()).toMatch(/^event: start\n.*event: token\n.*event: done\n.*$/s);
    server.close();
    expect(queue.active).toBe(0);
    // One more than two at once would have been rejected.
    expect(model.stats()).toMatchObject({ served: 5, active: 0, rejected: 0 });
  },
  async close() {
    vi.unstubAllEnvs();
    await model.close();
  },
} satisfies Page;
