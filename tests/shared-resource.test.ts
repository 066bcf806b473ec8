import { AsyncLocalStorage } from 'node:async_hooks';

import {
  ClosedError,
  compose,
  Keyed,
  SessionManager,
  SharedResource,
  type SharedResourceEvents,
  type SharedResourceOptions,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { catchUncaught } from './support/uncaught.ts';

/** Something to load, that knows whether it was disposed of. */
class Model {
  disposed = 0;
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

/** A resource whose loads are settled by hand, in the order in which they were begun. */
function setUp(options: Partial<SharedResourceOptions<Model>> = {}): {
  clock: ManualClock;
  resource: SharedResource<Model>;
  loads: (PromiseWithResolvers<Model> & { signal: AbortSignal })[];
} {
  const clock = new ManualClock();
  const loads: (PromiseWithResolvers<Model> & { signal: AbortSignal })[] = [];
  const resource = new SharedResource<Model>({
    load: ({ signal }) => {
      const load = Object.assign(Promise.withResolvers<Model>(), { signal });
      loads.push(load);
      return load.promise;
    },
    dispose: (model) => {
      model.disposed++;
    },
    clock,
    ...options,
  });
  return { clock, resource, loads };
}

/** One that is loaded already. */
async function setUpLoaded(
  options: Partial<SharedResourceOptions<Model>> = {},
): Promise<ReturnType<typeof setUp> & { model: Model }> {
  const made = setUp(options);
  const model = new Model('first');
  const loaded = made.resource.preload();
  made.loads[0]?.resolve(model);
  await loaded;
  return { ...made, model };
}

function outcome(promise: Promise<unknown>): { state: string; value?: unknown } {
  const seen: { state: string; value?: unknown } = { state: 'pending' };
  promise.then(
    (value) => Object.assign(seen, { state: 'resolved', value }),
    (value: unknown) => Object.assign(seen, { state: 'rejected', value }),
  );
  return seen;
}

const never = (): Promise<never> => new Promise(() => {});

describe('SharedResource', () => {
  describe('constructor', () => {
    it.each([
      ['load', undefined],
      ['load', 1],
      ['fallback', 0],
      ['dispose', 'x'],
      ['maxUsers', 0],
      ['maxUsers', Infinity],
      ['accessTimeoutMs', -1],
      ['loadTimeoutMs', Number.NaN],
      ['loadGraceMs', -1],
      ['clock', {}],
    ])('refuses %s = %s by name', (name, value) => {
      expect(() => new SharedResource({ load: () => 1, [name]: value })).toThrow(
        new RegExp(`\`${name}`),
      );
    });

    it('refuses an option that it does not know, and loads nothing yet', () => {
      const load = vi.fn<() => number>();
      expect(() => new SharedResource({ load, users: 1 } as never)).toThrow(/"users"/);
      expect(new SharedResource({ load }).stats()).toMatchObject({ loaded: false, loading: false });
      expect(load).not.toHaveBeenCalled();
    });
  });

  describe('.run()', () => {
    it('loads at the first use, once for everybody, and serves them in order (H274)', async () => {
      const { resource, loads } = setUp({ maxUsers: 1000 });
      const order: number[] = [];
      const model = new Model('m');
      const uses = Array.from({ length: 1000 }, (_, i) =>
        resource.run(({ resource: given }) => {
          expect(given).toBe(model);
          order.push(i);
          return i;
        }),
      );
      await settle();
      expect(loads).toHaveLength(1);
      expect(resource.stats()).toMatchObject({ waiting: 1000, active: 0, loading: true });
      loads[0]!.resolve(model);
      await expect(Promise.all(uses)).resolves.toEqual(order);
      expect(order).toEqual(Array.from({ length: 1000 }, (_, i) => i));
      await resource.run(() => {});
      expect(loads).toHaveLength(1);
      expect(resource.stats()).toMatchObject({ acquired: 1001, released: 1001, loads: 1 });
    });

    it('lets maxUsers in at a time, in order', async () => {
      const { resource } = await setUpLoaded({ maxUsers: 2 });
      const gates = Array.from({ length: 4 }, () => Promise.withResolvers<void>());
      const started: number[] = [];
      const uses = gates.map(({ promise }, i) =>
        resource.run(() => {
          started.push(i);
          return promise;
        }),
      );
      await settle();
      expect(started).toEqual([0, 1]);
      gates[1]!.resolve();
      await settle();
      expect(started).toEqual([0, 1, 2]);
      for (const { resolve } of gates) resolve();
      await Promise.all(uses);
      expect(started).toEqual([0, 1, 2, 3]);
      expect(resource.active).toBe(0);
    });

    it('settles as the use does, and counts it until then', async () => {
      const { resource } = await setUpLoaded();
      const reason = new Error('no');
      await expect(resource.run(() => Promise.reject(reason))).rejects.toBe(reason);
      await expect(
        resource.run(() => {
          throw reason;
        }),
      ).rejects.toBe(reason);
      await expect(resource.run(() => 7)).resolves.toBe(7);
      expect(resource.active).toBe(0);
    });

    it('rejects, and never throws, on bad arguments', async () => {
      const { resource, loads } = setUp();
      await expect(resource.run(undefined as never)).rejects.toThrow(/`use`/);
      await expect(resource.run(never, { waitTimeoutMs: -1 })).rejects.toThrow(/`waitTimeoutMs`/);
      await expect(resource.run(never, { runTimeoutMs: Number.NaN })).rejects.toThrow(
        /`runTimeoutMs`/,
      );
      await expect(resource.run(never, { signal: {} as never })).rejects.toThrow(/`signal`/);
      await expect(resource.acquire({ runTimeoutMs: 1 } as never)).rejects.toThrow(
        /Unknown option/,
      );
      expect(loads).toHaveLength(0);
      expect(resource.waiting).toBe(0);
    });

    it('leaves the line at accessTimeoutMs or waitTimeoutMs, while the load goes on', async () => {
      const { clock, resource, loads } = setUp({ accessTimeoutMs: 100 });
      const byDefault = outcome(resource.run(never));
      const own = outcome(resource.run(never, { waitTimeoutMs: 50 }));
      const patient = resource.run(() => 'served', { waitTimeoutMs: Infinity });
      await clock.advance(50);
      expect(own.value).toMatchObject({ code: 'ERR_WAIT_TIMEOUT', waitedMs: 50 });
      expect(byDefault.state).toBe('pending');
      await clock.advance(50);
      expect(byDefault.value).toMatchObject({ code: 'ERR_WAIT_TIMEOUT', waitedMs: 100 });
      expect(loads[0]!.signal.aborted).toBe(false);
      loads[0]!.resolve(new Model('m'));
      await expect(patient).resolves.toBe('served');
    });

    it('does not begin a load for who would not wait', async () => {
      const { resource, loads } = setUp();
      await expect(resource.run(never, { waitTimeoutMs: 0 })).rejects.toMatchObject({
        code: 'ERR_WAIT_TIMEOUT',
        waitedMs: 0,
      });
      expect(loads).toHaveLength(0);
    });

    it('leaves the line when the signal is aborted, and does not begin where it is already', async () => {
      const { resource, loads } = setUp();
      const controller = new AbortController();
      const waiting = outcome(resource.run(never, { signal: controller.signal }));
      const reason = new Error('gone');
      controller.abort(reason);
      await settle();
      expect(waiting).toEqual({ state: 'rejected', value: reason });
      expect(resource.waiting).toBe(0);
      await expect(resource.run(never, { signal: controller.signal })).rejects.toBe(reason);
      expect(loads).toHaveLength(1);
    });

    it('does not call the use where the signal was aborted between its turn and now', async () => {
      const { resource, loads } = setUp();
      const controller = new AbortController();
      const use = vi.fn<() => void>();
      const waiting = resource.run(use, { signal: controller.signal });
      resource.on('acquired', () => controller.abort(new Error('gone')));
      loads[0]!.resolve(new Model('m'));
      await expect(waiting).rejects.toThrow('gone');
      expect(use).not.toHaveBeenCalled();
      expect(resource.active).toBe(0);
    });

    it('answers at once when a use is aborted or out of time, and counts it until it settles', async () => {
      const { clock, resource } = await setUpLoaded({ maxUsers: 2 });
      const controller = new AbortController();
      const holds = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const signals: AbortSignal[] = [];
      const use =
        (i: number) =>
        ({ signal }: { signal: AbortSignal }): Promise<void> => {
          signals.push(signal);
          return holds[i]!.promise;
        };
      const aborted = outcome(resource.run(use(0), { signal: controller.signal }));
      const late = outcome(resource.run(use(1), { runTimeoutMs: 10 }));
      controller.abort('gone');
      await clock.advance(10);
      expect(aborted.value).toBe('gone');
      expect(late.value).toMatchObject({ code: 'ERR_RUN_TIMEOUT' });
      expect(signals.map(({ reason }) => reason as unknown)).toEqual(['gone', late.value]);
      expect(resource.active).toBe(2);
      for (const { resolve } of holds) resolve();
      await settle();
      expect(resource.active).toBe(0);
    });

    it('counts a use no longer than graceMs after its abort', async () => {
      const { clock, resource } = await setUpLoaded({ maxUsers: 1 });
      const overran = vi.fn<(event: SharedResourceEvents['overrun']) => void>();
      resource.on('overrun', overran);
      const late = outcome(resource.run(never, { runTimeoutMs: 10, graceMs: 5 }));
      const next = resource.run(() => 'next');
      await clock.advance(14);
      expect(late.state).toBe('rejected');
      expect(overran).not.toHaveBeenCalled();
      await clock.advance(1);
      await expect(next).resolves.toBe('next');
      expect(overran).toHaveBeenCalledWith({ id: 1, ranMs: 15, active: 1, waiting: 1 });
      expect(resource.stats().overrun).toBe(1);
    });

    it('gives its full grace to a use that another one interrupts at its own timeout', async () => {
      const { clock, resource } = await setUpLoaded();
      const controller = new AbortController();
      const first = outcome(
        resource.run(
          ({ signal }) => {
            signal.addEventListener('abort', () => controller.abort('by the first'));
            return never();
          },
          { runTimeoutMs: 10 },
        ),
      );
      const second = outcome(
        resource.run(never, { runTimeoutMs: 10, graceMs: 100, signal: controller.signal }),
      );
      await clock.advance(10);
      expect(first.value).toMatchObject({ code: 'ERR_RUN_TIMEOUT' });
      expect(second.value).toBe('by the first');
      expect(resource.stats()).toMatchObject({ active: 2, overrun: 0 });
      await clock.advance(100);
      expect(resource.stats()).toMatchObject({ active: 1, overrun: 1 });
    });

    it('calls the use in the context of its caller, and the load in that of nobody', async () => {
      const storage = new AsyncLocalStorage<string>();
      const seen: [string, string | undefined][] = [];
      const note = (what: string): void => void seen.push([what, storage.getStore()]);
      const { resource } = setUp({
        load: async () => {
          note('load');
          await settle();
          note('load, later');
          return new Model('m');
        },
        dispose: () => note('dispose'),
        maxUsers: 1,
      });
      const uses = ['a', 'b'].map((caller) =>
        storage.run(caller, () => resource.run(() => note(`use by ${caller}`))),
      );
      await Promise.all(uses);
      await storage.run('closer', () => resource.close());
      expect(seen).toEqual([
        ['load', undefined],
        ['load, later', undefined],
        ['use by a', 'a'],
        ['use by b', 'b'],
        ['dispose', undefined],
      ]);
    });

    it('lets a newcomer not get in front of those who wait', async () => {
      const { resource } = await setUpLoaded({ maxUsers: 1 });
      const handle = await resource.acquire();
      const order: string[] = [];
      const waiting = resource.run(() => order.push('waiting'));
      resource.once('released', () => void resource.run(() => order.push('newcomer')));
      handle.release();
      await waiting;
      await settle();
      expect(order.slice(0, 2)).toEqual(['waiting', 'newcomer']);
    });
  });

  describe('.acquire()', () => {
    it('holds the resource until it is released, once', async () => {
      const { resource, model } = await setUpLoaded();
      const handle = await resource.acquire();
      expect(handle.resource).toBe(model);
      expect([handle.released, resource.active]).toEqual([false, 1]);
      expect(handle.release()).toBe(true);
      expect(handle.release()).toBe(false);
      expect([handle.released, resource.active]).toEqual([true, 0]);
    });

    it('is released at the end of a `using` block', async () => {
      const { resource } = await setUpLoaded();
      {
        using handle = await resource.acquire();
        expect(handle.released).toBe(false);
      }
      expect(resource.active).toBe(0);
    });
  });

  describe('a load that fails', () => {
    it('rejects everybody who waited with what it failed of, and the next caller tries again (H274)', async () => {
      const { resource, loads } = setUp();
      const reason = new Error('no memory');
      const waiting = [outcome(resource.run(never)), outcome(resource.acquire())];
      const preloading = outcome(resource.preload());
      loads[0]!.reject(reason);
      await settle();
      for (const { value } of [...waiting, preloading]) expect(value).toBe(reason);
      expect(resource.stats()).toMatchObject({ waiting: 0, loading: false, loadFailures: 1 });
      const next = resource.run(({ resource: model }) => model.name);
      loads[1]!.resolve(new Model('second'));
      await expect(next).resolves.toBe('second');
    });

    it('does so when it throws at once (H274)', async () => {
      const { resource } = setUp({
        load: () => {
          throw new Error('no');
        },
      });
      await expect(resource.run(never)).rejects.toThrow('no');
      await expect(resource.preload()).rejects.toThrow('no');
      expect(resource.stats()).toMatchObject({ waiting: 0, loads: 2 });
    });

    it('is followed by the fallback, which is told the cause', async () => {
      const reason = new Error('no memory');
      const causes: unknown[] = [];
      const { resource, loads } = setUp({
        fallback: ({ cause, signal }) => {
          causes.push(cause, signal.aborted);
          return new Model('small');
        },
      });
      const use = resource.run(({ resource: model }) => model.name);
      loads[0]!.reject(reason);
      await expect(use).resolves.toBe('small');
      expect(causes).toEqual([reason, false]);
      expect(resource.stats()).toMatchObject({ loads: 2, loadFailures: 1, loaded: true });
    });

    it('rejects with its own reason when the fallback fails as well', async () => {
      const failed: unknown[] = [];
      const reason = new Error('load');
      const { resource, loads } = setUp({ fallback: () => Promise.reject(new Error('fallback')) });
      resource.on('loadFailed', ({ error, fallback }) => failed.push([error, fallback]));
      const use = outcome(resource.run(never));
      loads[0]!.reject(reason);
      await settle();
      expect(use.value).toBe(reason);
      expect(failed).toEqual([
        [reason, false],
        [new Error('fallback'), true],
      ]);
      const next = resource.run(({ resource: model }) => model.name);
      loads[1]!.resolve(new Model('second'));
      await expect(next).resolves.toBe('second');
    });

    it('lets callers who come between the two wait for the fallback', async () => {
      const hold = Promise.withResolvers<Model>();
      const { resource, loads } = setUp({ fallback: () => hold.promise });
      const early = resource.run(({ resource: model }) => model.name);
      loads[0]!.reject(new Error('no'));
      await settle();
      const late = resource.run(({ resource: model }) => model.name);
      const preloading = resource.preload();
      hold.resolve(new Model('small'));
      await expect(Promise.all([early, late, preloading])).resolves.toEqual([
        'small',
        'small',
        undefined,
      ]);
      expect(resource.stats().loads).toBe(2);
    });
  });

  describe('a load that is out of time', () => {
    it.each([
      [4.5, 5, 'ERR_LOAD_TIMEOUT'],
      [5, 4.5, 'ERR_WAIT_TIMEOUT'],
    ])(
      'that ends after %d ms comes in order with waits that end after %d, though one timer tells of both (H081)',
      async (loadTimeoutMs, accessTimeoutMs, code) => {
        const { clock, resource } = setUp({ loadTimeoutMs, accessTimeoutMs });
        const waiting = outcome(resource.acquire());
        await clock.advance(5);
        expect(waiting.value).toMatchObject({ code });
        expect(resource.waiting).toBe(0);
      },
    );

    it('answers each once of those whose own time is over at the same instant as the load’s', async () => {
      const { clock, resource } = setUp({ loadTimeoutMs: 10 });
      const codes: unknown[] = [];
      const wait = (waitTimeoutMs: number): void =>
        void resource.acquire({ waitTimeoutMs }).catch(({ code }) => codes.push(code));
      wait(10);
      await clock.advance(4);
      wait(6);
      await clock.advance(6);
      expect(codes).toEqual(['ERR_WAIT_TIMEOUT', 'ERR_LOAD_TIMEOUT']);
      expect(resource.stats()).toMatchObject({ waiting: 0, timedOut: 1, cancelled: 1 });
    });

    it('rejects everybody with an ERR_LOAD_TIMEOUT of their own and aborts its signal (H274)', async () => {
      const { clock, resource, loads } = setUp({ loadTimeoutMs: 100, accessTimeoutMs: 1000 });
      const uses = [outcome(resource.run(never)), outcome(resource.run(never))];
      await clock.advance(99);
      expect(uses[0]!.state).toBe('pending');
      await clock.advance(1);
      for (const { value } of uses) {
        expect(value).toMatchObject({ code: 'ERR_LOAD_TIMEOUT', timeoutMs: 100 });
      }
      expect(uses[0]!.value).not.toBe(uses[1]!.value);
      expect(loads[0]!.signal.reason).toMatchObject({ code: 'ERR_LOAD_TIMEOUT' });
      expect(resource.stats()).toMatchObject({ loading: false, loadFailures: 1 });
    });

    it('holds the next one back until it has settled, and disposes of what it brings (H275)', async () => {
      const { clock, resource, loads } = setUp({ loadTimeoutMs: 100 });
      const late = new Model('late');
      void outcome(resource.run(never));
      await clock.advance(100);
      const next = resource.run(({ resource: model }) => model.name);
      await settle();
      expect(loads).toHaveLength(1);
      loads[0]!.resolve(late);
      await settle();
      expect(late.disposed).toBe(1);
      expect(loads).toHaveLength(2);
      loads[1]!.resolve(new Model('second'));
      await expect(next).resolves.toBe('second');
    });

    it('is followed by the fallback when it has settled', async () => {
      const { clock, resource, loads } = setUp({
        loadTimeoutMs: 100,
        fallback: () => new Model('small'),
      });
      const use = resource.run(({ resource: model }) => model.name);
      await clock.advance(100);
      expect(resource.stats()).toMatchObject({ waiting: 1, loading: true, loads: 1 });
      loads[0]!.reject(new Error('aborted'));
      await expect(use).resolves.toBe('small');
    });

    it('holds nothing back for longer than loadGraceMs, and is still disposed of', async () => {
      const { clock, resource, loads } = setUp({
        loadTimeoutMs: 100,
        loadGraceMs: 50,
        fallback: () => new Model('small'),
      });
      const overran = vi.fn<(event: SharedResourceEvents['loadOverrun']) => void>();
      resource.on('loadOverrun', overran);
      const use = resource.run(({ resource: model }) => model.name);
      await clock.advance(149);
      expect(resource.stats().loads).toBe(1);
      await clock.advance(1);
      await expect(use).resolves.toBe('small');
      expect(overran).toHaveBeenCalledWith({ ranMs: 150 });
      const late = new Model('late');
      loads[0]!.resolve(late);
      await settle();
      expect(late.disposed).toBe(1);
      await expect(resource.run(({ resource: model }) => model.name)).resolves.toBe('small');
      expect(clock.timers).toBe(0);
    });
  });

  describe('a load that settles after its grace', () => {
    it('does not make room for one more beside the next', async () => {
      const { clock, resource, loads } = setUp({ loadTimeoutMs: 100, loadGraceMs: 50 });
      void outcome(resource.run(never));
      await clock.advance(150);
      const next = resource.preload();
      const reloading = resource.reload();
      expect(loads).toHaveLength(2);
      loads[0]!.reject(new Error('late'));
      await settle();
      expect(loads).toHaveLength(2);
      loads[1]!.resolve(new Model('second'));
      await next;
      loads[2]!.resolve(new Model('third'));
      await reloading;
    });
  });

  describe('.cancelLoading()', () => {
    it('rejects everybody who waits with ERR_LOAD_CANCELLED and tries no fallback', async () => {
      const fallback = vi.fn<() => Model>();
      const { resource, loads } = setUp({ fallback });
      const waiting = [outcome(resource.run(never)), outcome(resource.preload())];
      expect(resource.cancelLoading()).toBe(true);
      expect(resource.cancelLoading()).toBe(false);
      await settle();
      for (const { value } of waiting) expect(value).toMatchObject({ code: 'ERR_LOAD_CANCELLED' });
      expect(loads[0]!.signal.reason).toMatchObject({ code: 'ERR_LOAD_CANCELLED' });
      expect(fallback).not.toHaveBeenCalled();
      const late = new Model('late');
      const next = resource.run(({ resource: model }) => model.name);
      loads[0]!.resolve(late);
      await settle();
      loads[1]!.resolve(new Model('second'));
      await expect(next).resolves.toBe('second');
      expect(late.disposed).toBe(1);
    });

    it('cancels a load that has not begun yet', async () => {
      const { resource, loads } = setUp();
      void outcome(resource.run(never));
      resource.cancelLoading();
      const waiting = outcome(resource.run(never));
      expect(resource.cancelLoading()).toBe(true);
      await settle();
      expect(waiting.value).toMatchObject({ code: 'ERR_LOAD_CANCELLED' });
      loads[0]!.reject(new Error('aborted'));
      await settle();
      expect(loads).toHaveLength(1);
    });

    it('cancels a load that waits until the last one is disposed of', async () => {
      const disposal = Promise.withResolvers<void>();
      const { resource, loads, model } = await setUpLoaded({ dispose: () => disposal.promise });
      const swapped = resource.reload();
      loads[1]!.resolve(new Model('second'));
      await swapped;
      const waiting = outcome(resource.reload());
      expect(resource.cancelLoading()).toBe(true);
      await settle();
      expect(waiting.value).toMatchObject({ code: 'ERR_LOAD_CANCELLED' });
      expect([model.name, loads.length, resource.cancelLoading()]).toEqual(['first', 2, false]);
      disposal.resolve();
      await settle();
      expect([loads.length, resource.stats().loaded]).toEqual([2, true]);
    });

    it('has nothing disposed of that fails when nobody waits for it any more', async () => {
      const disposed: unknown[] = [];
      const { resource, loads } = setUp({ dispose: (model) => void disposed.push(model) });
      const waiting = outcome(resource.preload());
      resource.cancelLoading();
      loads[0]!.reject(new Error('late'));
      await settle();
      expect(waiting.state).toBe('rejected');
      expect([disposed, resource.stats().disposed]).toEqual([[], 0]);
    });

    it('leaves no timer behind', async () => {
      const { clock, resource, loads } = setUp({ accessTimeoutMs: Infinity });
      void outcome(resource.run(never));
      expect(clock.timers).toBe(1);
      resource.cancelLoading();
      expect(clock.timers).toBe(0);
      loads[0]!.reject(new Error('aborted'));
      await settle();
      expect(clock.timers).toBe(0);
    });

    it('leaves a resource in service alone', async () => {
      const { resource, model } = await setUpLoaded();
      expect(resource.cancelLoading()).toBe(false);
      const reloading = outcome(resource.reload());
      expect(resource.cancelLoading()).toBe(true);
      await settle();
      expect(reloading.value).toMatchObject({ code: 'ERR_LOAD_CANCELLED' });
      await expect(resource.run(({ resource: given }) => given)).resolves.toBe(model);
    });
  });

  describe('.preload()', () => {
    it('loads what is not there and resolves at once for what is', async () => {
      const { resource, loads } = setUp();
      const preloading = Promise.all([resource.preload(), resource.preload()]);
      loads[0]!.resolve(new Model('m'));
      await preloading;
      await resource.preload();
      expect(loads).toHaveLength(1);
      expect(resource.stats()).toMatchObject({ active: 0, loaded: true });
    });
  });

  describe('.reload()', () => {
    it('swaps for those who come, and disposes of the old one after its last user (H284)', async () => {
      const { resource, loads, model } = await setUpLoaded();
      const [one, two] = [await resource.acquire(), await resource.acquire()];
      const reloading = resource.reload();
      const meanwhile = await resource.acquire();
      expect(meanwhile.resource).toBe(model);
      meanwhile.release();
      const second = new Model('second');
      loads[1]!.resolve(second);
      await reloading;
      expect((await resource.acquire()).resource).toBe(second);
      expect(one.resource).toBe(model);
      one.release();
      expect(model.disposed).toBe(0);
      two.release();
      await settle();
      expect(model.disposed).toBe(1);
      expect(second.disposed).toBe(0);
    });

    it('keeps the old one when the load fails, without a fallback, and says why', async () => {
      const fallback = vi.fn<() => Model>();
      const { resource, loads, model } = await setUpLoaded({ fallback });
      const reloading = outcome(resource.reload());
      const reason = new Error('no');
      loads[1]!.reject(reason);
      await settle();
      expect(reloading.value).toBe(reason);
      expect(fallback).not.toHaveBeenCalled();
      await expect(resource.run(({ resource: given }) => given)).resolves.toBe(model);
    });

    it('sends nobody away who waits for room, be it that it fails or is cancelled', async () => {
      const { resource, loads } = await setUpLoaded({ maxUsers: 1 });
      const handle = await resource.acquire();
      const waiting = resource.run(() => 'served');
      const failing = outcome(resource.reload());
      loads[1]!.reject(new Error('no'));
      await settle();
      const cancelled = outcome(resource.reload());
      resource.cancelLoading();
      await settle();
      expect([failing.state, cancelled.state]).toEqual(['rejected', 'rejected']);
      expect(resource.waiting).toBe(1);
      handle.release();
      await expect(waiting).resolves.toBe('served');
    });

    it('loads what is not there, with the fallback', async () => {
      const { resource, loads } = setUp({ fallback: () => new Model('small') });
      const reloading = resource.reload();
      loads[0]!.reject(new Error('no'));
      await reloading;
      await expect(resource.run(({ resource: model }) => model.name)).resolves.toBe('small');
    });

    it('follows a load that runs, once for all who ask meanwhile', async () => {
      const { resource, loads } = setUp();
      const first = resource.preload();
      const reloads = [resource.reload(), resource.reload()];
      loads[0]!.resolve(new Model('first'));
      await first;
      expect(loads).toHaveLength(2);
      loads[1]!.resolve(new Model('second'));
      await Promise.all(reloads);
      expect(loads).toHaveLength(2);
      await expect(resource.run(({ resource: model }) => model.name)).resolves.toBe('second');
    });

    it('follows a load that fails as well', async () => {
      const { resource, loads } = setUp();
      const first = outcome(resource.preload());
      const reloading = resource.reload();
      loads[0]!.reject(new Error('no'));
      await settle();
      expect(first.state).toBe('rejected');
      loads[1]!.resolve(new Model('second'));
      await reloading;
      expect(resource.stats().loaded).toBe(true);
    });

    it('waits until what was swapped out before is gone', async () => {
      const { resource, loads, model } = await setUpLoaded();
      const handle = await resource.acquire();
      const first = resource.reload();
      loads[1]!.resolve(new Model('second'));
      await first;
      const both = [resource.reload(), resource.reload()];
      await settle();
      expect(loads).toHaveLength(2);
      expect(resource.stats().loading).toBe(true);
      handle.release();
      await settle();
      expect(model.disposed).toBe(1);
      expect(loads).toHaveLength(3);
      loads[2]!.resolve(new Model('third'));
      await Promise.all(both);
      await settle();
      expect(loads).toHaveLength(3);
    });
  });

  describe('.configure()', () => {
    it('lets waiters in when maxUsers goes up, and nobody go when it goes down', async () => {
      const { resource } = await setUpLoaded({ maxUsers: 1 });
      const [one, two, three] = [resource.acquire(), resource.acquire(), resource.acquire()];
      resource.configure({ maxUsers: 2 });
      await Promise.all([one, two]);
      resource.configure({ maxUsers: 1 });
      expect(resource.stats()).toMatchObject({ active: 2, waiting: 1, maxUsers: 1 });
      (await one).release();
      expect(resource.waiting).toBe(1);
      (await two).release();
      (await three).release();
    });

    it('changes what the next load does, and disposes of each by its own', async () => {
      const { resource, model } = await setUpLoaded();
      const disposed: string[] = [];
      resource.configure({
        load: () => new Model('other'),
        dispose: ({ name }) => disposed.push(name),
      });
      await expect(resource.run(({ resource: given }) => given)).resolves.toBe(model);
      await resource.reload();
      await settle();
      expect(model.disposed).toBe(1);
      await resource.close();
      expect(disposed).toEqual(['other']);
    });

    it('changes the time limits', async () => {
      const { clock, resource } = setUp({ accessTimeoutMs: 1000 });
      resource.configure({ accessTimeoutMs: 10, loadTimeoutMs: 20 });
      const waiting = outcome(resource.run(never));
      const preloading = outcome(resource.preload());
      await clock.advance(10);
      expect(waiting.value).toMatchObject({ code: 'ERR_WAIT_TIMEOUT' });
      await clock.advance(10);
      expect(preloading.value).toMatchObject({ code: 'ERR_LOAD_TIMEOUT', timeoutMs: 20 });
    });

    it('leaves the load that runs its own time, and what is said of it', async () => {
      const { clock, resource } = setUp({ loadTimeoutMs: 100 });
      const preloading = outcome(resource.preload());
      resource.configure({ loadTimeoutMs: 20 });
      await clock.advance(99);
      expect(preloading.state).toBe('pending');
      await clock.advance(1);
      expect(preloading.value).toMatchObject({ code: 'ERR_LOAD_TIMEOUT', timeoutMs: 100 });
    });

    it('changes nothing where a value is bad', () => {
      const { resource } = setUp();
      expect(() => resource.configure({ maxUsers: 3, loadTimeoutMs: -1 })).toThrow(RangeError);
      expect(() => resource.configure({ maxUsers: 3, accessTimeoutMs: -1 })).toThrow(RangeError);
      expect(() => resource.configure({ maxUsers: 0, accessTimeoutMs: 1 })).toThrow(RangeError);
      expect(() => resource.configure({ maxUsers: 3, load: 1 as never })).toThrow(/`load`/);
      expect(() => resource.configure({ clock: {} } as never)).toThrow(/Unknown option/);
      expect(resource.stats().maxUsers).toBe(10);
    });
  });

  describe('.close()', () => {
    it('refuses new callers and who waits, waits for users, then disposes', async () => {
      const { resource, model } = await setUpLoaded({ maxUsers: 1 });
      const handle = await resource.acquire();
      const waiting = outcome(resource.run(never));
      const closing = outcome(resource.close());
      await settle();
      expect(waiting.value).toMatchObject({ code: 'ERR_CLOSED' });
      for (const act of [
        () => resource.run(never),
        () => resource.acquire(),
        () => resource.preload(),
        () => resource.reload(),
      ]) {
        await expect(act()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      }
      expect([closing.state, model.disposed]).toEqual(['pending', 0]);
      handle.release();
      await settle();
      expect([closing.state, model.disposed]).toEqual(['resolved', 1]);
      expect(resource.stats()).toMatchObject({ closed: true, loaded: false, active: 0 });
    });

    it('gives up a load and waits for what it brings (H275, H281)', async () => {
      const { resource, loads } = setUp();
      const waiting = outcome(resource.run(never));
      const preloading = outcome(resource.preload());
      const closing = outcome(resource.close());
      await settle();
      expect(loads[0]!.signal.reason).toMatchObject({ code: 'ERR_CLOSED' });
      for (const { value } of [waiting, preloading]) {
        expect(value).toMatchObject({ code: 'ERR_CLOSED' });
      }
      expect(closing.state).toBe('pending');
      const late = new Model('late');
      loads[0]!.resolve(late);
      await settle();
      expect([closing.state, late.disposed]).toEqual(['resolved', 1]);
    });

    it('waits until what a load brings too late is disposed of', async () => {
      const disposal = Promise.withResolvers<void>();
      const { resource, loads } = setUp({ dispose: () => disposal.promise });
      const waiting = outcome(resource.preload());
      const closing = outcome(resource.close());
      loads[0]!.resolve(new Model('late'));
      await settle();
      expect([waiting.value, closing.state]).toEqual([
        new ClosedError('The shared resource'),
        'pending',
      ]);
      disposal.resolve();
      await settle();
      expect(closing.state).toBe('resolved');
    });

    it('lets go of what needs no disposal', async () => {
      const { resource, model } = await setUpLoaded({ dispose: undefined });
      await resource.close();
      expect([model.disposed, resource.stats().disposed]).toEqual([0, 1]);
      expect(resource.stats().disposeFailures).toBe(0);
    });

    it('gives every call the same promise, and is what `await using` does', async () => {
      const { resource } = setUp();
      {
        await using used = resource;
        expect(used.stats().closed).toBe(false);
      }
      expect(resource.close()).toBe(resource.close());
      await resource.close();
      expect(resource.stats().closed).toBe(true);
    });

    it.each(['dispose', 'the abort of the load'])(
      'is one close, also where %s asks for another (H139)',
      async (what) => {
        const inner: Promise<void>[] = [];
        const close = (): void => void inner.push(resource.close());
        const { resource, loads } =
          what === 'dispose' ? await setUpLoaded({ dispose: close }) : setUp();
        if (what !== 'dispose') {
          void outcome(resource.preload());
          loads[0]!.signal.addEventListener('abort', () => {
            close();
            loads[0]!.reject(new Error('stopped'));
          });
        }
        let closed = 0;
        resource.on('closed', () => closed++);
        const outer = resource.close();
        await outer;
        await settle();
        expect(inner).toHaveLength(1);
        expect(inner[0]).toBe(outer);
        expect(closed).toBe(1);
      },
    );

    it('refuses what a user begins when the abort of the load reaches it', async () => {
      const { resource, loads } = setUp();
      void outcome(resource.run(never));
      let inner: { value?: unknown } | undefined;
      loads[0]!.signal.addEventListener('abort', () => {
        inner = outcome(resource.run(never));
      });
      void resource.close();
      await settle();
      expect(inner?.value).toMatchObject({ code: 'ERR_CLOSED' });
    });

    it('goes on where dispose fails, and says so', async () => {
      using uncaught = catchUncaught();
      const reason = new Error('stuck');
      const { resource } = await setUpLoaded({ dispose: () => Promise.reject(reason) });
      const failed = vi.fn<(event: SharedResourceEvents['disposeFailed']) => void>();
      resource.on('disposeFailed', failed);
      await resource.close();
      expect(failed).toHaveBeenCalledWith({ error: reason });
      expect(resource.stats()).toMatchObject({ disposed: 0, disposeFailures: 1 });
      expect(uncaught.rejections).toEqual([]);
    });
  });

  describe('events and stats', () => {
    it('tell what happens, in order', async () => {
      const { clock, resource, loads } = setUp({ maxUsers: 1 });
      const events: unknown[] = [];
      const names: (keyof SharedResourceEvents)[] = [
        'queued',
        'acquired',
        'released',
        'loading',
        'loaded',
        'disposed',
        'closed',
      ];
      for (const name of names) {
        resource.on(name, (event: SharedResourceEvents[typeof name]) => events.push([name, event]));
      }
      await clock.advance(1000);
      const use = resource.run(() => {});
      await clock.advance(25);
      loads[0]!.resolve(new Model('m'));
      await use;
      await resource.close();
      expect(events).toEqual([
        ['queued', { id: 1, active: 0, waiting: 1 }],
        ['loading', { fallback: false }],
        ['loaded', { loadMs: 25, fallback: false }],
        ['acquired', { id: 1, waitedMs: 25, active: 1, waiting: 0 }],
        ['released', { id: 1, active: 0, waiting: 0 }],
        ['disposed', { active: 0, waiting: 0 }],
        ['closed', { active: 0, waiting: 0 }],
      ]);
      expect(resource.stats()).toEqual({
        active: 0,
        waiting: 0,
        maxUsers: 1,
        loaded: false,
        loading: false,
        closed: true,
        lastAccessAt: 1025,
        acquired: 1,
        queued: 1,
        released: 1,
        refused: 0,
        cancelled: 0,
        timedOut: 0,
        overrun: 0,
        loads: 1,
        loadFailures: 0,
        loadOverruns: 0,
        disposed: 1,
        disposeFailures: 0,
        waitMs: { count: 1, mean: 25, max: 25 },
        loadMs: { count: 1, mean: 25, max: 25 },
      });
    });

    it('have a listener that throws change nothing', async () => {
      using uncaught = catchUncaught();
      const { resource, loads } = setUp();
      const reason = new Error('listener');
      for (const name of ['queued', 'loading', 'loaded', 'acquired', 'released'] as const) {
        resource.on(name, () => {
          throw reason;
        });
      }
      const use = resource.run(() => 1);
      loads[0]!.resolve(new Model('m'));
      await expect(use).resolves.toBe(1);
      await settle();
      expect(uncaught.exceptions).toEqual([reason, reason, reason, reason, reason]);
    });
  });

  describe('with others', () => {
    it('is a gate, and is observed by sessions', async () => {
      const { clock, resource, loads } = setUp();
      const sessions = new SessionManager({ clock });
      sessions.observe(resource);
      const gate = compose(sessions, resource);
      let id = '';
      const use = gate.run(({ session, resource: model }) => {
        ({ id } = session);
        return model.name;
      });
      await clock.advance(10);
      loads[0]!.resolve(new Model('m'));
      await expect(use).resolves.toBe('m');
      expect(sessions.record(id)!.phases).toMatchObject({ queued: 0, dequeued: 10, callStart: 10 });
    });

    it('is not forgotten by Keyed while something is loaded', async () => {
      const models = new Keyed((key) => new SharedResource({ load: () => key }), { maxKeys: 1 });
      await models.get('a').preload();
      expect(() => models.get('b')).toThrow(
        expect.objectContaining({ code: 'ERR_KEYS_FULL' }) as Error,
      );
      await models.get('a').close();
      await expect(models.get('b').run(({ resource }) => resource)).resolves.toBe('b');
    });
  });
});
