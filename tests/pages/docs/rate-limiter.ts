import type { RateLimiter } from 'sluice';
import { expect, vi } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

interface Interruptible {
  readonly signal: AbortSignal;
}

export const { signal } = new AbortController();
export const prompt = 'Why?';
export const user = 'ann';

export const refuse = vi.fn<(retryAfterMs: number) => void>();
export const estimate = (text: string): number => text.length + 1000;

export const callModel = async (
  _prompt: string,
  _options: Interruptible,
): Promise<{ usage: { total_tokens: number } }> => ({ usage: { total_tokens: 1500 } });

const answers = [
  new Response(null, { status: 429, headers: { 'retry-after-ms': '1' } }),
  new Response('Because.'),
];
export const callApi = async (_prompt: string, _options: Interruptible): Promise<Response> =>
  answers.shift()!;

export const response = new Response(null, {
  status: 429,
  headers: { 'retry-after-ms': '1', 'x-ratelimit-remaining-tokens': '20000' },
});

export const page = {
  check(declared) {
    const limiter = declared['limiter'] as RateLimiter<'requests' | 'tokens'>;
    expect(refuse).not.toHaveBeenCalled();
    expect(answers).toEqual([]);
    // 1500 of the guide's first call, what the upstream did not have, and one call of the last recipe.
    expect(limiter.stats()).toMatchObject({ granted: 3, active: 0, waiting: 0 });
    expect(limiter.available('tokens')).toBeLessThan(20_000);
  },
} satisfies Page;
