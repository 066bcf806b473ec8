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
    vi.stubEnv('ANTHROPIC_API_KEY', 'none');
    vi.stubEnv('ANTHROPIC_BASE_URL', model.url);
    vi.stubEnv('ANTHROPIC_MODEL', 'trigram');
  },
  check() {
    // One more than two at once would have been rejected.
    expect(model.stats()).toMatchObject({ served: 5, active: 0, rejected: 0 });
  },
  async close() {
    vi.unstubAllEnvs();
    await model.close();
  },
} satisfies Page;
