import { getEventListeners } from 'node:events';

import {
  AdmissionQueue,
  compose,
  RateLimiter,
  Semaphore,
  SessionManager,
  SharedResource,
  TokenStreamer,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { HandClock } from '../support/hand-clock.ts';
import { codeOf } from '../support/promises.ts';
import {
  freeGate,
  GATE_NAMES,
  HOLDING_NAMES,
  type LinedGate,
  takenGate,
} from '../support/scenes.ts';
import { catchUncaught } from '../support/uncaught.ts';
import { place, PLACINGS } from '../sweeps/sweep.ts';

/** A caller: how it is answered, as often as it is. Answers are kept as they are. */
function call(
  gate: LinedGate,
  options: { signal?: AbortSignal | undefined; waitTimeoutMs?: number } = {},
  task: () => unknown = () => 'ok',
): unknown[] {
  const answers: unknown[] = [];
  gate.run(task, options).then(
    (value) => answers.push(value),
    (error: unknown) => answers.push(error),
  );
  return answers;
}

const listenersOf = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

/** Who has a signal that the platform did not make, and counts what is done with it. */
class OwnSignal {
  aborted = false;
  reason: unknown;
  most = 0;
  readonly listeners = new Set<() => void>();

  addEventListener(_type: string, listener: () => void): void {
    this.listeners.add(listener);
    this.most = Math.max(this.most, this.listeners.size);
  }

  removeEventListener(_type: string, listener: () => void): void {
    this.listeners.delete(listener);
  }

  abort(reason: unknown): void {
    this.aborted = true;
    this.reason = reason;
    for (const listener of this.listeners) listener();
  }

  get signal(): AbortSignal {
    return this as unknown as AbortSignal;
  }
}

/** What an abort may be for: nothing of it is read. */
const REASONS: readonly unknown[] = [
  null,
  0,
  '',
  'text',
  Symbol('reason'),
  Object.freeze({ frozen: true }),
  new Proxy(
    {},
    {
      get: () => {
        throw new Error('read');
      },
    },
  ),
];

/** Nobody is let in any more who should not be: the next one is, once what is taken comes back. */
async function expectServes(
  scene: { gate: LinedGate; clock: ManualClock; free(): Promise<void> },
  answers = call(scene.gate),
): Promise<void> {
  await scene.free();
  await scene.clock.advance(2000);
  expect(answers).toEqual(['ok']);
  expect([scene.gate.active, scene.gate.waiting, scene.clock.timers]).toEqual([0, 0, 0]);
}

describe.each(GATE_NAMES)('a signal given to a %s', (name) => {
  it('that is aborted already takes nothing, free or taken, and is told as a refusal only (H051)', async () => {
    const scene = await takenGate(name);
    for (const gate of [await freeGate(name), scene.gate]) {
      const before = { ...gate.stats(), refused: undefined };
      const events: string[] = [];
      for (const event of ['queued', 'acquired', 'started', 'granted', 'cancelled', 'refused']) {
        gate.on(event, () => events.push(event));
      }
      const reason = new Error('before');
      const signal = AbortSignal.abort(reason);
      expect(await gate.run(() => 'called', { signal }).catch((error: unknown) => error)).toBe(
        reason,
      );
      expect(events).toEqual(['refused']);
      expect({ ...gate.stats(), refused: undefined }).toEqual(before);
      expect(listenersOf(signal)).toBe(0);
    }
    await expectServes(scene);
  });

  it('takes who waits out of the line at once, and the others stay in their order (H052, H054)', async () => {
    const scene = await takenGate(name);
    const { gate, clock, free } = scene;
    const order: number[] = [];
    const controls = Array.from({ length: 5 }, () => new AbortController());
    const answers = controls.map(({ signal }, index) =>
      call(gate, { signal }, () => order.push(index)),
    );
    for (const [index, waiting] of [
      [2, 4],
      [0, 3],
      [4, 2],
    ] as const) {
      controls[index]!.abort(index);
      expect(gate.waiting).toBe(waiting);
    }
    await settle();
    expect(answers).toEqual([[0], [], [2], [], [4]]);
    await free();
    await clock.advance(2000);
    expect(order).toEqual([1, 3]);
    expect(gate.waiting).toBe(0);
  });

  it('ends the wait or the task, not both, whenever it comes around the turn (H055, H056)', async () => {
    for (const placing of PLACINGS) {
      const scene = await takenGate(name);
      const control = new AbortController();
      let called = 0;
      const answers = call(scene.gate, { signal: control.signal }, () => {
        called++;
        return settle();
      });
      const next = call(scene.gate);
      await place(
        placing,
        () => void scene.free(),
        () => control.abort('gone'),
      );
      await scene.clock.advance(1000);
      await expectServes(scene, next);
      expect([placing, answers]).toEqual([placing, [called === 0 ? 'gone' : answers[0]]]);
      expect(answers.length).toBe(1);
      expect(listenersOf(control.signal)).toBe(0);
    }
  });

  it.each([
    ['aborts while it is listened to', true],
    ['cannot be listened to', false],
  ])('that %s is one rejection and no place (H057)', async (_, aborts) => {
    for (const taken of [true, false]) {
      const scene = await takenGate(name);
      if (!taken) {
        await scene.free();
        await scene.clock.advance(1000);
      }
      const own = new OwnSignal();
      own.addEventListener = (_type, listener): void => {
        if (!aborts) throw new Error('deaf');
        own.aborted = true;
        own.reason = new Error('deaf');
        listener();
      };
      let called = false;
      const answers = call(scene.gate, { signal: own.signal }, () => (called = true));
      await settle();
      // A task that begins at once is told, in its own time, where its signal aborts meanwhile.
      expect([taken, answers.map(String)]).toEqual([taken, ['Error: deaf']]);
      expect(called && taken).toBe(false);
      expect(own.listeners.size).toBe(0);
      await expectServes(scene);
    }
  });

  it('has no listener left, and no effect any more, however the call ended (H058)', async () => {
    const control = new AbortController();
    const { signal } = control;
    const scene = await takenGate(name);
    const { gate, clock } = scene;
    const failing = (): Promise<never> => Promise.reject(new Error('failed'));
    const ends = [
      call(gate, { signal }),
      call(gate, { signal }, failing),
      call(gate, { signal, waitTimeoutMs: 0 }),
      call(gate, { signal, waitTimeoutMs: 3 }),
    ];
    expect(listenersOf(signal)).toBe(1);
    await clock.advance(3);
    await scene.free();
    await clock.advance(2000);
    const closed = await takenGate(name);
    ends.push(call(closed.gate, { signal }));
    closed.gate.close({ waiting: 'reject' });
    ends.push(call(closed.gate, { signal }));
    await settle();
    expect(ends.map((each) => each.length)).toEqual([1, 1, 1, 1, 1, 1]);
    expect(listenersOf(signal)).toBe(0);
    const before = gate.stats();
    control.abort('late');
    await settle();
    expect(gate.stats()).toEqual(before);
    expect(ends.map((each) => each.length)).toEqual([1, 1, 1, 1, 1, 1]);
  });

  it('has an earlier listener of the user’s own do anything first (H059)', async () => {
    const acts: readonly ((scene: Awaited<ReturnType<typeof takenGate>>) => unknown)[] = [
      ({ gate }) => call(gate),
      ({ free }) => free(),
      ({ gate }) => gate.close({ waiting: 'reject' }),
      ({ gate }) => gate.close(),
    ];
    for (const act of acts) {
      const scene = await takenGate(name);
      const control = new AbortController();
      control.signal.addEventListener('abort', () => void act(scene), { once: true });
      const answers = [
        call(scene.gate, { signal: control.signal }),
        call(scene.gate),
        call(scene.gate, { signal: control.signal }),
      ];
      control.abort('gone');
      await settle();
      await scene.free();
      await scene.clock.advance(5000);
      expect(answers.map((each) => each.length)).toEqual([1, 1, 1]);
      expect([scene.gate.active, scene.gate.waiting]).toEqual([0, 0]);
      expect(listenersOf(control.signal)).toBe(0);
    }
  });

  it('that many share has one listener, which lets go of all of them, in order (H060, H073)', async () => {
    const scene = await takenGate(name);
    const own = new OwnSignal();
    const order: number[] = [];
    for (let i = 0; i < 1000; i++) {
      scene.gate.run(() => {}, { signal: own.signal }).catch(() => order.push(i));
    }
    const next = call(scene.gate);
    expect([own.most, own.listeners.size, scene.gate.waiting]).toEqual([1, 1, 1001]);
    own.abort('gone');
    expect([own.listeners.size, scene.gate.waiting]).toEqual([0, 1]);
    await settle();
    expect(order).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    await expectServes(scene, next);
  });

  it('has its reason passed on as it is, whatever that is (H063)', async () => {
    for (const reason of REASONS) {
      const scene = await takenGate(name);
      const waits = new AbortController();
      const runs = new AbortController();
      const waiting = call(scene.gate, { signal: waits.signal });
      waits.abort(reason);
      await settle();
      await scene.free();
      await scene.clock.advance(1000);
      const running = call(scene.gate, { signal: runs.signal }, settle);
      runs.abort(reason);
      await settle();
      expect([waiting.length, running.length]).toEqual([1, 1]);
      expect([waiting[0] === reason, running[0] === reason]).toEqual([true, true]);
    }
  });

  it('may be of another make, and nothing else may stand for one (H064)', async () => {
    const { gate } = await takenGate(name);
    const before = { ...gate.stats(), refused: undefined };
    const wrong = [null, 0, '', false, 'signal', 5, {}, new AbortController(), { aborted: false }];
    for (const signal of wrong) {
      const error = await gate.run(() => {}, { signal: signal as never }).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(TypeError);
      expect(String(error)).toContain('`signal`');
    }
    expect({ ...gate.stats(), refused: undefined }).toEqual(before);
    const own = new OwnSignal();
    const answers = call(gate, { signal: own.signal });
    own.abort('gone');
    await settle();
    expect(answers).toEqual(['gone']);
  });

  it('that throws when it is looked at is a rejection, whenever that is, and nothing is kept (H065)', async () => {
    for (const taken of [true, false]) {
      for (let reads = 0; reads < 6; reads++) {
        const scene = await takenGate(name);
        if (!taken) {
          await scene.free();
          await scene.clock.advance(1000);
        }
        const own = new OwnSignal();
        let left = reads;
        Object.defineProperty(own, 'aborted', {
          get: () => {
            if (left-- > 0) return false;
            throw new Error('unreadable');
          },
        });
        const answers = call(scene.gate, { signal: own.signal });
        await scene.free();
        await scene.clock.advance(2000);
        expect([taken, reads, answers.length]).toEqual([taken, reads, 1]);
        expect(['ok', 'Error: unreadable']).toContain(String(answers[0]));
        expect([taken, reads, own.listeners.size]).toEqual([taken, reads, 0]);
        await expectServes(scene);
      }
    }
    const stuck = new OwnSignal();
    stuck.removeEventListener = (): never => {
      throw new Error('stuck');
    };
    const scene = await takenGate(name);
    const answers = call(scene.gate, { signal: stuck.signal, waitTimeoutMs: 5000 });
    await expectServes(scene);
    expect(answers).toEqual(['ok']);
    stuck.abort('late');
  });

  it.each(['the abort', 'the end of its time'])(
    'settles a call once where %s comes first at one instant (H066)',
    async (first) => {
      const clock = new HandClock();
      const gate = await freeGate(name, clock);
      void gate.run(() => new Promise(() => {}));
      const control = new AbortController();
      if (first === 'the abort') clock.setTimeout(() => control.abort('gone'), 5);
      const waitTimeoutMs = name === 'RateLimiter' ? 1000 : 5;
      const answers = call(gate, { signal: control.signal, waitTimeoutMs });
      if (name === 'RateLimiter') {
        // A token is due at that very instant: it is held back, so that the time runs out.
        (gate as unknown as RateLimiter).sync({ remaining: 0 });
        clock.setTimeout(() => control.abort('gone'), first === 'the abort' ? 999 : 1000);
      } else if (first !== 'the abort') {
        clock.setTimeout(() => control.abort('gone'), 5);
      }
      clock.jump(waitTimeoutMs);
      await settle();
      const { cancelled, timedOut } = gate.stats();
      expect([answers.length, Number(cancelled) + Number(timedOut), gate.waiting]).toEqual([
        1,
        name === 'RateLimiter' ? Number(cancelled) + Number(timedOut) : 1,
        0,
      ]);
    },
  );

  it('and a close both settle once, the first cause counts (H067)', async () => {
    for (const aborted of [true, false]) {
      const { gate } = await takenGate(name);
      const control = new AbortController();
      const answers = call(gate, { signal: control.signal });
      const acts = [() => control.abort('gone'), () => gate.close({ waiting: 'reject' })];
      for (const act of aborted ? acts : acts.toReversed()) act();
      await settle();
      expect(answers.map(codeOf)).toEqual([aborted ? 'gone' : 'ERR_CLOSED']);
      expect(gate.waiting).toBe(0);
      expect(listenersOf(control.signal)).toBe(0);
    }
  });

  it('that nobody waits for is one unhandled rejection, and none from within (H068, H105)', async () => {
    using uncaught = catchUncaught();
    const scene = await takenGate(name);
    const control = new AbortController();
    void scene.gate.run(() => {}, { signal: control.signal });
    control.abort('dropped');
    await settle();
    expect(uncaught.rejections).toEqual(['dropped']);
    await scene.free();
    await scene.clock.advance(1000);
    const running = new AbortController();
    void scene.gate.run(settle, { signal: running.signal });
    running.abort('dropped too');
    await settle();
    await settle();
    expect(uncaught.rejections).toEqual(['dropped', 'dropped too']);
    expect(uncaught.exceptions).toEqual([]);
  });

  it('cannot be mistaken for a timeout (H074)', async () => {
    const { gate, clock } = await takenGate(name);
    const control = new AbortController();
    const aborted = call(gate, { signal: control.signal });
    const late = call(gate, { waitTimeoutMs: 500 });
    control.abort(new DOMException('gone', 'AbortError'));
    await clock.advance(500);
    const [code, error] =
      name === 'RateLimiter'
        ? ['ERR_RATE_LIMITED', 'RateLimitedError']
        : ['ERR_WAIT_TIMEOUT', 'WaitTimeoutError'];
    expect(aborted).toEqual([control.signal.reason]);
    expect(late).toMatchObject([{ code, name: error }]);
  });
});

describe.each(HOLDING_NAMES)('an abort while a task of a %s runs', (name) => {
  it('reaches the signal of the task, and nothing else of it (H070, H115)', async () => {
    const gate = await freeGate(name);
    const control = new AbortController();
    const done = Promise.withResolvers<void>();
    const seen: unknown[] = [];
    const answers = call(gate, { signal: control.signal });
    await settle();
    expect(answers).toEqual(['ok']);
    const running = gate
      .run(
        async ({ signal }) => {
          signal.addEventListener('abort', () => seen.push(signal.reason));
          await done.promise;
          seen.push('went on');
        },
        { signal: control.signal },
      )
      .catch((error: unknown) => error);
    control.abort('gone');
    expect(await running).toBe('gone');
    expect([seen, gate.active]).toEqual([['gone'], 1]);
    done.resolve();
    await settle();
    expect([seen, gate.active]).toEqual([['gone', 'went on'], 0]);
  });
});

describe('turns that come together', () => {
  const resource = new SharedResource({ load: () => 1, maxUsers: 1 });
  const semaphore = new Semaphore(1);
  const queue = new AdmissionQueue({ concurrency: 1 });
  const cases = {
    Semaphore: { gate: semaphore, event: 'acquired', widen: () => semaphore.resize(3) },
    AdmissionQueue: { gate: queue, event: 'started', widen: () => queue.resize(3) },
    SharedResource: {
      gate: resource,
      event: 'acquired',
      widen: () => resource.configure({ maxUsers: 3 }),
    },
  } as const;

  it.each(Object.entries(cases))(
    'are decided before any task of them begins: %s (H071)',
    async (_, { gate: any, event, widen }) => {
      const gate = any as unknown as LinedGate;
      const held = Promise.withResolvers<void>();
      void gate.run(() => held.promise);
      await settle();
      const control = new AbortController();
      const granted: unknown[] = [];
      gate.on(event, ({ active }) => granted.push(active));
      const first = call(gate, {}, () => control.abort('gone'));
      const second = call(gate, { signal: control.signal });
      widen();
      expect(granted).toEqual([2, 3]);
      await settle();
      expect([first, second, gate.active]).toEqual([[undefined], ['gone'], 1]);
      held.resolve();
      await settle();
      expect(gate.active).toBe(0);
    },
  );
});

describe('an abort after the turn, before anybody knows of it,', () => {
  it('leaves an acquired hold acquired: whoever gets it gives it back (H055)', async () => {
    const semaphore = new Semaphore(1);
    const held = semaphore.tryAcquire()!;
    const resource = new SharedResource({ load: () => 1, maxUsers: 1 });
    const use = await resource.acquire();
    const limiter = new RateLimiter({ limit: 1, clock: new ManualClock() });
    const lease = limiter.tryAcquire()!;
    const control = new AbortController();
    const { signal } = control;
    const acquired = Promise.all([
      semaphore.acquire({ signal }),
      resource.acquire({ signal }),
      limiter.acquire({ signal }),
    ]);
    held.release();
    use.release();
    lease.cancel();
    control.abort('late');
    const [permit, handle, next] = await acquired;
    expect([semaphore.active, resource.active, limiter.available()]).toEqual([1, 1, 0]);
    expect([permit.release(), handle.release(), next.cancel()]).toEqual([true, true, true]);
    expect([semaphore.active, resource.active, limiter.available()]).toEqual([0, 0, 1]);
    expect(listenersOf(signal)).toBe(0);
  });
});

describe('a signal of the first two in line', () => {
  it('lets neither of them through where only the second would fit (H061)', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 1, burst: 2, intervalMs: 1000, clock });
    limiter.tryAcquire();
    const semaphore = new Semaphore(2);
    semaphore.tryAcquire();
    const control = new AbortController();
    const { signal } = control;
    const granted: unknown[] = [];
    limiter.on('granted', (event) => granted.push(event));
    semaphore.on('acquired', (event) => granted.push(event));
    const waits = [
      limiter.acquire({ cost: 2, signal }),
      limiter.acquire({ signal }),
      semaphore.acquire({ weight: 2, signal }),
      semaphore.acquire({ signal }),
    ];
    control.abort('gone');
    const answers = await Promise.allSettled(waits);
    expect(answers.map((answer) => 'reason' in answer && answer.reason)).toEqual(
      Array(4).fill('gone'),
    );
    expect([granted, limiter.available(), semaphore.available]).toEqual([[], 1, 1]);
  });
});

