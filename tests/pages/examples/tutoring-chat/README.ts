import { type ModelServer, startModelServer } from '../../../../examples/model-server/server.ts';
import { FABLES } from '../../../examples/fables.ts';
import type { Page } from '../../../support/doc-examples.ts';

export let model: ModelServer;

export const page = {
  async open() {
    model = await startModelServer({ port: 0, corpus: FABLES });
  },
  close: () => model.close(),
} satisfies Page;
