import { describe, expect, it } from 'vitest';

import { QueueFullError, WaitTimeoutError } from '../../src/errors.ts';
import { type AnyGate, type Ending, Feed } from '../../src/internal/feed.ts';
import {
  type Origin,
  Outlet,
  type OutletSettings,
  shareSettings,
} from '../../src/internal/outlet.ts';
import { Time } from '../../src/internal/time.ts';
import { ManualClock, settle } from '../../src/testing.ts';

const CANCELLED: Ending = { outcome: 'cancelled', error: new Error('enough') };
const COMPLETED: Ending = { outcome: 'completed', error: undefined };

const ORIGIN: Origin<string> = {
  index: 5,
  tokens: ['f', 'g'],
  hasMoved: false,
  isStartDue: false,
  last: undefined,
  isOver: false,
  hasIds: true,
};

/** An outlet of a feed whose source is silent: the test tells it what a feed would. */
function made({
  limits,
  gate,
  origin,
}: {
  readonly limits?: Partial<OutletSettings>;
  readonly gate?: AnyGate;
  readonly origin?: Partial<Origin<string>>;
} = {}): { clock: ManualClock; feed: Feed<string>; outlet: Outlet<string> } {
  const clock = new ManualClock();
  const settings = shareSettings(new Time(clock), {
    firstTokenTimeoutMs: Infinity,
    idleTimeoutMs: Infinity,
    timeoutMs: Infinity,
    teardownGraceMs: 0,
    heartbeatMs: Infinity,
    stallMs: 100,
    highWaterMark: 2,
    exposeErrors: false,
    ...limits,
  });
  const source = (): AsyncIterable<string> => ({
    [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }),
  });
  const feed = new Feed<string>(settings, source, gate, {}, undefined);
  const outlet = new Outlet(settings, feed, origin && { ...ORIGIN, ...origin });
  return { clock, feed, outlet };
}

/** A gate at which everybody waits as the third. */
class Line implements AnyGate {
  hasTicket = false;

  run(_: unknown, options: { onTicket?: (ticket: object) => void }): Promise<never> {
    this.hasTicket = options.onTicket !== undefined;
    options.onTicket?.({
      position: 3,
      positions: () => ({
        [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }),
      }),
    });
    return new Promise(() => {});
  }
}

/** How often an outlet has called back since it was asked to. */
function calls(outlet: Outlet<string>): { count: number } {
  const seen = { count: 0 };
  outlet.ready(() => seen.count++);
  return seen;
}