describe('a cancellation', () => {
  it('tells whether it did anything, and does it once (H069)', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    void queue.run(() => new Promise(() => {}));
    const ticket = queue.enqueue(() => {}, { id: 'a' });
    ticket.result.catch(() => {});
    const other = queue.enqueue(() => {}, { id: 'b' });
    other.result.catch(() => {});
    expect([ticket.cancel(), ticket.cancel(), queue.cancel('a')]).toEqual([true, false, false]);
    expect([queue.cancel('b'), other.cancel(), queue.cancel('c')]).toEqual([true, false, false]);

    const lease = new RateLimiter({ limit: 1 }).tryAcquire()!;
    expect([lease.cancel(), lease.cancel()]).toEqual([true, false]);

    const resource = new SharedResource({ load: () => new Promise(() => {}) });
    const load = resource.preload().catch(codeOf);
    expect([resource.cancelLoading(), resource.cancelLoading()]).toEqual([true, false]);
    expect(await load).toBe('ERR_LOAD_CANCELLED');

    const stream = new TokenStreamer().stream(['a']);
    expect([stream.cancel(), stream.cancel()]).toEqual([true, false]);
  });
});

describe('a signal given to a SessionManager', () => {
  it('is looked at, listened to, passed on and let go of as by the others (H051, H058, H063, H064, H068)', async () => {
    const sessions = new SessionManager({ clock: new ManualClock() });
    const error = await sessions
      .run(() => 'called', { signal: AbortSignal.abort('before') })
      .catch((reason: unknown) => reason);
    expect([error, sessions.stats()]).toMatchObject(['before', { started: 0, refused: 1 }]);
    for (const reason of REASONS) {
      const control = new AbortController();
      const running = sessions
        .run(settle, { signal: control.signal })
        .catch((each: unknown) => [each]);
      expect(listenersOf(control.signal)).toBe(1);
      control.abort(reason);
      expect(((await running) as unknown[])[0] === reason).toBe(true);
      expect(listenersOf(control.signal)).toBe(0);
    }
    for (const signal of [null, 0, '', new AbortController()] as never[]) {
      await expect(sessions.run(() => {}, { signal })).rejects.toThrow(/`signal`/);
      expect(() => sessions.open({ signal })).toThrow(/`signal`/);
    }
    using uncaught = catchUncaught();
    const control = new AbortController();
    void sessions.run(settle, { signal: control.signal });
    control.abort('dropped');
    await settle();
    await settle();
    expect(uncaught.rejections).toEqual(['dropped']);
    expect(sessions.active).toBe(0);
  });
});

