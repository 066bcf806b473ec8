import { readFileSync } from 'node:fs';

import type { Registry } from 'prom-client';
import { expect, vi } from 'vitest';

import { blocksOf, type Page, readPage } from '../../../support/doc-examples.ts';

export const callModel = async (): Promise<string> => 'Because.';
export const response = {
  setHeader: vi.fn<(name: string, value: string) => void>(),
  end: vi.fn<(body: string) => void>(),
};

export const page = {
  async check({ registry }) {
    const documented = readPage('docs/recipes/prometheus.md');
    for (const { name } of await (registry as Registry).getMetricsAsJSON()) {
      expect(documented).toContain(`\`${name}\``);
    }
    expect(response.end.mock.lastCall![0]).toContain('sluice_capacity{gate="documents"} 2');
    // The wiring is that of the example that it is from.
    const source = new URL('../../../../examples/document-service/metrics.ts', import.meta.url);
    const wiring = readFileSync(source, 'utf8').replace('export class', 'class');
    expect(blocksOf(documented)[0]!.code).toBe(wiring);
  },
} satisfies Page;
