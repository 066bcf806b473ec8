import { afterEach, describe, expect, it, vi } from 'vitest';

import { tick } from '../../src/internal/tick.ts';
import { microtasks } from '../support/promises.ts';

describe('tick()', () => {
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  });

  it('resolves when all that needs neither time nor I/O has happened', async () => {
    const log: string[] = [];
    void microtasks(1000).then(() => log.push('microtasks'));
    await tick().then(() => log.push('tick'));
    expect(log).toEqual(['microtasks', 'tick']);
  });

  it('does not wait for fake timers', async () => {
    vi.useFakeTimers();
    await tick();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('sets no timer where there is setImmediate', async () => {
    const immediate = vi.fn<typeof setImmediate>(setImmediate);
    vi.stubGlobal('setImmediate', immediate);
    vi.resetModules();
    const elsewhere = await import('../../src/internal/tick.ts');
    await elsewhere.tick();
    expect(immediate).toHaveBeenCalledOnce();
  });

  it('does the same where there is no setImmediate', async () => {
    vi.stubGlobal('setImmediate', undefined);
    vi.resetModules();
    const elsewhere = await import('../../src/internal/tick.ts');
    const log: string[] = [];
    setTimeout(() => log.push('timer'), 0);
    void microtasks(1000).then(() => log.push('microtasks'));
    await elsewhere.tick();
    expect(log).toEqual(['microtasks', 'timer']);
  });
});
