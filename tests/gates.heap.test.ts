import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { describe, expect, it } from 'vitest';

const cycles = fileURLToPath(new URL('support/heap-of-cycles.ts', import.meta.url));
const idle = fileURLToPath(new URL('support/idle.ts', import.meta.url));

async function play(script: string): Promise<unknown> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', script], {
    timeout: 110_000,
  });
  return JSON.parse(stdout);
}

describe('every gate', () => {
  it('leaves nothing of a million uses, nor on the signal that they share (H128, H129)', async () => {
    const figures = (await play(cycles)) as Record<string, { growthBytes: number }>;
    for (const [name, { growthBytes, ...rest }] of Object.entries(figures)) {
      expect(growthBytes, name).toBeLessThan(1_000_000);
      expect(rest, name).toEqual({ listeners: 0, resources: true });
    }
    const names = ['semaphore', 'admissionQueue', 'rateLimiter', 'keyed', 'sharedResource'];
    expect(Object.keys(figures)).toEqual([...names, 'composed']);
  }, 120_000);

  it('keeps no process alive by which it is only held (H132)', async () => {
    const text = expect.stringContaining('event: done');
    expect(await play(idle)).toEqual({ permit: 1, keys: 1, text, again: ['a', 'b'] });
  }, 120_000);
});
