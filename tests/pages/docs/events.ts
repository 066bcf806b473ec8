import { expect, vi } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

export const waitHistogram = { record: vi.fn<(ms: number) => void>() };

export default {
  check: () => expect(waitHistogram.record).toHaveBeenCalledExactlyOnceWith(0),
} satisfies Page;
