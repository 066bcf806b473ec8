import { fc, test } from '@fast-check/vitest';
import { type ResourceHandle, SharedResource } from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect } from 'vitest';

class Model {
  users = 0;
  disposals = 0;
  readonly disposing = Promise.withResolvers<void>();
}

interface Caller {
  readonly controller: AbortController;
  state: 'waiting' | 'using' | 'settled';
  handle: ResourceHandle<Model> | undefined;
  settlements: number;
}

const nth = fc.nat(30);
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('acquire' as const),
      ms: fc.constantFrom(5, 50, Infinity),
    }),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('release' as const), i: nth }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('abort' as const), i: nth }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('loaded' as const), ok: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('dispose' as const), ok: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 30 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('cancel' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('reload' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('preload' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('configure' as const),
      maxUsers: fc.integer({ min: 1, max: 5 }),
    }),
  },
);

describe('SharedResource', () => {
  test.prop([fc.array(step, { maxLength: 80 }), fc.boolean(), fc.integer({ min: 1, max: 4 })], {
    numRuns: 500,
  })(
    'L1-L4 hold under failing, late and cancelled loads, reloads, aborts and timeouts',
    async (steps, hasFallback, initialMaxUsers) => {
      const clock = new ManualClock();
      let maxUsers = initialMaxUsers;
      const loads: PromiseWithResolvers<Model>[] = [];
      const models: Model[] = [];
      const disposing: Model[] = [];
      const callers: Caller[] = [];
      const waiting: Caller[] = [];
      const passengers: { settlements: number }[] = [];
      let running = 0;
      let usedAtDisposal = 0;

      const load = async (): Promise<Model> => {
        running++;
        const pending = Promise.withResolvers<Model>();
        loads.push(pending);
        try {
          const model = await pending.promise;
          models.push(model);
          return model;
        } finally {
          running--;
        }
      };
      const resource = new SharedResource<Model>({
        load,
        ...(hasFallback && { fallback: load }),
        dispose: (model) => {
          usedAtDisposal += model.users;
          model.disposals++;
          disposing.push(model);
          return model.disposing.promise;
        },
        maxUsers,
        loadTimeoutMs: 40,
        clock,
      });

      const acquire = (ms: number): void => {
        const controller = new AbortController();
        const caller: Caller = { controller, state: 'waiting', handle: undefined, settlements: 0 };
        callers.push(caller);
        waiting.push(caller);
        const leave = (): void => {
          caller.settlements++;
          const index = waiting.indexOf(caller);
          if (index >= 0) waiting.splice(index, 1);
        };
        resource.acquire({ waitTimeoutMs: ms, signal: controller.signal }).then(
          (handle) => {
            expect(waiting[0], 'L3 first come, first served').toBe(caller);
            leave();
            expect(handle.resource.disposals, 'L2 nobody gets what is disposed of').toBe(0);
            handle.resource.users++;
            Object.assign(caller, { state: 'using', handle });
          },
          () => {
            leave();
            caller.state = 'settled';
          },
        );
      };
      const board = (promise: Promise<void>): void => {
        const passenger = { settlements: 0 };
        passengers.push(passenger);
        const count = (): void => void passenger.settlements++;
        promise.then(count, count);
      };
      const release = (caller: Caller): void => {
        if (caller.state !== 'using') return;
        caller.state = 'settled';
        caller.handle!.resource.users--;
        expect(caller.handle!.release()).toBe(true);
      };
      const finishLoad = (ok: boolean): void => {
        const pending = loads.shift();
        if (ok) pending?.resolve(new Model());
        else pending?.reject(new Error('load'));
      };
      const finishDispose = (ok: boolean): void => {
        const model = disposing.shift();
        if (ok) model?.disposing.resolve();
        else model?.disposing.reject(new Error('dispose'));
      };

      let wasActive = 0;
      const check = (): void => {
        const { active, loaded, loading } = resource.stats();
        const using = callers.filter(({ state }) => state === 'using').length;
        expect(active).toBe(using);
        expect(resource.waiting).toBe(waiting.length);
        expect(running, 'L1 one load at a time').toBeLessThanOrEqual(1);
        const gone = models.filter((model) => model.disposals > 0 && !disposing.includes(model));
        const alive = models.length - gone.length;
        expect(alive + running, 'L1 one beside the one in service').toBeLessThanOrEqual(2);
        for (const model of models) expect(model.disposals, 'L2').toBeLessThanOrEqual(1);
        expect(usedAtDisposal, 'L2 nobody uses what is disposed of').toBe(0);
        expect(active, 'L3').toBeLessThanOrEqual(Math.max(maxUsers, wasActive));
        wasActive = active;
        if (waiting.length > 0 && loaded) {
          expect(active, 'L3 who waits, waits for room').toBeGreaterThanOrEqual(maxUsers);
        }
        if (waiting.length > 0 && !loaded) expect(loading, 'L3 or for a load').toBe(true);
        if (loading) expect(running + alive, 'L3 that has begun or will').toBeGreaterThan(0);
        for (const { state, settlements } of callers) {
          expect(settlements, 'L4').toBe(state === 'waiting' ? 0 : 1);
        }
      };

      for (const todo of steps) {
        const caller = 'i' in todo ? callers[todo.i % Math.max(callers.length, 1)] : undefined;
        switch (todo.do) {
          case 'acquire': {
            acquire(todo.ms);
            break;
          }
          case 'release': {
            if (caller !== undefined) release(caller);
            break;
          }
          case 'abort': {
            caller?.controller.abort();
            break;
          }
          case 'loaded': {
            finishLoad(todo.ok);
            break;
          }
          case 'dispose': {
            finishDispose(todo.ok);
            break;
          }
          case 'pass': {
            await clock.advance(todo.ms);
            break;
          }
          case 'cancel': {
            const { loading } = resource.stats();
            expect(resource.cancelLoading()).toBe(loading);
            break;
          }
          case 'reload': {
            board(resource.reload());
            break;
          }
          case 'preload': {
            board(resource.preload());
            break;
          }
          case 'configure': {
            ({ maxUsers } = todo);
            resource.configure({ maxUsers });
            break;
          }
        }
        await settle();
        check();
      }

      let closed = false;
      void resource.close().then(() => (closed = true));
      await settle();
      for (const caller of callers) release(caller);
      for (let i = 0; i < 5; i++) {
        finishLoad(i % 2 === 0);
        await settle();
        while (disposing.length > 0) finishDispose(true);
        await settle();
      }
      check();
      expect(closed, 'everything is gone').toBe(true);
      expect(running).toBe(0);
      for (const model of models) expect(model.disposals, 'L2 disposed of once').toBe(1);
      for (const { settlements } of callers) expect(settlements, 'L4 everybody settled').toBe(1);
      for (const { settlements } of passengers) expect(settlements).toBe(1);
      expect(clock.timers).toBe(0);
    },
  );
});
