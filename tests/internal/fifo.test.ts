import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { Fifo } from '../../src/internal/fifo.ts';

describe('Fifo', () => {
  it('gives nothing where there is nothing', () => {
    const fifo = new Fifo<number>();
    expect([fifo.length, fifo.shift(), fifo.slice()]).toEqual([0, undefined, []]);
  });

  it('keeps a value that is undefined like any other', () => {
    const fifo = new Fifo<number | undefined>();
    fifo.push(undefined);
    fifo.push(1);
    expect([fifo.shift(), fifo.length, fifo.shift()]).toEqual([undefined, 1, 1]);
  });

  it('holds nothing once it is cleared, and takes what comes then', () => {
    const fifo = new Fifo<number>();
    for (const value of [1, 2, 3]) fifo.push(value);
    fifo.shift();
    fifo.push(4);
    fifo.clear();
    expect([fifo.length, fifo.slice()]).toEqual([0, []]);
    fifo.push(5);
    expect([fifo.shift(), fifo.length]).toEqual([5, 0]);
  });

  test.prop([fc.array(fc.oneof(fc.constant('shift'), fc.nat({ max: 9 }).map(String)))])(
    'does what an array does: a number skips so many',
    (steps) => {
      const fifo = new Fifo<number>();
      const array: number[] = [];
      for (const [value, step] of steps.entries()) {
        if (step === 'shift') {
          expect(fifo.shift()).toBe(array.shift());
        } else {
          fifo.push(value);
          array.push(value);
          expect(fifo.slice(Number(step))).toEqual(array.slice(Number(step)));
        }
        expect(fifo.length).toBe(array.length);
        expect(fifo.slice()).toEqual(array);
      }
    },
  );

  it('hands out a copy', () => {
    const fifo = new Fifo<number>();
    for (const value of [1, 2]) fifo.push(value);
    fifo.slice().length = 0;
    fifo.shift();
    fifo.slice().length = 0;
    expect(fifo.slice()).toEqual([2]);
  });
});
