import { test } from '@fast-check/vitest';
import * as fc from 'fast-check';
import { compose } from 'sluice';
import { Semaphore } from 'sluice/semaphore';
import { ManualClock } from 'sluice/testing';
import { describe, expect } from 'vitest';

const caller = fc.record({
  arrivesAtMs: fc.nat(50),
  runsForMs: fc.nat(30),
  ends: fc.constantFrom('returns', 'rejects', 'throws'),
  givesUpAfterMs: fc.option(fc.nat(60), { nil: undefined }),
  waitTimeoutMs: fc.option(fc.nat(30), { nil: Infinity }),
  runTimeoutMs: fc.option(fc.integer({ min: 1, max: 40 }), { nil: Infinity }),
});

describe('compose()', () => {
  test.prop([
    fc.array(fc.record({ capacity: fc.integer({ min: 1, max: 3 }), maxWaiting: fc.nat(3) }), {
      minLength: 1,
      maxLength: 4,
    }),
    fc.array(caller, { maxLength: 20 }),
  ])(
    'keeps every limit and gives everything back, however callers come, fail, give up and run out of time (H336)',
    async (settings, callers) => {
      const clock = new ManualClock();
      const gates = settings.map((setting) => new Semaphore({ ...setting, clock }));
      const gate = compose(...(gates as [Semaphore]));
      const least = Math.min(...settings.map(({ capacity }) => capacity));
      const after = (ms: number): Promise<void> =>
        new Promise((resolve) => clock.setTimeout(resolve, ms));
      let running = 0;
      let answers = 0;
      for (const { arrivesAtMs, runsForMs, ends, givesUpAfterMs, ...limits } of callers) {
        const controller = new AbortController();
        const task = (): Promise<void> => {
          expect(++running).toBeLessThanOrEqual(least);
          if (ends === 'throws') {
            running--;
            throw new Error(ends);
          }
          return after(runsForMs).then(() => {
            running--;
            if (ends === 'rejects') throw new Error(ends);
          });
        };
        clock.setTimeout(() => {
          const answered = (): number => answers++;
          void gate.run(task, { signal: controller.signal, ...limits }).then(answered, answered);
          if (givesUpAfterMs === undefined) return;
          clock.setTimeout(() => controller.abort(), givesUpAfterMs);
        }, arrivesAtMs);
      }
      await clock.runAll();
      expect(answers).toBe(callers.length);
      expect(running).toBe(0);
      for (const { active, waiting } of gates)
        expect({ active, waiting }).toEqual({ active: 0, waiting: 0 });
      expect(clock.timers).toBe(0);
    },
  );
});
