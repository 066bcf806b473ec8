import { AsyncLocalStorage } from 'node:async_hooks';
import { EventEmitter } from 'node:events';

import { fc, test } from '@fast-check/vitest';
import { AdmissionQueue, type OpenSession, type Session, SessionManager } from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect } from 'vitest';

const CLEANUP_TIMEOUT_MS = 10;
const HISTORY = 3;

/** Calls something as if from outside of all sessions. */
const outside = AsyncLocalStorage.snapshot();

type Status = 'active' | 'completed' | 'failed' | 'cancelled' | 'timedOut';
type Cleanup = 'works' | 'fails' | 'never ends';

/** What the manager has promised about one session, in the simplest words. */
class Model {
  status: Status = 'active';
  state: 'open' | 'stopping' | 'ending' | 'ended' = 'open';
  readonly cleanups: Cleanup[] = [];
  readonly byHand: boolean;
  readonly timeoutAt: number;
  graceUntil = Infinity;
  endsAt = Infinity;

  constructor(byHand: boolean, timeoutAt: number) {
    this.byHand = byHand;
    this.timeoutAt = timeoutAt;
  }

  /** Its task settles, or it is ended by hand. */
  over(ok: boolean, now: number): void {
    if (this.state === 'open') this.status = ok ? 'completed' : 'failed';
    if (this.state === 'open' || this.state === 'stopping') this.#cleanUp(now);
  }

  stop(status: Status, now: number, graceMs: number): void {
    if (this.state !== 'open') return;
    this.status = status;
    this.state = 'stopping';
    this.graceUntil = now + graceMs;
    if (this.byHand) this.#cleanUp(now);
  }

  /** Time has come to `now`. */
  pass(now: number, graceMs: number): void {
    if (this.state === 'open' && this.timeoutAt <= now) {
      this.stop('timedOut', this.timeoutAt, graceMs);
    }
    if (this.state === 'stopping' && this.graceUntil <= now) this.#cleanUp(this.graceUntil);
    if (this.state === 'ending' && this.endsAt <= now) this.state = 'ended';
  }

  #cleanUp(now: number): void {
    this.state = 'ending';
    const stuck = this.cleanups.filter((kind) => kind === 'never ends').length;
    this.endsAt = now + stuck * CLEANUP_TIMEOUT_MS;
    if (this.endsAt <= now) this.state = 'ended';
  }
}

interface Real {
  readonly id: string;
  readonly session: Session;
  readonly controller: AbortController;
  readonly calls: number[];
  readonly finish: (ok: boolean) => void;
}

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('begin' as const),
      byHand: fc.boolean(),
      timeoutMs: fc.constantFrom(5, 20, 50, Infinity),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('finish' as const), i: fc.nat(9), ok: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('abort' as const), i: fc.nat(9) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('defer' as const),
      i: fc.nat(9),
      kind: fc.constantFrom('works' as const, 'fails' as const, 'never ends' as const),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 15 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('shutdown' as const),
      drainMs: fc.constantFrom(0.5, 12.5),
    }),
  },
);

