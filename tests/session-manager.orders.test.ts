import { AsyncLocalStorage } from 'node:async_hooks';

import { type SessionEvents, SessionManager, type SessionRecord } from 'sluice';
import { settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { HandClock } from './support/hand-clock.ts';
import { microtasks } from './support/promises.ts';
import { catchUncaught } from './support/uncaught.ts';

/** More than any chain of reactions here is long. */
const MICROTASKS = 20;

/** All orders of what happens to two sessions. The force of a shutdown comes after its beginning. */
function* orders(steps: readonly string[]): Generator<string[]> {
  if (steps.length === 0) yield [];
  for (const step of steps) {
    if (step === 'force' && steps.includes('shutdown')) continue;
    for (const rest of orders(steps.filter((other) => other !== step))) yield [step, ...rest];
  }
}

const STEPS = ['a task', 'a abort', 'a timeout', 'b task', 'b abort', 'b timeout'];
const CLEANUPS = ['none', 'works', 'throws', 'rejects', 'never ends'] as const;
const CLEANUP_TIMEOUT_MS = 0.25;
const ENDS = ['completed', 'failed', 'cancelled', 'timedOut'] as const;

const abortReasons = [new Error('abort a'), new Error('abort b')];
const failures = [new Error('task a'), new Error('task b')];
const cleanupFailure = new Error('clean-up');
const listenerFailure = new Error('listener');

interface Plan {
  readonly order: readonly string[];
  /** Whether everything happens in one turn, before any promise settles. */
  readonly atOnce: boolean;
  readonly fails: readonly [boolean, boolean];
  readonly cleanups: readonly [(typeof CLEANUPS)[number], (typeof CLEANUPS)[number]];
  /** Whether the sessions are opened and ended by hand, rather than run. */
  readonly byHand: boolean;
  readonly throwingListener: boolean;
}

/** What is to be seen of one session in the end. */
interface Seen {
  readonly ends: SessionRecord[];
  readonly cleanups: number[];
  answer: { ok: boolean; value: unknown } | undefined;
  signal: AbortSignal | undefined;
}

/** Plays the plan and throws at the first thing that is not as it must be. */
async function play(plan: Plan): Promise<void> {
  const clock = new HandClock();
  /** When a step comes; never, if it is not among them. */
  const at = (step: string): number => plan.order.indexOf(step) + 1 || Infinity;
  const sessions = new SessionManager({ clock, cleanupTimeoutMs: CLEANUP_TIMEOUT_MS });
  const tasks = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
  const controllers = [new AbortController(), new AbortController()];
  const seen = [0, 1].map((): Seen => {
    return { ends: [], cleanups: [], answer: undefined, signal: undefined };
  });
  const byId = new Map<string, number>();
  for (const name of ENDS) {
    sessions.on(name, ({ session }: SessionEvents['completed']) => {
      seen[byId.get(session.id)!]!.ends.push(session);
    });
    if (plan.throwingListener) {
      sessions.on(name, () => {
        throw listenerFailure;
      });
    }
  }

  const begin = (i: 0 | 1): void => {
    const name = 'ab'[i]!;
    const options = { signal: controllers[i]!.signal, timeoutMs: at(`${name} timeout`) };
    const prepare = (session: ReturnType<typeof sessions.open>): void => {
      byId.set(session.id, i);
      seen[i]!.signal = session.signal;
      if (plan.cleanups[i] === 'none') return;
      session.defer(() => void seen[i]!.cleanups.push(1));
      session.defer(() => {
        seen[i]!.cleanups.push(2);
        if (plan.cleanups[i] === 'throws') throw cleanupFailure;
        if (plan.cleanups[i] === 'rejects') return Promise.reject(cleanupFailure);
        return plan.cleanups[i] === 'never ends' ? new Promise(() => {}) : undefined;
      });
    };
    if (plan.byHand) {
      const session = sessions.open(options);
      prepare(session);
      void tasks[i]!.promise.then(
        () => session.end(),
        (error: unknown) => session.end(error),
      );
    } else {
      const answer = (ok: boolean) => (value: unknown) => void (seen[i]!.answer = { ok, value });
      sessions
        .run(({ session }) => {
          prepare(session as ReturnType<typeof sessions.open>);
          return tasks[i]!.promise;
        }, options)
        .then(answer(true), answer(false));
    }
  };
  begin(0);
  begin(1);
  // No timer fires in the turn in which it was set.
  await microtasks(MICROTASKS);

  let report: Awaited<ReturnType<typeof sessions.shutdown>> | undefined;
  let activeAtShutdown = 0;
  for (const [index, step] of plan.order.entries()) {
    clock.jump(index + 1 - clock.now());
    const i = step.startsWith('a') ? 0 : 1;
    if (step.endsWith('task')) {
      if (plan.fails[i]) tasks[i]!.reject(failures[i]);
      else tasks[i]!.resolve('done');
    } else if (step.endsWith('abort')) {
      controllers[i]!.abort(abortReasons[i]);
    } else if (step === 'shutdown') {
      activeAtShutdown = sessions.active;
      const drainMs = at('force') - at('shutdown');
      void sessions.shutdown({ drainMs, forceMs: 1000 }).then((value) => (report = value));
    }
    if (!plan.atOnce) {
      await microtasks(MICROTASKS);
      // Half-way between two steps, for the clean-ups that do not end.
      clock.jump(index + 1 + 2 * CLEANUP_TIMEOUT_MS - clock.now());
      await microtasks(MICROTASKS);
    }
  }
  await microtasks(MICROTASKS);
  clock.jump(100 - clock.now());
  await microtasks(MICROTASKS);
  clock.jump(200 - clock.now());
  await microtasks(MICROTASKS);

  for (const i of [0, 1] as const) {
    const name = 'ab'[i]!;
    const { ends, cleanups, answer, signal } = seen[i]!;
    check(ends.length === 1, 'M1 ends once');
    const { status } = ends[0]!;
    const calls = plan.cleanups[i] === 'none' ? '' : '2,1';
    check(cleanups.join() === calls, 'M1 clean-ups run once, last first');
    const causes: [step: string, status: string, reason: unknown][] = [
      [`${name} task`, plan.fails[i] ? 'failed' : 'completed', failures[i]],
      [`${name} abort`, 'cancelled', abortReasons[i]],
      [`${name} timeout`, 'timedOut', 'ERR_SESSION_TIMEOUT'],
      ['force', 'cancelled', 'ERR_CLOSED'],
    ];
    causes.sort(([one], [other]) => at(one) - at(other));
    // Promises settle when the turn is over: within one, what is told synchronously comes first.
    const [, expected, reason] = plan.atOnce
      ? causes.find(([step]) => /abort|timeout/.test(step))!
      : causes[0]!;
    check(status === expected, `ends as ${expected}: the first cause decides`);
    const aborted = status === 'cancelled' || status === 'timedOut';
    check(signal!.aborted === aborted, 'the signal is aborted if it was stopped');
    if (!plan.byHand) {
      const value =
        typeof reason === 'string' ? (answer!.value as Error & Coded).code : answer!.value;
      check(answer!.ok === (status === 'completed'), 'the caller is answered as the session ends');
      check(value === (answer!.ok ? 'done' : reason), 'the caller gets the result or the cause');
      check(!aborted || signal!.reason === answer!.value, 'caller and signal get the same reason');
    }
  }
  if (plan.order.includes('force')) {
    check(report!.stuck.length === 0, 'nothing is stuck');
    check(report!.finished + report!.aborted === activeAtShutdown, 'everybody is in the report');
  }
  const stats = sessions.stats();
  check(stats.active === 0, 'nothing is active');
  const ended = stats.completed + stats.failed + stats.cancelled + stats.timedOut;
  check(ended === 2, 'each end is counted once');
  check(clock.timers === 0, 'no timer is left');
}

interface Coded {
  readonly code: string;
}

/** As `expect`, which is too slow to be called a million times. */
function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(`Not so: ${what}.`);
}

