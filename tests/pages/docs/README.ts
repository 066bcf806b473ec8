import { expect } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

export const callModel = async (question: string, _options?: object): Promise<string> =>
  `${question} Because.`;
export const request = new Request('http://server.test/');

const spans: string[] = [];
export const tracer = {
  span<T>(name: string, inside: () => T): T {
    spans.push(name);
    return inside();
  },
};

export const page = {
  check({ answer }) {
    expect(answer).toBe('Why is the sky blue? Because.');
    expect(spans).toEqual(['gate']);
  },
} satisfies Page;
