import type { AdmissionQueue, Semaphore } from 'sluice';
import { expect } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

/** What a page in a browser has. */
export const showPlace = (_place: { position: number }): void => {};
export const append = (_text: string): void => {};
export const showFailure = (_failure: { code: string; message: string }): void => {};

export const page = {
  check(declared) {
    const { queue, gpu } = declared as { queue: AdmissionQueue; gpu: Semaphore };
    expect([queue.active, gpu.active]).toEqual([0, 0]);
  },
} satisfies Page;
