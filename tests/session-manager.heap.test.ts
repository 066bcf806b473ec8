import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { describe, expect, it } from 'vitest';

const script = fileURLToPath(new URL('support/heap-of-sessions.ts', import.meta.url));

describe('SessionManager', () => {
  it('M3 leaves nothing of a million sessions but the history (H282)', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', script]);
    const { growthBytes, ...rest } = JSON.parse(stdout) as { growthBytes: number };
    expect(Math.abs(growthBytes)).toBeLessThan(1_000_000);
    expect(rest).toEqual({
      started: 1_020_010,
      active: 0,
      records: 100,
      listeners: 0,
      resources: [],
      known: 10,
      retained: 0,
    });
  }, 120_000);
});
