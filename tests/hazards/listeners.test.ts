import { getEventListeners } from 'node:events';

import {
  AdmissionQueue,
  Keyed,
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
  GATE_NAMES,
  type GateName,
  freeGate,
  type LinedGate,
  takenGate,
} from '../support/scenes.ts';
import { readSources } from '../support/sources.ts';
import { catchUncaught } from '../support/uncaught.ts';

/** The names of all events that there are, of whichever primitive. */
const EVENTS: readonly string[] = [
  ...new Set(
    readSources().flatMap(({ code }) => {
      const events = /^export interface \w+Events \{\n([\s\S]*?)^\}/m.exec(code)?.[1] ?? '';
      return [...events.matchAll(/^ {2}(\w+): /gm)].map(([, name]) => name!);
    }),
  ),
].filter((name) => name !== 'position');

type Payload = Readonly<Record<string, unknown>>;

/** Calls `listener` at every event. */
function hear(gate: LinedGate, listener: (name: string, payload: Payload) => unknown): void {
  for (const name of EVENTS) gate.on(name, (payload) => listener(name, payload));
}

/** A caller: how it is answered, as often as it is. */
function call(gate: LinedGate, signal?: AbortSignal, task: () => unknown = () => 'ok'): unknown[] {
  const answers: unknown[] = [];
  gate.run(task, { signal }).then(
    (value) => answers.push(value),
    (error: unknown) => answers.push(codeOf(error)),
  );
  return answers;
}

/** Something of everything happens at a gate: what everybody is answered, and what is left. */
async function story(name: GateName, prepare: (gate: LinedGate) => void): Promise<unknown> {
  const { clock, gate, free } = await takenGate(name);
  prepare(gate);
  const control = new AbortController();
  const answers = [
    call(gate),
    call(gate, control.signal),
    call(gate, undefined, () => Promise.reject(new Error('task'))).map(String),
    call(gate, AbortSignal.abort('before')),
  ];
  control.abort('gone');
  await settle();
  await free();
  for (let i = 0; i < 4; i++) await clock.advance(1000);
  gate.close();
  answers.push(call(gate));
  await settle();
  return { answers: answers.map((each) => each.map(String)), ...left(gate, clock, control.signal) };
}

function left(gate: LinedGate, clock: ManualClock, signal: AbortSignal): object {
  const { active, waiting } = gate;
  const listeners = getEventListeners(signal, 'abort').length;
  return { active, waiting, timers: clock.timers, listeners };
}