describe('a signal given to composed gates', () => {
  it('has one listener at most, none in the end, and one unhandled rejection where nobody waits (H058, H068, H073)', async () => {
    using uncaught = catchUncaught();
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, clock });
    const queue = new AdmissionQueue({ concurrency: 2, clock });
    const sessions = new SessionManager({ clock });
    const gate = compose(sessions, queue, semaphore);
    for (const end of ['gone', undefined]) {
      const own = new OwnSignal();
      const held = semaphore.tryAcquire()!;
      const answer = gate.run(() => settle(), { signal: own.signal });
      await settle();
      expect([own.most, semaphore.waiting]).toEqual([1, 1]);
      if (end === undefined) held.release();
      else own.abort(end);
      void answer.then(() => {});
      await settle();
      await settle();
      held.release();
      expect([own.most, own.listeners.size]).toEqual([1, 0]);
      expect([sessions.active, queue.active, semaphore.active]).toEqual([0, 0, 0]);
    }
    expect(uncaught.rejections).toEqual(['gone']);
  });
});

describe('a signal given to a stream', () => {
  it('may have any reason, may be none at all, and has no listener left (H051, H058, H063, H064)', async () => {
    const streamer = new TokenStreamer({ clock: new ManualClock() });
    for (const signal of [null, 0, '', new AbortController()] as never[]) {
      expect(() => streamer.stream(['a'], { signal })).toThrow(TypeError);
    }
    for (const reason of REASONS) {
      const control = new AbortController();
      const stream = streamer.stream(() => new ReadableStream<string>(), {
        signal: control.signal,
      });
      const tokens = stream.tokens()[Symbol.asyncIterator]();
      const next = tokens.next().catch((error: unknown) => [error]);
      await settle();
      control.abort(reason);
      expect(((await next) as unknown[])[0] === reason).toBe(true);
      expect((await stream.finished).outcome).toBe('cancelled');
      expect(listenersOf(control.signal)).toBe(0);
    }
    const late = streamer.stream(['a'], { signal: AbortSignal.abort('before') });
    await expect(late.tokens()[Symbol.asyncIterator]().next()).rejects.toBe('before');
    expect(streamer.stats()).toMatchObject({ active: 0, tokens: 0 });
  });
});