/** Node leaves an entry in the async context for each storage that has been used in it. */
const afresh = AsyncLocalStorage.snapshot();

/** Every order, each with the next of the variants, all of which come up many times. */
async function playAll(steps: readonly string[], fixed: Partial<Plan>): Promise<number> {
  let count = 0;
  for (const order of orders(steps)) {
    const n = count++;
    const plan: Plan = {
      order,
      atOnce: false,
      fails: [n % 2 === 0, n % 3 === 0],
      cleanups: [CLEANUPS[n % 5]!, CLEANUPS[Math.floor(n / 5) % 5]!],
      byHand: n % 7 < 2,
      throwingListener: n % 11 === 0,
      ...fixed,
    };
    try {
      await afresh(() => play(plan));
      // Weak references are held until the turn is over, and they add up.
      await settle();
    } catch (error) {
      throw new Error(`Run ${n} failed: ${JSON.stringify(plan)}`, { cause: error });
    }
  }
  return count;
}

describe('SessionManager', () => {
  it('M1 ends two sessions once each and for the first cause, in every order with a shutdown (H279)', async () => {
    using uncaught = catchUncaught();
    const count = await playAll([...STEPS, 'shutdown', 'force'], {});
    expect(count).toBe(20_160);
    expect(new Set(uncaught.exceptions)).toEqual(new Set([listenerFailure]));
    expect(uncaught.rejections).toEqual([]);
  });

  it('M1 does so for every kind of clean-up of both (H278)', async () => {
    using uncaught = catchUncaught();
    let count = 0;
    for (const one of CLEANUPS) {
      for (const other of CLEANUPS) {
        for (const byHand of [false, true]) {
          count += await playAll(['a task', 'a abort', 'b task', 'b timeout'], {
            cleanups: [one, other],
            byHand,
          });
        }
      }
    }
    expect(count).toBe(1200);
    expect(uncaught.rejections).toEqual([]);
  });

  it('M1 does so when everything happens within one turn', async () => {
    using uncaught = catchUncaught();
    const count = await playAll(STEPS, { atOnce: true });
    expect(count).toBe(720);
    expect(uncaught.rejections).toEqual([]);
  });
});