describe.each(GATE_NAMES)('a listener of a %s', (name) => {
  it('that throws changes nothing, silences nobody and is uncaught, once for each event (H025, H026)', async () => {
    const plain: string[] = [];
    const expected = await story(name, (gate) => hear(gate, (event) => plain.push(event)));
    const heard: string[] = [];
    const failures: Error[] = [];
    using uncaught = catchUncaught();
    const result = await story(name, (gate) => {
      hear(gate, (event) => {
        failures.push(new Error(event));
        throw failures.at(-1)!;
      });
      hear(gate, (event) => heard.push(event));
    });
    expect(result).toEqual(expected);
    expect(heard).toEqual(plain);
    expect(plain.length).toBeGreaterThan(6);
    expect(uncaught.exceptions).toEqual(failures);
    expect(failures.length).toBe(heard.length);
  });

  it('that rejects changes nothing and is an unhandled rejection, once for each event (H027)', async () => {
    const expected = await story(name, () => {});
    const failures: Error[] = [];
    using uncaught = catchUncaught();
    const result = await story(name, (gate) => {
      hear(gate, async (event) => {
        failures.push(new Error(event));
        throw failures.at(-1)!;
      });
    });
    expect(result).toEqual(expected);
    expect(uncaught.rejections).toEqual(failures);
    expect(uncaught.exceptions).toEqual([]);
  });

  it('cannot change the event for the others, nor anything else (H034)', async () => {
    const seen: Payload[][] = [[], []];
    using uncaught = catchUncaught();
    const result = await story(name, (gate) => {
      hear(gate, (_, payload) => seen[0]!.push({ ...payload }));
      hear(gate, (_, payload) => {
        (payload as { active: number; waiting: number }).active = 99;
      });
      hear(gate, (_, payload) => seen[1]!.push({ ...payload }));
    });
    expect(result).toEqual(await story(name, () => {}));
    expect(seen[1]).toEqual(seen[0]);
    expect(uncaught.exceptions.length).toBe(seen[0]!.length);
  });

  it('hears everything in the order in which it happened, with the figures of that moment (H033, H035)', async () => {
    const { gate, free } = await takenGate(name);
    const heard: [number, string, number][] = [];
    let calls = 0;
    for (const who of [1, 2]) {
      hear(gate, (event, payload) => {
        heard.push([who, event, payload['waiting'] as number]);
        if (who === 1 && event === 'queued' && calls++ < 3) call(gate);
      });
    }
    call(gate);
    const lengths = (who: number): unknown[] =>
      heard.filter(([by]) => by === who).map(([, event, waiting]) => [event, waiting]);
    // Three of the four were there before the first listener had heard of its own.
    expect(gate.waiting).toBe(4);
    const expected = [1, 2, 3, 4].map((waiting) => ['queued', waiting]);
    expect(lengths(1)).toEqual(expected);
    expect(lengths(2)).toEqual(expected);
    // Both hear of one event before either hears of the next.
    expect(heard.map(([who]) => who)).toEqual([1, 2, 1, 2, 1, 2, 1, 2]);
    await free();
    gate.close({ waiting: 'reject' });
    await settle();
  });

  it('that takes what was freed comes behind those who wait (H028)', async () => {
    const { gate, clock, free } = await takenGate(name);
    const order: string[] = [];
    const visit = (who: string): void => void call(gate, undefined, () => order.push(who));
    visit('first');
    let once = true;
    hear(gate, (event) => {
      if (!once || !/^(?:released|completed|granted)$/.test(event)) return;
      once = false;
      visit('of the listener');
    });
    visit('second');
    await free();
    for (let i = 0; i < 3; i++) await clock.advance(1000);
    expect(once).toBe(false);
    expect(order).toEqual(['first', 'second', 'of the listener']);
  });

  const acts: Readonly<Record<string, (gate: LinedGate, abort: () => void) => void>> = {
    'aborts who waits': (_, abort) => abort(),
    'closes it': (gate) => gate.close(),
    'sends who waits away': (gate) => gate.close({ waiting: 'reject' }),
    'drains it': (gate) => void gate[Symbol.asyncDispose](),
    'comes itself': (gate) => void call(gate),
    'listens and stops to listen': (gate) => {
      const listener = (): void => {};
      gate.on('released', listener).off('released', listener);
    },
  };

  it.each(Object.keys(acts))(
    'that %s leaves everybody answered once and nothing behind (H029, H139)',
    async (act) => {
      for (const event of EVENTS) {
        const { clock, gate, free } = await takenGate(name);
        const control = new AbortController();
        const inside: number[] = [];
        let depth = 0;
        gate.on(event, () => {
          if (depth++ < 3) acts[act]!(gate, () => control.abort('gone'));
        });
        const task = async (): Promise<string> => {
          inside.push(gate.active);
          await settle();
          return 'ok';
        };
        const answers = [
          call(gate, undefined, task),
          call(gate, control.signal, task),
          call(gate, undefined, task),
        ];
        await settle();
        control.abort('gone');
        await free();
        for (let i = 0; i < 8; i++) await clock.advance(1000);
        gate.close();
        await settle();
        const lengths = answers.map((each) => each.length);
        expect([event, ...lengths]).toEqual([event, 1, 1, 1]);
        expect(left(gate, clock, control.signal)).toEqual({
          active: 0,
          waiting: 0,
          timers: 0,
          listeners: 0,
        });
        // A limiter counts starts, not what runs at once.
        const most = name === 'RateLimiter' ? Infinity : 1;
        expect(Math.max(0, ...inside)).toBeLessThanOrEqual(most);
      }
    },
  );

  it('that aborts one whose turn has come but was not told yet changes no turn (H030)', async () => {
    const { gate, clock, free } = await takenGate(name);
    const control = new AbortController();
    const events: string[] = [];
    let ran = false;
    const answers = call(gate, control.signal, () => (ran = true));
    const next = call(gate);
    hear(gate, (event) => {
      events.push(event);
      // The first event of the turn, before the one about who got it.
      if (events.length === 1) control.abort('late');
    });
    await free();
    await clock.advance(1000);
    await clock.advance(1000);
    const granted = { AdmissionQueue: 'started', RateLimiter: 'granted' }[name as string];
    const told = events.filter((event) => event === (granted ?? 'acquired'));
    // Of a limiter the turn itself is the first event: whoever hears of it comes too late as well.
    expect(told.length).toBe(2);
    expect([answers, ran, next]).toEqual([['late'], false, ['ok']]);
    expect(gate.active).toBe(0);
    expect(events.filter((event) => event === 'cancelled').length).toBe(
      name === 'AdmissionQueue' ? 1 : 0,
    );
  });

  it('hears as many events of one call however long the line is (H046, H164)', async () => {
    const counts = new Set<string>();
    for (const length of [2, 20, 200]) {
      const { clock, gate, free } = await takenGate(name);
      const control = new AbortController();
      for (let i = 0; i < length; i++) call(gate);
      call(gate, control.signal);
      for (let i = 0; i < length; i++) call(gate);
      let events = 0;
      const counted: number[] = [];
      hear(gate, () => events++);
      const count = async (act: () => unknown): Promise<void> => {
        events = 0;
        await act();
        counted.push(events);
      };
      await count(() => call(gate));
      await count(() => control.abort('gone'));
      await count(() => call(gate, AbortSignal.abort('before')));
      // The one that goes and the one that comes.
      if (name === 'RateLimiter') await count(() => clock.advance(1000));
      else {
        gate.on(name === 'AdmissionQueue' ? 'started' : 'acquired', () => {
          if (counted.length === 3) counted.push(events);
        });
        await free();
      }
      counts.add(counted.join());
      gate.close({ waiting: 'reject' });
      await settle();
    }
    expect(counts.size).toBe(1);
    expect(Math.max(...[...counts][0]!.split(',').map(Number))).toBeLessThan(6);
  });

  it('has `closed` told once, and nobody after it who comes or waits anew (H045)', async () => {
    const { clock, gate, free } = await takenGate(name);
    const events: string[] = [];
    call(gate);
    hear(gate, (event) => events.push(event));
    const closed = Promise.all([gate[Symbol.asyncDispose](), gate[Symbol.asyncDispose]()]);
    gate.close();
    call(gate);
    await free();
    await clock.advance(1000);
    await closed;
    expect(events.filter((event) => event === 'closed')).toEqual(['closed']);
    expect(events).not.toContain('queued');
    // Where closing waits for all that is there, it is the last word.
    expect(events.at(-1) === 'closed').toBe(name === 'SharedResource');
  });

  it('is not needed by the gate itself, and there is no way to take them all (H040, H041)', async () => {
    const { clock, gate, free } = await takenGate(name);
    for (const method of ['emit', 'removeAllListeners', 'listeners', 'eventNames', '_events']) {
      expect(method in gate).toBe(false);
    }
    const listener = (): void => {};
    for (const event of EVENTS) gate.on(event, listener).off(event, listener);
    const answers = call(gate);
    const drained = gate[Symbol.asyncDispose]();
    await free();
    await clock.advance(1000);
    await drained;
    // A closed resource serves nobody who waits.
    expect(answers).toEqual([name === 'SharedResource' ? 'ERR_CLOSED' : 'ok']);
  });

  it('may be one of many, and so may waiters and signals: nobody is warned (H043)', async () => {
    const warnings: Error[] = [];
    const warn = (warning: Error): void => void warnings.push(warning);
    process.on('warning', warn);
    const { gate } = await takenGate(name);
    const shared = new AbortController();
    for (let i = 0; i < 50; i++) {
      hear(gate, () => {});
      call(gate, shared.signal);
      call(gate, new AbortController().signal);
    }
    expect(getEventListeners(shared.signal, 'abort').length).toBe(1);
    shared.abort('gone');
    gate.close({ waiting: 'reject' });
    await settle();
    process.off('warning', warn);
    expect(warnings).toEqual([]);
  });

  it('that blocks for seconds has the deadlines that passed meanwhile kept in their order (H049)', async () => {
    const clock = new HandClock();
    const gate = await freeGate(name, clock);
    const { promise, resolve } = Promise.withResolvers<void>();
    // The one token of a limiter would come back after a second.
    void gate.run(() => promise);
    const order: unknown[] = [];
    const wait = (who: string, waitTimeoutMs: number): void => {
      gate
        .run(() => {}, { waitTimeoutMs })
        .catch((error: unknown) => order.push([who, codeOf(error)]));
    };
    wait('last', 30);
    wait('first', 10);
    wait('second', 20);
    let blocked = false;
    hear(gate, () => {
      if (!blocked) clock.block(900);
      blocked = true;
    });
    wait('who is heard of', 40);
    await settle();
    // A limiter says at once that it will take longer than that.
    const [code, answered] =
      name === 'RateLimiter' ? ['ERR_RATE_LIMITED', 4] : ['ERR_WAIT_TIMEOUT', 0];
    expect([blocked, order.length]).toEqual([true, answered]);
    clock.jump(0);
    await settle();
    const expected = ['first', 'second', 'last', 'who is heard of'];
    const told = name === 'RateLimiter' ? ['last', 'first', 'second', expected[3]!] : expected;
    expect(order).toEqual(told.map((who) => [who, code]));
    resolve();
    await settle();
  });
});

