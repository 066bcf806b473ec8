import { expect, vi } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

export const waitHistogram = { record: vi.fn<(ms: number) => void>() };

export const page = {
  check: () => expect(waitHistogram.record).toHaveBeenCalledExactlyOnceWith(0),
} satisfies Page;
