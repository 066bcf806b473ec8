import { expect, vi } from 'vitest';

import { type ModelServer, startModelServer } from '../../../../examples/model-server/server.ts';
import { FABLES } from '../../../examples/fables.ts';
import type { Page } from '../../../support/doc-examples.ts';

let model: ModelServer;

const written: string[] = [];
export const process = { stdout: { write: (text: string) => written.push(text) } };

export const page = {
  async open() {
    model = await startModelServer({ port: 0, decodeMsPerToken: 0, corpus: FABLES });
    vi.stubEnv('OPENAI_BASE_URL', `${model.url}/v1`);
  },
  check() {
    expect(written.length).toBeGreaterThan(1);
    expect(model.stats()).toMatchObject({ served: 1, active: 0 });
  },
  async close() {
    vi.unstubAllEnvs();
    await model.close();
  },
} satisfies Page;
