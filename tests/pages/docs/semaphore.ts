import type { Semaphore } from 'sluice';
import { expect } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

const inferred: string[] = [];
export const infer = async (name: string): Promise<void> => void inferred.push(name);

export const page = {
  check({ gpu }) {
    expect(inferred).toEqual(['one', 'two']);
    expect((gpu as Semaphore).active).toBe(0);
  },
} satisfies Page;
