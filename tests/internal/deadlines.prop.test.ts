import { test } from '@fast-check/vitest';
import * as fc from 'fast-check';
import { describe, expect } from 'vitest';

import { type Deadline, Deadlines } from '../../src/internal/deadlines.ts';
import { Time } from '../../src/internal/time.ts';
import { ManualClock } from '../../src/testing.ts';

type Step =
  | { readonly kind: 'add'; readonly inMs: number }
  | { readonly kind: 'remove'; readonly which: number }
  | { readonly kind: 'advance'; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('add'), inMs: fc.nat(30) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove'), which: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('advance'), ms: fc.nat(20) }) },
);

/** The obvious way: a list, searched each time. */
class Model {
  readonly #list: { readonly id: number; readonly at: number }[] = [];

  get size(): number {
    return this.#list.length;
  }

  add(id: number, at: number): void {
    this.#list.push({ id, at });
  }

  remove(id: number): void {
    const index = this.#list.findIndex((entry) => entry.id === id);
    if (index !== -1) this.#list.splice(index, 1);
  }

  /** What is due up to `end`, in order; ids grow, so that they are the order of `add`. */
  take(end: number): number[] {
    const due = this.#list
      .filter((entry) => entry.at <= end)
      .toSorted((a, b) => a.at - b.at || a.id - b.id);
    for (const { id } of due) this.remove(id);
    return due.map(({ id }) => id);
  }
}

describe('Deadlines', () => {
  test.prop([fc.array(step, { maxLength: 200, size: 'max' })], { numRuns: 100 })(
    'reports the same as a list that is searched each time, with one timer or none',
    async (steps) => {
      const clock = new ManualClock();
      const reported: number[] = [];
      const deadlines = new Deadlines<number>(new Time(clock), (due) => reported.push(...due));
      const made: Deadline[] = [];
      const model = new Model();
      for (const taken of steps) {
        if (taken.kind === 'add') {
          model.add(made.length, clock.now() + taken.inMs);
          made.push(deadlines.add(made.length, clock.now() + taken.inMs));
        } else if (taken.kind === 'remove' && made.length > 0) {
          // Of those that are due or gone already, too.
          const id = taken.which % made.length;
          model.remove(id);
          deadlines.remove(made[id]!);
        } else if (taken.kind === 'advance') {
          const expected = model.take(clock.now() + taken.ms);
          await clock.advance(taken.ms);
          expect(reported.splice(0)).toEqual(expected);
        }
        expect(deadlines.size).toBe(model.size);
        expect(clock.timers).toBe(model.size === 0 ? 0 : 1);
      }
      const rest = model.take(Infinity);
      await clock.advance(1000);
      expect(reported).toEqual(rest);
      expect(clock.timers).toBe(0);
    },
  );

  test.prop(
    [
      fc.array(fc.record({ at: fc.nat(1000), stays: fc.boolean(), turn: fc.nat() }), {
        maxLength: 300,
        size: 'max',
      }),
      fc.nat(9),
    ],
    { numRuns: 200 },
  )('reports those in order that are left when most have been taken back', async (all, nth) => {
    const clock = new ManualClock();
    const reported: number[] = [];
    const deadlines = new Deadlines<number>(new Time(clock), (due) => reported.push(...due));
    const made = all.map(({ at }, id) => deadlines.add(id, at));
    const left = all.map((deadline, id) => ({ ...deadline, id }));
    for (const { id } of left.toSorted((a, b) => a.turn - b.turn)) {
      if (!all[id]!.stays || id % 10 !== nth) deadlines.remove(made[id]!);
    }
    await clock.advance(1000);
    const expected = left
      .filter(({ stays, id }) => stays && id % 10 === nth)
      .toSorted((a, b) => a.at - b.at || a.id - b.id);
    expect(reported).toEqual(expected.map(({ id }) => id));
    expect(clock.timers).toBe(0);
  });
});
