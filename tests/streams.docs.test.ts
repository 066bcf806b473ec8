import { describe, expect, it } from 'vitest';

import { runExamples } from './support/doc-examples.ts';

describe('the examples of the guides', () => {
  it('run: docs/token-streamer.md', async () => {
    const { queue, streamer } = (await runExamples('docs/token-streamer.md')) as {
      queue: { active: number };
      streamer: { stats(): object };
    };
    expect(queue.active).toBe(0);
    expect(streamer.stats()).toMatchObject({ active: 0, failed: 0, abandoned: 0 });
  });

  it('run: docs/http.md', async () => {
    const { queue, gpu } = (await runExamples('docs/http.md')) as {
      queue: { active: number };
      gpu: { active: number };
    };
    expect([queue.active, gpu.active]).toEqual([0, 0]);
  });
});
