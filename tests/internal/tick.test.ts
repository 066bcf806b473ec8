import { afterEach, describe, expect, it, vi } from 'vitest';

import { tick } from '../../src/internal/tick.ts';
import { microtasks } from '../support/promises.ts';

describe('tick()', () => {
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  });

  it('resolves when all that needs neither time nor I/O has happened', async () => {
    const log: string[] = [];
    void microtasks(1000).then(() => log.push('microtasks'));
    await tick().then(() => log.push('tick'));
    expect(log).toEqual(['microtasks', 'tick']);
  });

  it('sets no timer where there is setImmediate, and one of 0 ms where there is not', async () => {
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    await tick();
    expect(setTimeout).not.toHaveBeenCalled();
    vi.stubGlobal('setImmediate', undefined);
    await tick();
    expect(setTimeout.mock.calls.map(([, ms]) => ms)).toEqual([0]);
  });
});
