import { AdmissionQueue } from 'sluice/admission-queue';
import { Keyed } from 'sluice/keyed';
import { RateLimiter } from 'sluice/rate-limiter';
import { Semaphore } from 'sluice/semaphore';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

interface Instance {
  readonly key: string;
  active: number;
  waiting: number;
  full?: boolean;
}

function setUp(
  maxKeys: number,
  idleMs?: number,
): { clock: ManualClock; keyed: Keyed<Instance>; made: string[] } {
  const clock = new ManualClock();
  const made: string[] = [];
  const keyed = new Keyed(
    (key: string): Instance => {
      made.push(key);
      return { key, active: 0, waiting: 0 };
    },
    { maxKeys, idleMs, clock },
  );
  return { clock, keyed, made };
}

const keysOf = (keyed: Keyed<Instance>): string[] => [...keyed].map(([key]) => key).toSorted();

describe('Keyed', () => {
  describe('constructor', () => {
    it.each([
      [{}, 'maxKeys'],
      [{ maxKeys: 0 }, 'maxKeys'],
      [{ maxKeys: Infinity }, 'maxKeys'],
      [{ maxKeys: 1, idleMs: 0 }, 'idleMs'],
      [{ maxKeys: 1, idleMs: Number.NaN }, 'idleMs'],
      [{ maxKeys: 1, maxAgeMs: 1 }, 'maxAgeMs'],
      [{ maxKeys: 1, clock: 5 }, 'clock'],
    ])('refuses %o by name', (options, name) => {
      expect(() => new Keyed(() => new Semaphore(1), options as never)).toThrow(name);
    });

    it.each([
      [null, 'options of Keyed'],
      [{ maxKeys: null }, 'maxKeys'],
      [{ maxKeys: 1, idleMs: null }, 'idleMs'],
      [{ maxKeys: 1, clock: null }, 'clock'],
    ])('does not take the null in %j for nothing', (options, name) => {
      const construct = (): unknown => new Keyed(() => new Semaphore(1), options as never);
      expect(construct).toThrow(TypeError);
      expect(construct).toThrow(`\`${name}\` to`);
    });

    it('refuses what is no function', () => {
      expect(() => new Keyed(undefined as never, { maxKeys: 1 })).toThrow('make');
    });
  });

  describe('.get()', () => {
    it('makes an instance for each key, once', () => {
      const { keyed, made } = setUp(10);
      const a = keyed.get('a');
      expect(keyed.get('a')).toBe(a);
      expect(keyed.get('b')).not.toBe(a);
      expect(made).toEqual(['a', 'b']);
      expect(keyed.size).toBe(2);
    });

    it('gives the place of one that can be forgotten to a new key', () => {
      const { keyed } = setUp(2);
      keyed.get('a').active = 1;
      keyed.get('b');
      keyed.get('c');
      expect(keysOf(keyed)).toEqual(['a', 'c']);
    });

    it('prefers one that was not asked for lately (H287)', () => {
      const { keyed } = setUp(4);
      for (const key of ['a', 'b', 'c', 'd']) keyed.get(key);
      keyed.get('e');
      for (const key of ['b', 'c']) keyed.get(key);
      keyed.get('f');
      expect(keysOf(keyed)).toEqual(['b', 'c', 'e', 'f']);
    });

    it.each([
      ['with something active', { active: 1 }],
      ['somebody waits for', { waiting: 1 }],
      ['that remembers something', { full: false }],
    ])('never forgets an instance %s: a new key is refused (H151, H287)', (_, state) => {
      const { keyed, made } = setUp(2);
      const a = Object.assign(keyed.get('a'), state);
      const b = Object.assign(keyed.get('b'), state);
      expect(() => keyed.get('c')).toThrow(
        expect.objectContaining({ code: 'ERR_KEYS_FULL', maxKeys: 2 }),
      );
      expect(made).toEqual(['a', 'b']);
      expect([keyed.get('a'), keyed.get('b')]).toEqual([a, b]);
      Object.assign(b, { active: 0, waiting: 0, full: true });
      expect(keyed.get('c').key).toBe('c');
      expect(keysOf(keyed)).toEqual(['a', 'c']);
    });

    it('looks at a bounded number of them for room, and goes on from there the next time', () => {
      const { keyed } = setUp(1000);
      const looks = vi.fn<() => number>(() => 1);
      for (let i = 0; i < 1000; i++) {
        Object.defineProperty(keyed.get(`${i}`), 'active', { get: looks, configurable: true });
      }
      expect(() => keyed.get('new')).toThrow(expect.objectContaining({ code: 'ERR_KEYS_FULL' }));
      expect(looks.mock.calls.length).toBeLessThanOrEqual(128 + 1000);
      // The one that can go is found within maxKeys / 128 further calls, wherever it is.
      Object.defineProperty(keyed.get('777'), 'active', { value: 0 });
      let refused = 0;
      for (; !keyed.has('new') && refused < 1000; refused++) {
        try {
          keyed.get('new');
        } catch {
          // Not found yet.
        }
      }
      expect(refused).toBeLessThanOrEqual(Math.ceil(2000 / 127));
      expect(keyed.has('777')).toBe(false);
      expect(keyed.size).toBe(1000);
    });

    it('keeps nothing where the instance cannot be made', () => {
      const keyed = new Keyed<Instance>(
        () => {
          throw new Error('no');
        },
        { maxKeys: 2 },
      );
      expect(() => keyed.get('a')).toThrow('no');
      expect(keyed.size).toBe(0);
      const wrong = new Keyed((async () => new Semaphore(1)) as never, { maxKeys: 2 });
      expect(() => wrong.get('a')).toThrow(TypeError);
      expect(wrong.size).toBe(0);
    });

    it.each([undefined, null, {}, { active: 0 }, { waiting: 0 }, { active: '0', waiting: 0 }])(
      'refuses to keep %o, which does not tell whether it is in use',
      (made) => {
        const keyed = new Keyed(() => made as never, { maxKeys: 2 });
        expect(() => keyed.get('a')).toThrow(
          new TypeError('Expected `make` to return something with `active` and `waiting`.'),
        );
        expect(keyed.size).toBe(0);
      },
    );

    it('stays within its bound also when making one asks for others', () => {
      const keyed: Keyed<Instance> = new Keyed(
        (key) => {
          if (key.length < 4) keyed.get(`${key}x`);
          return { key, active: 0, waiting: 0 };
        },
        { maxKeys: 2 },
      );
      keyed.get('x');
      expect(keyed.size).toBe(2);
    });

    it('keeps whom it asks in vain, and says so', () => {
      let broken = false;
      const keyed = new Keyed(
        () => ({
          waiting: 0,
          get active(): number {
            if (broken) throw new Error('no answer');
            return 1;
          },
        }),
        { maxKeys: 1 },
      );
      const kept = keyed.get('a');
      broken = true;
      expect(() => keyed.get('b')).toThrow('no answer');
      expect([keyed.get('a'), keyed.size]).toEqual([kept, 1]);
    });

    it('takes any string for a plain key (H150, H260)', () => {
      const { keyed } = setUp(100);
      const keys = [
        '__proto__',
        'constructor',
        'hasOwnProperty',
        'toString',
        '',
        '0',
        '-0',
        '\0',
        '\uD800',
        '\u202E',
        'x'.repeat(10_000),
      ];
      const made = keys.map((key) => keyed.get(key));
      expect(new Set(made).size).toBe(keys.length);
      expect(keys.map((key) => keyed.get(key))).toEqual(made);
      expect(made.map(({ key }) => key)).toEqual(keys);
      expect(({} as { key?: string }).key).toBeUndefined();
      for (const key of keys) expect(keyed.delete(key)).toBe(true);
      expect(keyed.size).toBe(0);
    });

    it.each([undefined, null, 1, {}, Symbol('a')])('throws for %o, which is no key', (key) => {
      const { keyed, made } = setUp(1);
      expect(() => keyed.get(key as never)).toThrow(/`key`/);
      expect(made).toEqual([]);
    });
  });

  describe('.has() and .delete()', () => {
    it('tell and forget, even one that is in use', () => {
      const { keyed } = setUp(3);
      keyed.get('a').active = 1;
      expect(keyed.has('a')).toBe(true);
      expect(keyed.delete('a')).toBe(true);
      expect(keyed.delete('a')).toBe(false);
      expect(keyed.has('a')).toBe(false);
      expect(keyed.size).toBe(0);
    });
  });

  describe('[Symbol.iterator]()', () => {
    it('shows those who are there at its start, once each, whatever is done meanwhile (H286)', () => {
      const keys = ['a', 'b', 'c', 'd', 'e'];
      const acts: ((keyed: Keyed<Instance>, key: string) => unknown)[] = [
        (keyed, key) => keyed.get(key),
        (keyed, key) => keyed.get(`${key}+`),
        (keyed, key) => keyed.delete(key),
        (keyed) => keys.forEach((key) => keyed.delete(key)),
        (keyed) => keys.toReversed().forEach((key) => keyed.get(key)),
      ];
      for (const act of acts) {
        const { keyed } = setUp(5);
        for (const key of ['x', ...keys]) keyed.get(key);
        const shown: string[] = [];
        for (const [key] of keyed) {
          shown.push(key);
          act(keyed, key);
        }
        expect(shown.toSorted()).toEqual(keys);
      }
    });
  });

  describe('idleMs', () => {
    it('forgets what has not been asked for, between once and twice that time after (H126)', async () => {
      const { clock, keyed } = setUp(10, 1000);
      keyed.get('a');
      keyed.get('b');
      await clock.advance(1500);
      keyed.get('b');
      expect(keyed.size).toBe(2);
      await clock.advance(500);
      expect([keyed.has('a'), keyed.has('b')]).toEqual([false, true]);
      await clock.advance(999);
      expect(keyed.has('b')).toBe(true);
      await clock.advance(501);
      expect(keyed.size).toBe(0);
    });

    it('forgets what has not been asked for, however many others come and go', async () => {
      const { clock, keyed } = setUp(10, 1000);
      keyed.get('a');
      for (const key of ['b', 'c', 'd', 'e']) {
        await clock.advance(500);
        keyed.get(key);
        keyed.delete(key);
      }
      expect(keyed.has('a')).toBe(false);
      expect(clock.timers).toBe(0);
    });

    it('keeps what has just been asked for, though a new key has looked for room since', async () => {
      const { clock, keyed } = setUp(3, 1000);
      keyed.get('early');
      await clock.advance(990);
      for (const key of ['early', 'a', 'b', 'new']) keyed.get(key);
      expect(keyed.size).toBe(3);
      await clock.advance(999);
      expect([...keyed].map(([key]) => key)).toEqual(['new', 'a', 'b']);
      await clock.advance(1001);
      expect(keyed.size).toBe(0);
      expect(clock.timers).toBe(0);
    });

    it.each([undefined, Infinity])('of %s looks at no clock and arms nothing', async (idleMs) => {
      const { clock, keyed } = setUp(10, idleMs);
      const now = vi.spyOn(clock, 'now');
      keyed.get('a');
      keyed.get('b');
      expect(now).not.toHaveBeenCalled();
      expect(clock.timers).toBe(0);
    });

    it('keeps what is asked for at the instant of the sweep, before it (H276)', async () => {
      const { clock, keyed } = setUp(10, 1000);
      const [a, b] = ['a', 'b'].map((key) => keyed.get(key));
      let found: Instance | undefined;
      // At the same instant, what was set first fires first: b is asked for when it has gone.
      clock.setTimeout(() => (found = keyed.get('a')), 2000);
      await clock.advance(2000);
      expect([found === a, keyed.has('a'), keyed.has('b')]).toEqual([true, true, false]);
      expect(keyed.get('b')).not.toBe(b);
      expect(keyed.get('a')).toBe(a);
    });

    it('keeps what is in use, as long as it is (H284)', async () => {
      const { clock, keyed } = setUp(10, 1000);
      const a = keyed.get('a');
      a.active = 1;
      await clock.advance(60_000);
      expect(keyed.get('a')).toBe(a);
      a.active = 0;
      await clock.advance(2000);
      expect(keyed.size).toBe(0);
    });

    it('arms one timer, and none when nothing is left (H283)', async () => {
      const { clock, keyed } = setUp(10_000, 1000);
      expect(clock.timers).toBe(0);
      for (let i = 0; i < 5000; i++) keyed.get(`${i}`);
      expect(clock.timers).toBe(1);
      await clock.advance(2000);
      expect(keyed.size).toBe(0);
      expect(clock.timers).toBe(0);
      keyed.get('a');
      expect(clock.timers).toBe(1);
      keyed.delete('a');
      expect(clock.timers).toBe(0);
    });

    it('keeps no process alive (H283)', () => {
      const unref = vi.fn<() => void>();
      const clock = {
        now: () => 0,
        setTimeout: () => ({ unref }),
        clearTimeout: () => {},
      };
      new Keyed(() => new Semaphore(1), { maxKeys: 1, idleMs: 1000, clock }).get('a');
      expect(unref).toHaveBeenCalledOnce();
    });

    it('cleans up in turns, so that nobody waits long (H261)', async () => {
      const { clock, keyed } = setUp(10_000, 1000);
      for (let i = 0; i < 5000; i++) keyed.get(`${i}`);
      const sizes: number[] = [];
      const setTimeout = clock.setTimeout.bind(clock);
      vi.spyOn(clock, 'setTimeout').mockImplementation((callback, ms) => {
        sizes.push(keyed.size);
        return setTimeout(callback, ms);
      });
      await clock.advance(2000);
      sizes.push(keyed.size);
      const steps = sizes.slice(1).map((size, index) => sizes[index]! - size);
      expect(Math.max(...steps)).toBeLessThanOrEqual(128);
      expect(keyed.size).toBe(0);
    });

    it('goes on behind an instance that throws when it is asked, which surfaces', async () => {
      const clock = new ManualClock();
      let broken = false;
      const keyed = new Keyed(
        (key: string) => ({
          waiting: 0,
          get active(): number {
            if (broken && key === 'broken') throw new Error('no answer');
            return 0;
          },
        }),
        { maxKeys: 10, idleMs: 100, clock },
      );
      for (const key of ['a', 'broken', 'b']) keyed.get(key);
      broken = true;
      await expect(clock.advance(200)).rejects.toThrow('no answer');
      await clock.advance(0);
      expect([...keyed].map(([key]) => key)).toEqual(['broken']);
      broken = false;
      await clock.advance(200);
      expect([keyed.size, clock.timers]).toEqual([0, 0]);
    });
  });

  describe('of primitives', () => {
    it('never resets a quota (H259)', async () => {
      const clock = new ManualClock();
      const limiters = new Keyed(() => new RateLimiter({ limit: 2, intervalMs: 1000, clock }), {
        maxKeys: 2,
        idleMs: 100,
        clock,
      });
      limiters.get('a').tryAcquire(2);
      limiters.get('b').tryAcquire(1);
      expect(() => limiters.get('c')).toThrow(expect.objectContaining({ code: 'ERR_KEYS_FULL' }));
      await clock.advance(499);
      expect(limiters.get('a').available()).toBe(0);
      await clock.advance(1);
      // b is full again, a is not.
      limiters.get('c');
      expect([limiters.has('a'), limiters.has('b')]).toEqual([true, false]);
      await clock.advance(10_000);
      expect(limiters.size).toBe(0);
    });

    it('keeps limiters that somebody waits for, that are paused, or whose tasks run', async () => {
      const clock = new ManualClock();
      const limiters = new Keyed(() => new RateLimiter({ limit: 1, intervalMs: 1000, clock }), {
        maxKeys: 10,
        idleMs: 100,
        clock,
      });
      limiters.get('paused').pause(5000);
      let end!: () => void;
      const running = limiters.get('running').run(
        () =>
          new Promise<void>((resolve) => {
            end = resolve;
          }),
      );
      limiters.get('waiting').tryAcquire();
      const waiting = [1, 2, 3].map(() => limiters.get('waiting').acquire());
      await clock.advance(2900);
      expect([...limiters].map(([key]) => key).toSorted()).toEqual([
        'paused',
        'running',
        'waiting',
      ]);
      await clock.advance(3000);
      await Promise.all(waiting);
      expect([...limiters].map(([key]) => key)).toEqual(['running']);
      end();
      await running;
      await clock.advance(200);
      expect(limiters.size).toBe(0);
    });

    it('keeps semaphores with permits out and queues with tasks', async () => {
      const clock = new ManualClock();
      const options = { maxKeys: 1, clock };
      const semaphores = new Keyed(() => new Semaphore(1), options);
      const permit = semaphores.get('a').tryAcquire()!;
      expect(() => semaphores.get('b')).toThrow(expect.objectContaining({ maxKeys: 1 }));
      permit.release();
      semaphores.get('b');

      const queues = new Keyed(() => new AdmissionQueue({ concurrency: 1 }), options);
      let end!: () => void;
      const running = queues.get('a').run(
        () =>
          new Promise<void>((resolve) => {
            end = resolve;
          }),
      );
      expect(() => queues.get('b')).toThrow(expect.objectContaining({ maxKeys: 1 }));
      end();
      await running;
      queues.get('b');
    });

    it('holds at most maxKeys of a million one-shot keys, and nothing in the end (H126, H151, H261)', async () => {
      const clock = new ManualClock();
      const limiters = new Keyed(() => new RateLimiter({ limit: 1000, clock }), {
        maxKeys: 1000,
        idleMs: 60_000,
        clock,
      });
      let largest = 0;
      let granted = 0;
      for (let round = 0; round < 1000; round++) {
        for (let i = 0; i < 1000; i++) {
          if (limiters.get(`${round}-${i}`).tryAcquire() !== undefined) granted++;
        }
        largest = Math.max(largest, limiters.size);
        await clock.advance(1);
      }
      expect(granted).toBe(1_000_000);
      expect(largest).toBe(1000);
      await clock.advance(120_000);
      expect(limiters.size).toBe(0);
      expect(clock.timers).toBe(0);
    });
  });
});
