import { getEventListeners } from 'node:events';

import { LoadTimeoutError } from 'sluice';
import {
  type ResourceHandle,
  SharedResource,
  type SharedResourceEvents,
} from 'sluice/shared-resource';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, onTestFinished } from 'vitest';

import { optionNames } from '../src/internal/options.ts';

const NAMES = [
  'queued',
  'acquired',
  'released',
  'cancelled',
  'timedOut',
  'refused',
  'overrun',
  'loading',
  'loaded',
  'loadFailed',
  'loadOverrun',
  'disposed',
  'disposeFailed',
  'closed',
] as const satisfies (keyof SharedResourceEvents)[];

const never = (): Promise<never> => new Promise(() => {});
const ignore = (promise: Promise<unknown>): void => void promise.catch(() => undefined);

describe('SharedResource', () => {
  describe('events', () => {
    it('are told before the call that brings them about returns', async () => {
      const resource = new SharedResource({
        load: async () => 'model',
        maxUsers: 1,
        clock: new ManualClock(),
      });
      const events: string[] = [];
      for (const name of NAMES) resource.on(name, () => events.push(name));
      const told = (call: () => unknown): string => {
        call();
        return events.splice(0).join(' ');
      };
      const quitter = new AbortController();
      let handle!: Promise<ResourceHandle<string>>;
      expect(told(() => ignore(resource.preload()))).toBe('loading');
      expect(told(() => resource.cancelLoading())).toBe('');
      await settle();
      events.length = 0;
      expect(told(() => (handle = resource.acquire()))).toBe('queued loading');
      await settle();
      expect(events.splice(0).join(' ')).toBe('loaded acquired');
      expect(told(() => ignore(resource.run(never, { signal: quitter.signal })))).toBe('queued');
      expect(told(() => ignore(resource.acquire({ waitTimeoutMs: 0 })))).toBe('refused');
      expect(told(() => ignore(resource.run(never, { waitTimeoutMs: 0 })))).toBe('refused');
      expect(told(() => quitter.abort())).toBe('cancelled');
      expect(told(() => ignore(resource.run(never)))).toBe('queued');
      expect(told(() => resource.configure({ maxUsers: 2 }))).toBe('acquired');
      const held = await handle;
      expect(told(() => held.release())).toBe('released');
      expect(told(() => resource.run(never))).toBe('acquired');
      expect(told(() => ignore(resource.acquire()))).toBe('queued');
      expect(told(() => void resource.close())).toBe('cancelled');
      expect(told(() => void resource.close())).toBe('');
      expect(told(() => ignore(resource.run(never)))).toBe('refused');
    });
  });

  it('tells its story with ids, spans and the gauges after the change', async () => {
    const clock = new ManualClock();
    const after = (ms: number): Promise<void> =>
      new Promise((resolve) => clock.setTimeout(resolve, ms));
    let disposals = 0;
    const resource = new SharedResource({
      load: () => after(5).then(() => Promise.reject('no')),
      fallback: () => after(3).then(() => 'spare'),
      dispose: () => {
        if (disposals++ > 0) throw 'stuck';
      },
      maxUsers: 1,
      loadTimeoutMs: 50,
      loadGraceMs: 10,
      clock,
    });
    const events: [number, string, object][] = [];
    for (const name of NAMES) {
      resource.on(name, (payload) => events.push([clock.now(), name, payload]));
    }
    const held = resource.acquire();
    await clock.advance(10);
    ignore(resource.acquire({ waitTimeoutMs: 2 }));
    const quitter = new AbortController();
    ignore(resource.acquire({ signal: quitter.signal }));
    ignore(resource.acquire({ waitTimeoutMs: 0 }));
    await clock.advance(3);
    quitter.abort();
    (await held).release();
    ignore(resource.run(never, { runTimeoutMs: 1, graceMs: 1 }));
    await clock.advance(7);
    resource.configure({ load: async () => 'second', fallback: undefined });
    await resource.reload();
    resource.configure({ load: never });
    ignore(resource.reload());
    await clock.advance(60);
    await resource.close();
    const refusal = { code: 'ERR_WAIT_TIMEOUT', active: 1, waiting: 2 };
    expect(events).toEqual([
      [0, 'queued', { id: 1, active: 0, waiting: 1 }],
      [0, 'loading', { fallback: false }],
      [5, 'loadFailed', { error: 'no', loadMs: 5, fallback: false }],
      [5, 'loading', { fallback: true }],
      [8, 'loaded', { loadMs: 3, fallback: true }],
      [8, 'acquired', { id: 1, waitedMs: 8, active: 1, waiting: 0 }],
      [10, 'queued', { id: 2, active: 1, waiting: 1 }],
      [10, 'queued', { id: 3, active: 1, waiting: 2 }],
      [10, 'refused', refusal],
      [12, 'timedOut', { id: 2, waitedMs: 2, active: 1, waiting: 1 }],
      [13, 'cancelled', { id: 3, waitedMs: 3, active: 1, waiting: 0 }],
      [13, 'released', { id: 1, active: 0, waiting: 0 }],
      [13, 'acquired', { id: 4, waitedMs: 0, active: 1, waiting: 0 }],
      [15, 'overrun', { id: 4, ranMs: 2, active: 1, waiting: 0 }],
      [15, 'released', { id: 4, active: 0, waiting: 0 }],
      [20, 'loading', { fallback: false }],
      [20, 'loaded', { loadMs: 0, fallback: false }],
      [20, 'disposed', { active: 0, waiting: 0 }],
      [20, 'loading', { fallback: false }],
      [70, 'loadFailed', { error: new LoadTimeoutError(50), loadMs: 50, fallback: false }],
      [80, 'loadOverrun', { ranMs: 60 }],
      [80, 'disposeFailed', { error: 'stuck' }],
      [80, 'closed', { active: 0, waiting: 0 }],
    ]);
    expect(resource.stats()).toEqual({
      active: 0,
      waiting: 0,
      maxUsers: 1,
      loaded: false,
      loading: false,
      closed: true,
      lastAccessAt: 13,
      acquired: 2,
      queued: 3,
      released: 2,
      refused: 1,
      cancelled: 1,
      timedOut: 1,
      overrun: 1,
      loads: 4,
      loadFailures: 2,
      loadOverruns: 1,
      disposed: 1,
      disposeFailures: 1,
      waitMs: { count: 1, mean: 8, max: 8 },
      loadMs: { count: 2, mean: 1.5, max: 3 },
    });
  });

  it('says who is closed, to who waits and to who comes', async () => {
    const resource = new SharedResource({ load: never });
    const call = resource.acquire();
    void resource.close();
    await expect(call).rejects.toThrow('The shared resource is closed.');
    await expect(resource.acquire()).rejects.toThrow('The shared resource is closed.');
    await expect(resource.preload()).rejects.toThrow('The shared resource is closed.');
    await expect(resource.reload()).rejects.toThrow('The shared resource is closed.');
  });

  it('names the call that was given an option it does not know', async () => {
    const resource = new SharedResource({ load: never });
    const options = { load: never, mxaUsers: 1 } as never;
    expect(() => new SharedResource(options)).toThrow(/"mxaUsers" of SharedResource;/);
    await expect(resource.acquire(options)).rejects.toThrow(/"load" of acquire;/);
    await expect(resource.run(never, options)).rejects.toThrow(/"load" of run;/);
    expect(() => resource.configure(options)).toThrow(/"mxaUsers" of configure;/);
    await expect(resource.acquire({ graceMs: 1 } as never)).rejects.toThrow(/"graceMs"/);
  });

  it('names a bad setting, at first and later, and changes nothing then', async () => {
    const bad = [
      ['maxUsers', 0],
      ['accessTimeoutMs', -1],
      ['loadTimeoutMs', -1],
      ['fallback', 1],
      ['dispose', 1],
      ['load', 1],
    ] as const;
    const resource = new SharedResource({ load: async () => 1 });
    for (const [name, value] of bad) {
      const settings = { [name]: value } as never;
      expect(() => new SharedResource({ load: never, ...(settings as object) })).toThrow(
        `\`${name}\``,
      );
      expect(() => resource.configure(settings)).toThrow(`\`${name}\``);
    }
    for (const name of ['graceMs', 'runTimeoutMs', 'waitTimeoutMs']) {
      await expect(resource.run(never, { [name]: -1 })).rejects.toThrow(`\`${name}\``);
    }
    await expect(resource.run(5 as never)).rejects.toThrow('`use`');
    expect(resource.stats()).toMatchObject({ maxUsers: 10, refused: 0 });
  });

  it('refuses one whose signal is aborted, and leaves the signal of one who waited', async () => {
    const clock = new ManualClock();
    await clock.advance(100);
    const resource = new SharedResource({ load: never, clock });
    const refused: object[] = [];
    resource.on('refused', (event) => refused.push(event));
    await expect(resource.acquire({ signal: AbortSignal.abort('gone') })).rejects.toBe('gone');
    expect(refused).toEqual([{ code: undefined, active: 0, waiting: 0 }]);
    expect(resource.stats()).toMatchObject({ refused: 1, loads: 0 });
    const { signal } = new AbortController();
    const late = resource.acquire({ signal, waitTimeoutMs: 5 }).catch((error: unknown) => error);
    await clock.advance(5);
    expect(await late).toMatchObject({ code: 'ERR_WAIT_TIMEOUT', waitedMs: 5 });
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('has a signal for each use, and counts no overrun of one that has left by hand', async () => {
    const clock = new ManualClock();
    const resource = new SharedResource({ load: async () => 'model', maxUsers: 2, clock });
    expect(await resource.run(({ signal }) => signal.aborted)).toBe(false);
    const quitter = new AbortController();
    const reason = new Error('gone');
    ignore(
      resource.run(
        ({ signal }) => {
          signal.addEventListener('abort', () => quitter.abort(reason));
          return never();
        },
        { runTimeoutMs: 10 },
      ),
    );
    const options = { signal: quitter.signal, runTimeoutMs: 10 };
    const answer = resource.run(never, options).catch((error: unknown) => error);
    await clock.advance(10);
    expect(await answer).toBe(reason);
    expect(resource.stats()).toMatchObject({ overrun: 0, active: 2 });
  });

  it('looks for no option of a use in `Object.prototype`, where none are given', async () => {
    const resource = new SharedResource({ load: async () => 'model' });
    const prototype = Object.prototype as { waitTimeoutMs?: number };
    prototype.waitTimeoutMs = 0;
    onTestFinished(() => void delete prototype.waitTimeoutMs);
    expect(await resource.run((context) => context.resource)).toBe('model');
  });

  it('keeps its fallback unless another one is given, and lets nobody in by new settings', async () => {
    const fail = async (): Promise<string> => {
      throw new Error('no');
    };
    const resource = new SharedResource({ load: fail, fallback: async () => 'first' });
    const waiting = resource.run((context) => context.resource);
    resource.configure({ maxUsers: 5 });
    expect(resource.active).toBe(0);
    expect(await waiting).toBe('first');
    const other = new SharedResource({ load: fail, fallback: async () => 'first' });
    other.configure({ fallback: async () => 'second' });
    expect(await other.run((context) => context.resource)).toBe('second');
  });

  it('tells that a load is cancelled before cancelLoading() returns, and closes on disposal', async () => {
    const resource = new SharedResource({
      load: ({ signal }) =>
        new Promise<never>((_, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
        }),
    });
    const events: string[] = [];
    for (const name of NAMES) resource.on(name, () => events.push(name));
    ignore(resource.acquire());
    expect(resource.cancelLoading()).toBe(true);
    expect(events.slice(0, 3)).toEqual(['queued', 'loading', 'cancelled']);
    await resource[Symbol.asyncDispose]();
    expect(resource.stats().closed).toBe(true);
  });

  it('tells `compose` which options it knows', () => {
    expect([...new SharedResource({ load: never })[optionNames]].toSorted()).toEqual([
      'graceMs',
      'runTimeoutMs',
      'signal',
      'waitTimeoutMs',
    ]);
  });
});