describe('events', () => {
  it('have no name that emitters treat in a way of its own (H036)', () => {
    expect(EVENTS.length).toBeGreaterThan(20);
    expect(EVENTS.filter((name) => /^(?:error|newListener|removeListener)$/.test(name))).toEqual(
      [],
    );
  });

  it('are built only where somebody hears them (H037)', () => {
    const posts = readSources().flatMap(({ path, code }) =>
      [...code.matchAll(/\bpost\(\s*(?:this|\w+), (?:'(\w+)'|(\w+)),/g)].map((match) => ({
        path,
        name: match[1] ?? match[2]!,
        before: code.slice(Math.max(0, match.index - 160), match.index),
      })),
    );
    expect(posts.length).toBeGreaterThan(40);
    const asked = ({ name, before }: (typeof posts)[number]): boolean =>
      new RegExp(String.raw`\bheard\(\w+(?:\.\w+)*, '?${name}'?\)[\s\S]*$`).test(before);
    expect(posts.filter((each) => !asked(each)).map(({ path, name }) => `${path} ${name}`)).toEqual(
      [],
    );
  });

  it('are the class’s own affair: whatever a subclass makes of `on` and `emit`, the state is right (H042)', async () => {
    const never = (): never => {
      throw new Error('overridden');
    };
    const hostile = <T extends object>(gate: T): T =>
      Object.assign(gate, { on: never, once: never, off: never, emit: never, deliver: never });
    const clock = new ManualClock();
    const gates = [
      hostile(new Semaphore({ capacity: 1, clock })),
      hostile(new AdmissionQueue({ concurrency: 1, clock })),
      hostile(new RateLimiter({ limit: 1, clock })),
      hostile(new SharedResource({ load: () => 1, maxUsers: 1, clock })),
      hostile(new SessionManager({ clock })),
    ];
    for (const gate of gates) {
      const answers = Promise.all([gate.run(() => settle()), gate.run(() => 2)]);
      await clock.advance(1000);
      expect(await answers).toEqual([undefined, 2]);
      expect(gate.active).toBe(0);
    }
    class Loud extends AdmissionQueue {
      override on = never;
    }
    const ticket = new Loud({ concurrency: 1 }).enqueue(() => 'ok');
    expect([await ticket.result, ticket.position]).toEqual(['ok', -1]);
  });

  it('do not come of a constructor, nor does a timer (H050)', () => {
    const touched = (): never => {
      throw new Error('touched');
    };
    const clock = { now: () => 0, setTimeout: touched, clearTimeout: touched };
    const make = (): object[] => [
      new Semaphore({ capacity: 1, maxHoldMs: 5, clock }),
      new AdmissionQueue({ concurrency: 1, waitTimeoutMs: 5, clock }),
      new RateLimiter({ limit: 1, clock }),
      new SharedResource({ load: touched, clock }),
      new Keyed(() => new Semaphore(1), { maxKeys: 1, idleMs: 5, clock }),
      new SessionManager({ timeoutMs: 5, clock }),
      new TokenStreamer({ timeoutMs: 5, clock }).stream(touched),
    ];
    expect(make().length).toBe(7);
  });
});