describe('SessionManager', () => {
  test.prop(
    [
      fc.array(step, { maxLength: 60 }),
      fc.constantFrom(2, 5, Infinity),
      fc.constantFrom(3, 25, Infinity),
    ],
    { numRuns: 300 },
  )(
    'M1, M3 does with every session what its model does (H285)',
    async (steps, maxActive, graceMs) => {
      const clock = new ManualClock();
      const sessions = new SessionManager({
        clock,
        maxActive,
        graceMs,
        history: HISTORY,
        cleanupTimeoutMs: CLEANUP_TIMEOUT_MS,
      });
      const models: Model[] = [];
      const reals: Real[] = [];
      const ends = new Map<string, Status[]>();
      const lastEnded: string[] = [];
      for (const name of ['completed', 'failed', 'cancelled', 'timedOut'] as const) {
        sessions.on(name, ({ session }) => {
          ends.get(session.id)!.push(name);
          lastEnded.push(session.id);
          if (lastEnded.length > HISTORY) lastEnded.shift();
        });
      }
      let closed = false;
      let forceAt = Infinity;

      const begin = async (byHand: boolean, timeoutMs: number): Promise<void> => {
        const controller = new AbortController();
        const options = { timeoutMs, signal: controller.signal };
        const add = (session: Session, finish: (ok: boolean) => void): void => {
          ends.set(session.id, []);
          reals.push({ id: session.id, session, controller, calls: [], finish });
          models.push(new Model(byHand, clock.now() + timeoutMs));
        };
        const live = models.filter(({ state }) => state !== 'ended').length;
        const code = closed ? 'ERR_CLOSED' : live >= maxActive ? 'ERR_SESSIONS_FULL' : undefined;
        if (byHand) {
          let session: OpenSession | undefined;
          try {
            session = sessions.open(options);
          } catch (error) {
            expect(error).toMatchObject({ code });
            return;
          }
          expect(code).toBeUndefined();
          add(session, (ok) => void session.end(ok ? undefined : new Error('by hand')));
        } else {
          const { promise, resolve, reject } = Promise.withResolvers<void>();
          const count = models.length;
          const answer = sessions.run((context) => {
            add(context.session, (ok) => (ok ? resolve() : reject(new Error('task'))));
            return promise;
          }, options);
          if (code !== undefined) await expect(answer).rejects.toMatchObject({ code });
          else answer.catch(() => {});
          expect(models).toHaveLength(count + (code === undefined ? 1 : 0));
        }
      };

      for (const todo of steps) {
        const i = 'i' in todo && models.length > 0 ? todo.i % models.length : -1;
        switch (todo.do) {
          case 'begin': {
            await begin(todo.byHand, todo.timeoutMs);
            break;
          }
          case 'finish': {
            reals[i]?.finish(todo.ok);
            models[i]?.over(todo.ok, clock.now());
            break;
          }
          case 'abort': {
            reals[i]?.controller.abort();
            models[i]?.stop('cancelled', clock.now(), graceMs);
            break;
          }
          case 'defer': {
            if (i < 0 || !['open', 'stopping'].includes(models[i]!.state)) break;
            const number = models[i]!.cleanups.push(todo.kind);
            reals[i]!.session.defer(() => {
              reals[i]!.calls.push(number);
              if (todo.kind === 'fails') throw new Error('clean-up');
              return todo.kind === 'works' ? Promise.resolve() : new Promise(() => {});
            });
            break;
          }
          case 'pass': {
            for (let ms = 0.5; ms <= todo.ms; ms += 0.5) {
              await clock.advance(0.5);
              if (clock.now() === forceAt) {
                for (const model of models) model.stop('cancelled', clock.now(), graceMs);
              }
              for (const model of models) model.pass(clock.now(), graceMs);
            }
            break;
          }
          case 'shutdown': {
            if (!closed) {
              forceAt = clock.now() + todo.drainMs;
              void sessions.shutdown({ drainMs: todo.drainMs, forceMs: Infinity });
            }
            closed = true;
            break;
          }
        }
        await settle();

        let live = 0;
        for (const [j, model] of models.entries()) {
          const { id, session, calls } = reals[j]!;
          expect(session.status).toBe(model.status);
          expect(sessions.get(id)).toBe(model.state === 'ended' ? undefined : session);
          expect(ends.get(id)).toEqual(model.state === 'ended' ? [model.status] : []);
          expect(calls).toEqual(calls.toSorted((a, b) => b - a));
          if (model.state === 'ended') expect(calls).toHaveLength(model.cleanups.length);
          if (model.state !== 'ended') live++;
        }
        expect(sessions.active).toBe(live);
        expect(clock.timers).toBeLessThanOrEqual(1);
        if (live === 0) expect(clock.timers).toBe(0);
        const remembered = [...sessions.records()].map(({ id }) => id);
        expect(remembered.toSorted()).toEqual(lastEnded.toSorted());
      }
    },
  );

  type Op =
    | { readonly op: 'await' | 'timer' | 'listen' | 'emit' | 'set' }
    | { readonly op: 'queue' | 'nest' | 'pull' | 'enter'; readonly inside: readonly Op[] };

  const { program } = fc.letrec<{ program: Op[]; op: Op }>((tie) => ({
    program: fc.array(tie('op'), { maxLength: 5 }),
    op: fc.oneof(
      { maxDepth: 3, depthIdentifier: 'op' },
      fc.record({ op: fc.constantFrom('await', 'timer', 'listen', 'emit', 'set') }),
      fc.record({
        op: fc.constantFrom('queue', 'nest', 'pull', 'enter'),
        inside: tie('program'),
      }),
    ),
  }));

  test.prop([fc.scheduler(), fc.array(program, { minLength: 2, maxLength: 5 })])(
    'M2 keeps sessions apart, wherever their tasks lead',
    async (scheduler, programs) => {
      const clock = new ManualClock();
      const sessions = new SessionManager({ clock });
      const queue = new AdmissionQueue({ concurrency: 1, clock });
      sessions.observe(queue);
      const bus = new EventEmitter().setMaxListeners(0);
      let count = 0;

      /** Does what the program says and looks after each step whether everything is its own. */
      const play = async (session: Session, ops: readonly Op[]): Promise<void> => {
        const own = `owner ${session.id}`;
        const check = (): void => {
          // What outlives its session belongs to none.
          const live = sessions.get(session.id);
          expect(sessions.current()).toBe(live);
          if (live === undefined) return;
          expect(live).toBe(session);
          expect(session.metadata.get('owner')).toBe(own);
          for (let i = 0; i < session.metadata.size - 1; i++) {
            expect(session.metadata.get(`key ${i}`)).toBe(own);
          }
        };
        session.metadata.set('owner', own);
        for (const op of ops) {
          check();
          switch (op.op) {
            case 'await': {
              await scheduler.schedule(Promise.resolve());
              break;
            }
            case 'timer': {
              await new Promise<void>((resolve) => {
                clock.setTimeout(resolve, 0);
                scheduler.schedule(Promise.resolve()).then(() => clock.advance(0), resolve);
              });
              break;
            }
            case 'listen': {
              bus.once('call', () => session.enter(check));
              break;
            }
            case 'emit': {
              bus.emit('call');
              break;
            }
            case 'set': {
              session.metadata.set(`key ${session.metadata.size - 1}`, own);
              break;
            }
            case 'queue': {
              // From within its own task a session would wait for itself.
              const free = queue.active === 0;
              if (free) await queue.run(() => play(session, op.inside));
              else void queue.run(() => scheduler.schedule(Promise.resolve()).then(check));
              break;
            }
            case 'nest': {
              count++;
              await sessions.run((inner) => play(inner.session, op.inside));
              break;
            }
            case 'pull': {
              // The consumer is nobody's: it pulls from outside of all sessions.
              const stream = new ReadableStream<number>(
                {
                  pull: (controller) =>
                    session.enter(async () => {
                      await play(session, op.inside);
                      controller.close();
                    }),
                },
                { highWaterMark: 0 },
              );
              await outside(() => stream.getReader().read());
              break;
            }
            case 'enter': {
              await outside(() => session.enter(() => play(session, op.inside)));
              break;
            }
          }
          check();
        }
      };
      const all = programs.map((ops) => {
        count++;
        return sessions.run(({ session }) => play(session, ops));
      });
      await scheduler.waitFor(Promise.all(all).then(() => queue.idle()));
      expect(sessions.stats().completed).toBe(count);
      expect(sessions.current()).toBeUndefined();
    },
  );
});