describe('Outlet', () => {
  it('has room below the high-water mark', () => {
    const { outlet } = made();
    outlet.token('a');
    expect([outlet.hasRoom, outlet.buffered]).toEqual([true, 1]);
    outlet.token('b');
    expect([outlet.hasRoom, outlet.buffered]).toEqual([false, 2]);
  });

  it('tells of ids where its origin does', () => {
    expect(made().outlet.hasIds).toBe(false);
    expect(made({ origin: { hasIds: true } }).outlet.hasIds).toBe(true);
    expect(made({ origin: { hasIds: false } }).outlet.hasIds).toBe(false);
  });

  it('begins where its origin says, and counts what was taken from there', () => {
    const { outlet } = made({ origin: {} });
    expect(outlet.take()).toEqual({ type: 'token', value: 'f', index: 5 });
    expect(outlet.take()).toEqual({ type: 'token', value: 'g', index: 6 });
    expect(outlet.taken).toBe(2);
  });

  it('that has waited for the start is told of it before there is a token', async () => {
    const { outlet, clock } = made({ gate: new Line() });
    const next = outlet.next();
    outlet.admitted();
    expect(await next).toEqual({ type: 'start' });
    expect(clock.timers).toBe(0);
  });

  describe('.ready()', () => {
    it('calls back at once for whatever there is to take, the end included', () => {
      for (const tell of [
        (outlet: Outlet<string>) => outlet.token('a'),
        (outlet: Outlet<string>) => outlet.admitted(),
        (outlet: Outlet<string>) => outlet.moved(),
        (outlet: Outlet<string>) => outlet.ended(COMPLETED),
      ]) {
        const { outlet } = made({ gate: new Line() });
        tell(outlet);
        expect(calls(outlet).count).toBe(1);
      }
    });

    it('calls back once, later, where there is nothing yet', () => {
      const { outlet } = made({ gate: new Line() });
      const seen = calls(outlet);
      expect(seen.count).toBe(0);
      outlet.token('a');
      outlet.token('b');
      expect(seen.count).toBe(1);
    });

    it('calls back at once when there is nothing ever again', () => {
      const { outlet } = made();
      outlet.end(CANCELLED);
      expect(outlet.take()).toMatchObject({ type: 'error' });
      expect(calls(outlet).count).toBe(1);
    });

    it('does not call back for a place that has been told', () => {
      const { outlet } = made({ gate: new Line() });
      outlet.ready(() => {});
      outlet.moved();
      expect(outlet.take()).toMatchObject({ type: 'position', position: 3 });
      expect(calls(outlet).count).toBe(0);
    });

    it('starts the stream, in line only where positions are told', () => {
      for (const isTold of [true, false]) {
        const gate = new Line();
        const { outlet, feed } = made({ gate });
        if (!isTold) outlet.onlyTokens();
        outlet.ready(() => {});
        expect([feed.startedAt, gate.hasTicket]).toEqual([0, isTold]);
      }
    });
  });

  it('answers calls of next() in their order', async () => {
    const { outlet } = made();
    const both = Promise.all([outlet.next(), outlet.next(), outlet.next()]);
    outlet.token('a');
    outlet.token('b');
    expect(await both).toMatchObject([{ type: 'start' }, { value: 'a' }, { value: 'b' }]);
  });

  describe('.onStop()', () => {
    it('calls back when it is ended from outside, and not at its own end', () => {
      let stops = 0;
      const cancelled = made().outlet;
      cancelled.onStop(() => stops++);
      cancelled.end(CANCELLED);
      expect(stops).toBe(1);
      const whole = made().outlet;
      whole.onStop(() => stops++);
      whole.ended(COMPLETED);
      expect(whole.take()).toMatchObject({ type: 'done' });
      expect(stops).toBe(1);
    });
  });

  describe('.leave()', () => {
    it('leaves nothing to be read, be it ended before or not', async () => {
      for (const isEnded of [false, true]) {
        const { outlet } = made();
        outlet.token('a');
        if (isEnded) outlet.end(CANCELLED);
        outlet.leave({ outcome: 'disconnected', error: undefined });
        expect(await outlet.next()).toBeUndefined();
        expect(outlet.ending!.outcome).toBe(isEnded ? 'cancelled' : 'disconnected');
      }
    });
  });

  describe('.end()', () => {
    it('forgets what was to be told but the end, though the line goes on for others', () => {
      const { outlet } = made({ gate: new Line() });
      const [left, stays] = outlet.split(2);
      outlet.retire();
      stays!.ready(() => {});
      for (const branch of [left!, stays!]) branch.moved();
      left!.end(CANCELLED);
      expect([left!.take()?.type, left!.take()]).toEqual(['error', undefined]);
      expect(stays!.take()).toMatchObject({ type: 'position' });
    });

    it('is how it ended from then on, and once', () => {
      const { outlet } = made();
      expect(outlet.end(CANCELLED)).toBe(true);
      expect(outlet.end(COMPLETED)).toBe(false);
      expect(outlet.ending).toBe(CANCELLED);
    });

    it('takes the time of its end, not of when that is read; none where nothing began', async () => {
      const { outlet, clock, feed } = made({ limits: { teardownGraceMs: 1000 } });
      outlet.ready(() => {});
      await clock.advance(10);
      outlet.end(CANCELLED);
      await clock.advance(10);
      expect(outlet.take()).toMatchObject({ type: 'error' });
      await clock.advance(1000);
      expect(await outlet.finished).toMatchObject({ ...CANCELLED, elapsedMs: 10, tokens: 0 });
      expect(feed.figures.abandoned).toBe(true);

      const unread = made();
      await unread.clock.advance(10);
      unread.outlet.end(CANCELLED);
      expect(await unread.outlet.finished).toMatchObject({ elapsedMs: 0, tokens: 0 });
    });
  });

  describe('.split()', () => {
    it('gives outlets that have ended where it has', () => {
      const { outlet } = made();
      outlet.end(CANCELLED);
      const branches = outlet.split(2);
      expect(branches.map(({ ending }) => ending)).toEqual([CANCELLED, CANCELLED]);
      expect(branches.map((branch) => branch.take()?.type)).toEqual(['error', 'error']);
    });
  });

  describe('.retire()', () => {
    it('lets it tell how all went, once all has gone', async () => {
      const { outlet, feed } = made({ origin: { index: 0 } });
      outlet.retire();
      expect(outlet.buffered).toBe(0);
      feed.stop(CANCELLED);
      expect(await outlet.finished).toMatchObject({ ...CANCELLED, tokens: 0 });
    });

    it('changes nothing about one that has ended', async () => {
      const { outlet } = made({ origin: { index: 0 } });
      outlet.take();
      outlet.end(CANCELLED);
      outlet.retire();
      expect(await outlet.finished).toMatchObject({ ...CANCELLED, tokens: 1 });
    });
  });

  describe('whose reader does not read', () => {
    it('is let go of `stallMs` after the first that it could have read, be there more or not', async () => {
      const { outlet, clock } = made();
      outlet.token('a');
      await clock.advance(60);
      outlet.token('b');
      await clock.advance(39);
      expect(outlet.ending).toBeUndefined();
      await clock.advance(1);
      expect(outlet.ending).toMatchObject({ outcome: 'timeout', error: { phase: 'stall' } });
      expect(clock.timers).toBe(0);
    });

    it('has as long again whenever it has read something', async () => {
      const { outlet, clock } = made();
      outlet.token('a');
      outlet.token('b');
      await clock.advance(60);
      expect(outlet.take()).toMatchObject({ value: 'a' });
      await clock.advance(99);
      expect(outlet.ending).toBeUndefined();
      await clock.advance(1);
      expect(outlet.ending).toMatchObject({ outcome: 'timeout' });
    });

    it('has all the time while there is nothing to read', async () => {
      const { outlet, clock } = made();
      outlet.token('a');
      outlet.take();
      await clock.advance(1000);
      expect(outlet.ending).toBeUndefined();
      outlet.token('b');
      await clock.advance(99);
      expect(outlet.ending).toBeUndefined();
      await clock.advance(1);
      expect(outlet.ending).toMatchObject({ outcome: 'timeout' });
    });

    it('is let go of from the first, where it begins with tokens', async () => {
      const { outlet, clock } = made({ origin: {} });
      await clock.advance(100);
      expect(outlet.ending).toMatchObject({ outcome: 'timeout', error: { phase: 'stall' } });
    });

    it('is let go of for tokens alone, where it wants nothing else', async () => {
      const tokens = made({ origin: { isStartDue: true } });
      tokens.outlet.onlyTokens();
      expect(tokens.outlet.take()).toMatchObject({ type: 'token' });
      await tokens.clock.advance(100);
      expect(tokens.outlet.ending).toMatchObject({ outcome: 'timeout', error: { phase: 'stall' } });

      const untouched = made({ origin: { isStartDue: true } });
      untouched.outlet.onlyTokens();
      await untouched.clock.advance(100);
      expect(untouched.outlet.ending).toMatchObject({ outcome: 'timeout' });

      const none = made({ origin: { isStartDue: true, hasMoved: true, tokens: [] } });
      none.outlet.onlyTokens();
      await none.clock.advance(1000);
      expect([none.outlet.take(), none.outlet.ending]).toEqual([undefined, undefined]);
    });

    it('has no timer once it has ended, though the end was not read', async () => {
      const { outlet, clock } = made();
      outlet.token('a');
      expect(clock.timers).toBe(1);
      outlet.end(CANCELLED);
      outlet.moved();
      await settle();
      expect(clock.timers).toBe(0);
    });
  });

  describe('tells of an error', () => {
    const told = (ending: Ending, limits: Partial<OutletSettings> = {}): unknown => {
      const { outlet } = made({ limits });
      outlet.end(ending);
      return outlet.take();
    };

    it('of this library all, and when to come again where that is known', () => {
      const full = new QueueFullError({ waiting: 1, maxWaiting: 1, retryAfterMs: 10 });
      expect(told({ outcome: 'failed', error: full })).toStrictEqual({
        type: 'error',
        code: 'ERR_QUEUE_FULL',
        message: full.message,
        retryAfterMs: 10,
      });
      const late = new WaitTimeoutError(10);
      expect(told({ outcome: 'timeout', error: late })).toStrictEqual({
        type: 'error',
        code: 'ERR_WAIT_TIMEOUT',
        message: late.message,
      });
    });

    it.each<[Ending['outcome'], string, string]>([
      ['failed', 'ERR_STREAM_FAILED', 'The stream failed.'],
      ['timeout', 'ERR_STREAM_TIMEOUT', 'The stream was ended: it took too long.'],
      ['cancelled', 'ERR_STREAM_CANCELLED', 'The stream was cancelled.'],
      ['disconnected', 'ERR_STREAM_CANCELLED', 'The stream was cancelled.'],
    ])('of others no more than that it %s', (outcome, code, message) => {
      const error = Object.assign(new Error('secret'), { code: 'SECRET' });
      expect(told({ outcome, error })).toStrictEqual({ type: 'error', code, message });
    });

    it('of others what it says, where errors may be shown, and a code that is text', () => {
      const shown = (error: unknown): unknown =>
        told({ outcome: 'failed', error }, { exposeErrors: true });
      const error = new Error('broken');
      const event = { type: 'error', code: 'ERR_STREAM_FAILED', message: 'broken' };
      expect(shown(error)).toStrictEqual(event);
      expect(shown(Object.assign(new Error('broken'), { code: 7 }))).toStrictEqual(event);
      expect(shown(Object.assign(new Error('broken'), { code: 'E7' }))).toStrictEqual({
        ...event,
        code: 'E7',
      });
      const nothing = { ...event, message: 'The stream failed.' };
      expect(shown('a string')).toStrictEqual(nothing);
      const revoked = Proxy.revocable({}, {});
      revoked.revoke();
      expect(shown(revoked.proxy)).toStrictEqual(nothing);
    });
  });
});
