import { expect, vi } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

const log = vi.fn<(text: string) => void>();
export const console = { log };
export const { signal: caller } = new AbortController();
export const callModel = async (question: string, _options?: object): Promise<string> =>
  `${question} Because.`;

export const page = {
  check: () => expect(log.mock.calls).toEqual([['idle'], ['idle']]),
} satisfies Page;
