import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { History } from '../../src/internal/history.ts';

describe('History', () => {
  test.prop([fc.nat(5), fc.array(fc.nat(7), { maxLength: 100 })])(
    'remembers the latest so many additions',
    (limit, numbers) => {
      const history = new History<number>(limit);
      const added: [string, number][] = [];
      for (const [index, number] of numbers.entries()) {
        const id = `id ${number}`;
        history.add(id, index);
        added.push([id, index]);
        const known = new Map(limit === 0 ? [] : added.slice(-limit));
        expect(history.size).toBe(known.size);
        for (let other = 0; other <= 7; other++) {
          expect(history.has(`id ${other}`)).toBe(known.has(`id ${other}`));
          expect(history.get(`id ${other}`)).toBe(known.get(`id ${other}`));
        }
        expect(new Set(history.values())).toEqual(new Set(known.values()));
      }
    },
  );

  it('takes any id for a plain one (H150)', () => {
    const history = new History<number>(3);
    expect(history.has('__proto__')).toBe(false);
    history.add('__proto__', 1);
    expect([history.get('__proto__'), history.get('constructor')]).toEqual([1, undefined]);
  });
});
