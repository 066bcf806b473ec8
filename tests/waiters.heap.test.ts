import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { describe, expect, it } from 'vitest';

const script = fileURLToPath(new URL('support/heap-of-waiters.ts', import.meta.url));

describe('AdmissionQueue, Semaphore', () => {
  it('serve a million who wait, without recursion, and keep none of them (H108, H116)', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', script]);
    expect(JSON.parse(stdout)).toEqual({
      queue: { waiting: 999_950, served: 999_950, retained: 0, left: 0, active: 0 },
      semaphore: { waiting: 1_000_000, served: 1_000_000, active: 0, available: 10 },
      timers: 0,
      unhandled: 0,
    });
  }, 120_000);
});
