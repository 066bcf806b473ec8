import { expect, vi } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

const log = vi.fn<(...parts: unknown[]) => void>();
export const console = { log };
export const callModel = async (_question: string, _options: object): Promise<string> => 'Because.';
export const renderReport = async (id: string): Promise<string> => `${id}, rendered`;

export const page = {
  check() {
    expect(log.mock.calls).toEqual([['You are number 0.']]);
  },
} satisfies Page;
