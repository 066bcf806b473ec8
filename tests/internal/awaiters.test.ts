import { describe, expect, it } from 'vitest';

import { Awaiters } from '../../src/internal/awaiters.ts';
import { settle } from '../../src/testing.ts';

describe('Awaiters', () => {
  it('lets everybody go who waits, and nobody who comes later', async () => {
    const awaiters = new Awaiters();
    const gone: string[] = [];
    for (const name of ['a', 'b']) void awaiters.wait().then(() => gone.push(name));
    await settle();
    expect(gone).toEqual([]);
    awaiters.release();
    void awaiters.wait().then(() => gone.push('later'));
    await settle();
    expect(gone).toEqual(['a', 'b']);
    awaiters.release();
    await settle();
    expect(gone).toEqual(['a', 'b', 'later']);
  });

  it('is one promise however many wait, and none when nobody does', () => {
    const awaiters = new Awaiters();
    awaiters.release();
    expect(awaiters.wait()).toBe(awaiters.wait());
  });
});
