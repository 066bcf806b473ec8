import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { describe, expect, it } from 'vitest';

const script = fileURLToPath(new URL('support/heap-of-streams.ts', import.meta.url));

describe('TokenStreamer', () => {
  it('leaves nothing of 40 000 streams, nor on the signal that they share (T-37, H321)', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', script]);
    const { growthBytes, ...rest } = JSON.parse(stdout) as { growthBytes: number };
    expect(Math.abs(growthBytes)).toBeLessThan(1_000_000);
    expect(rest).toEqual({
      mostListeners: 1,
      listeners: 0,
      resources: [],
      retained: 0,
      streams: 0,
      permits: 0,
      sessions: 0,
      aborted: false,
    });
  }, 120_000);
});
