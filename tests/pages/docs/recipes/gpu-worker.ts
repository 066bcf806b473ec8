import { stripTypeScriptTypes } from 'node:module';

import type { AdmissionQueue, SharedResource } from 'sluice';
import { expect } from 'vitest';

import { blocksOf, type Page, readPage } from '../../../support/doc-examples.ts';

/** The first block of the page, which is the worker. */
const [worker] = blocksOf(readPage('docs/recipes/gpu-worker.md'));
const code = encodeURIComponent(stripTypeScriptTypes(worker!.code));
export const workerFile = new URL(`data:text/javascript,${code}`);

export const page = {
  check(declared) {
    const { gpu, queue } = declared as { gpu: SharedResource<object>; queue: AdmissionQueue };
    expect(gpu.stats()).toMatchObject({ active: 0, loaded: false, closed: true });
    expect(queue.active).toBe(0);
  },
} satisfies Page;
