import { AdmissionQueue, type Gate, SessionManager } from 'sluice';
import { expect } from 'vitest';

import { Provider } from '../../../../examples/provider-gateway/provider.ts';
import type { Page } from '../../../support/doc-examples.ts';

export const sessions = new SessionManager();
export const queue = new AdmissionQueue({ concurrency: 1 });
export const limits = { faults: 3, openMs: 10_000 };
export const connection: Gate = {
  run: async (task) => task({ signal: new AbortController().signal }),
};
export const [fast, slow] = (['fast', 'slow'] as const).map(
  (name) =>
    new Provider(
      { name, baseURL: 'http://model.test/v1', apiKey: 'none', concurrency: 1, maxWaiting: 1 },
      { ...limits, firstTokenMs: 1000 },
      sessions,
    ),
) as [Provider, Provider];

export const page = {
  async check(declared) {
    const provider = declared['provider'] as Gate;
    expect(await provider.run(() => 'called')).toBe('called');
  },
} satisfies Page;
