import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { History } from '../../src/internal/history.ts';

describe('History', () => {
  test.prop([
    fc.nat(5),
    fc.array(fc.tuple(fc.constantFrom('add', 'add', 'add', 'forget'), fc.nat(7)), {
      maxLength: 100,
    }),
  ])(
    'remembers the latest so many additions, but for what it was told to forget',
    (limit, steps) => {
      const history = new History<number>(limit);
      const added: { id: string; value: number; forgotten: boolean }[] = [];
      for (const [index, [what, number]] of steps.entries()) {
        const id = `id ${number}`;
        if (what === 'add') {
          history.add(id, index);
          added.push({ id, value: index, forgotten: false });
        } else {
          history.forget(id);
          for (const one of added) if (one.id === id) one.forgotten = true;
        }
        const latest = limit === 0 ? [] : added.slice(-limit);
        const known = new Map(
          latest.filter(({ forgotten }) => !forgotten).map((one) => [one.id, one.value]),
        );
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
