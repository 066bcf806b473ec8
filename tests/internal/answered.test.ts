import { expect, it } from 'vitest';

import { type Answerable, answered, tellAnswered } from '../../src/internal/answered.ts';

it('tells every context that wants to know, and passes the others over', () => {
  const told: unknown[] = [];
  const context = (name: string): Answerable => ({
    [answered]: (ok, value) => told.push([name, ok, value]),
  });
  tellAnswered([context('a'), {}, context('b')], false, 'too slow');
  expect(told).toEqual([
    ['a', false, 'too slow'],
    ['b', false, 'too slow'],
  ]);
});
