import type { AdmissionQueue, TokenStreamer } from 'sluice';
import { expect } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

export const page = {
  check(declared) {
    const { queue, streamer } = declared as { queue: AdmissionQueue; streamer: TokenStreamer };
    expect(queue.active).toBe(0);
    expect(streamer.stats()).toMatchObject({ active: 0, failed: 0, abandoned: 0 });
  },
} satisfies Page;
