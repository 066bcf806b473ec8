import { getEventListeners } from 'node:events';

import { fc, test } from '@fast-check/vitest';
import { AdmissionQueue, type QueueContext, type Ticket } from 'sluice/admission-queue';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { AdmissionQueueModel, type Caller, type ModelSettings } from './models/admission-queue.ts';
import { methodsOf } from './support/methods.ts';
import { codeOf } from './support/promises.ts';
import { awaitIdle, onceIn, show, stepsOf } from './support/steps.ts';

const SIGNALS = 3;
const PRIORITIES = 4;

/** A caller, and what the test has in its hands of it. */
interface Call extends Caller {
  ticket?: Ticket;
  finish?: (outcome: 'ok' | 'failed') => void;
  answer?: unknown;
  answers: number;
  /** What an iteration of its positions has brought. */
  readonly positions: number[];
  iterated: boolean;
  /** Whether it has been in line at all. */
  waited: boolean;
}

interface Settings extends ModelSettings {
  readonly history: number;
}

/** The events that are counted, by the same names as in `stats()`. */
const NONE = {
  started: 0,
  completed: 0,
  failed: 0,
  cancelled: 0,
  timedOut: 0,
  shed: 0,
  refused: 0,
  overrun: 0,
};

/** A queue and its model, side by side. */
class System {
  readonly clock = new ManualClock();
  readonly queue: AdmissionQueue;
  readonly model: AdmissionQueueModel;
  readonly controllers = Array.from({ length: SIGNALS }, () => new AbortController());
  readonly signals = new Set<AbortSignal>();
  readonly calls: Call[] = [];
  readonly told = { ...NONE };
  /** What the `position` events said last, by id. */
  readonly announced = new Map<string, number>();
  readonly history: number;
  idleAnswers = 0;
  idleCalls = 0;

  constructor(settings: Settings) {
    this.history = settings.history;
    this.queue = new AdmissionQueue({ ...settings, priorities: PRIORITIES, clock: this.clock });
    this.model = new AdmissionQueueModel(settings);
    for (const name of Object.keys(NONE) as (keyof typeof NONE)[]) {
      this.queue.on(name, () => this.told[name]++);
    }
    this.queue.on('position', ({ id, position }) => {
      // Told once for each change.
      expect(this.announced.get(id)).not.toBe(position);
      this.announced.set(id, position);
    });
  }

  /** An unfinished call, mostly. */
  pick(which: number): Call | undefined {
    const { line, running } = this.model;
    const those = which % 8 === 7 ? this.calls : ([...line, ...running] as Call[]);
    return those[which % those.length];
  }

  enter(options: CallOptions, how: 'run' | 'enqueue'): void {
    const { signal: which, again, enqueuedAgoMs, ...given } = options;
    const signal = which === undefined ? undefined : this.controllers[which]!.signal;
    if (signal !== undefined) this.signals.add(signal);
    const id = again === undefined ? undefined : this.pick(again)?.id;
    const enqueuedAt = enqueuedAgoMs === undefined ? undefined : this.model.now - enqueuedAgoMs;
    const call: Call = {
      ...given,
      id: id ?? `call ${this.calls.length}`,
      signal,
      enqueuedAt,
      answers: 0,
      positions: [],
      iterated: false,
      waited: false,
    };
    this.calls.push(call);
    this.model.arrive(call);
    if (call.status !== 'refused') this.announced.delete(call.id);
    call.waited = call.status === 'waiting';
    const task = ({ ticket }: QueueContext): unknown => {
      expect(ticket).toBe(call.ticket);
      if (call.ends === 'ok') return 'ok';
      if (call.ends === 'failed') return Promise.reject('failed');
      return new Promise((resolve, reject) => {
        call.finish = (outcome) => (outcome === 'ok' ? resolve : reject)(outcome);
      });
    };
    const { priority, waitTimeoutMs, runTimeoutMs } = call;
    const common = { id: call.id, priority, signal, waitTimeoutMs, runTimeoutMs, enqueuedAt };
    if (how === 'enqueue') {
      call.ticket = this.queue.enqueue(task, {
        ...common,
        onTicket: (ticket) => {
          call.ticket = ticket;
        },
      });
      this.#answered(call, call.ticket.result);
    } else {
      const result = this.queue.run(task, {
        ...common,
        onTicket: (ticket) => {
          call.ticket = ticket;
        },
      });
      this.#answered(call, result);
    }
    expect(call.ticket === undefined).toBe(how === 'run' && call.status === 'refused');
    if (call.ticket !== undefined) void this.#follow(call, call.ticket);
  }

  #answered(call: Call, promise: Promise<unknown>): void {
    const answer = (value: unknown): void => {
      call.answer = value;
      call.answers++;
    };
    promise.then(answer, (error: unknown) => answer(codeOf(error)));
  }

  async #follow(call: Call, ticket: Ticket): Promise<void> {
    for await (const position of ticket.positions()) call.positions.push(position);
    call.iterated = true;
  }

  /** The state that is to be seen at once. */
  check(): void {
    const { queue, model } = this;
    const { active, concurrency, waiting } = queue;
    const right = [model.running.size, model.concurrency, model.line.length];
    expect([active, concurrency, waiting].join()).toBe(right.join());
    // Q2, and Q3: if anybody waits, no place is free.
    expect(waiting).toBeLessThanOrEqual(model.settings.maxWaiting);
    if (waiting > 0 && !model.paused) expect(active).toBeGreaterThanOrEqual(concurrency);
    // Q5, of everybody.
    const order = [...model.running, ...model.line].map(({ id }) => id).join();
    expect([...queue.tickets()].map(({ id }) => id).join()).toBe(order);
    for (const call of this.calls) {
      const { id, ticket, status } = call;
      if (ticket === undefined) continue;
      const position = model.positionOf(call);
      const known = model.find(id);
      if (ticket.position !== position || ticket.status !== status) {
        expect([id, ticket.position, ticket.status]).toEqual([id, position, status]);
      }
      if (known === call && (queue.position(id) !== position || queue.get(id) !== ticket)) {
        expect([id, queue.position(id), queue.get(id)]).toEqual([id, position, ticket]);
      }
    }
  }

  /** What is to be seen when everything that needs no time has happened. */
  async settled(): Promise<void> {
    await settle();
    this.model.settle();
    this.check();
    const { running, line, subjects, counts } = this.model;
    const open = new Map([...line, ...running].map((caller) => [caller.id, caller]));
    const wrong: unknown[] = [];
    /** Cheaper than an expectation for each. */
    const same = (what: string, id: string, given: unknown, right: unknown): void => {
      if (given !== right) wrong.push({ what, id, given, right });
    };
    for (const call of this.calls) {
      const { id, answer, answers, outcome, ticket, status, waited, positions, iterated } = call;
      // Q6: answered exactly once, with one status.
      same('answer', id, answer, outcome);
      same('answers', id, answers, outcome === undefined ? 0 : 1);
      if (ticket === undefined) continue;
      same('priority', id, ticket.priority, call.priority);
      // The iteration has brought the latest position, no two the same in a row, and its end.
      const repeats = positions.some((one, index) => one === positions[index - 1]);
      same('repeats', id, repeats, false);
      if (status === 'waiting') same('iterated position', id, positions.at(-1), ticket.position);
      same('end of iteration', id, iterated, status !== 'waiting');
      if (!waited) same('positions', id, positions.join(), status === 'refused' ? '' : '0');
      // So have the events, to those who have been in line when somebody looked.
      if (waited && open.get(id) === call && this.announced.has(id)) {
        same('announced position', id, this.announced.get(id), ticket.position);
      }
    }
    for (const { id } of line) same('announced', id, this.announced.has(id), true);
    for (const [id, position] of this.announced) {
      if (!open.has(id)) same('announced end', id, position, -1);
    }
    expect(wrong).toEqual([]);
    expect(this.clock.timers).toBe(subjects.length > 0 ? 1 : 0);
    const watched = new Set(
      [...line, ...running]
        .filter(({ outcome }) => outcome === undefined)
        .map(({ signal }) => signal),
    );
    for (const signal of this.signals) {
      const listeners = getEventListeners(signal, 'abort').length;
      if (listeners !== (watched.has(signal) ? 1 : 0)) expect.fail(`${listeners} listeners`);
    }
    expect(this.queue.stats()).toMatchObject(counts);
    expect(counts).toMatchObject(this.told);
    if (running.size === 0 && line.length === 0) expect(this.idleAnswers).toBe(this.idleCalls);
  }
}

const span = fc.nat(20);
const { act, turn, abort, finish, advance } = stepsOf<Call, System>(SIGNALS, span);
const ms = fc.oneof(
  { weight: 6, arbitrary: fc.constant(Infinity) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 20 }) },
  { weight: 1, arbitrary: fc.constant(0) },
);
const priority = fc.integer({ min: 1, max: PRIORITIES });
const callOptions = fc.record({
  priority,
  signal: onceIn(3, fc.nat(SIGNALS - 1)),
  waitTimeoutMs: ms,
  runTimeoutMs: ms,
  ends: fc.constantFrom(
    undefined,
    undefined,
    undefined,
    undefined,
    'ok' as const,
    'failed' as const,
  ),
  /** For a ticket that comes back to its old place, or has been made ahead of time. */
  enqueuedAgoMs: onceIn(4, fc.integer({ min: -5, max: 30 })),
  /** Whose id it has. */
  again: onceIn(15, fc.nat()),
});
type CallOptions = typeof callOptions extends fc.Arbitrary<infer Options> ? Options : never;

/** Every public method, under its name. */
const methods = {
  run: callOptions.map((options) =>
    act(`run(${show(options)})`, (system) => system.enter(options, 'run')),
  ),
  enqueue: callOptions.map((options) =>
    act(`enqueue(${show(options)})`, (system) => system.enter(options, 'enqueue')),
  ),
  position: fc.nat().map((which) =>
    act(`position(${which})`, ({ calls, queue, model, history }) => {
      expect(queue.position('nobody')).toBe(-2);
      const call = calls[which % calls.length];
      if (call === undefined) return;
      const open = model.find(call.id);
      const known = calls.some(({ id, status }) => id === call.id && status !== 'refused');
      const over = known && history > 0 ? -1 : -2;
      expect(queue.position(call.id)).toBe(open === undefined ? over : model.positionOf(open));
    }),
  ),
  get: fc.nat().map((which) =>
    act(`get(${which})`, ({ calls, queue, model }) => {
      expect(queue.get('nobody')).toBeUndefined();
      const call = calls[which % calls.length];
      if (call === undefined) return;
      expect(queue.get(call.id)).toBe((model.find(call.id) as Call | undefined)?.ticket);
    }),
  ),
  tickets: fc.constant(
    act('tickets()', ({ queue, model }) => {
      const tickets = ([...model.running, ...model.line] as Call[]).map(({ ticket }) => ticket);
      expect([...queue.tickets()]).toEqual(tickets);
    }),
  ),
  estimateWaitMs: fc.nat(20).map((position) =>
    act(`estimateWaitMs(${position})`, ({ queue }) => {
      const [near = 0, far = Infinity] = [position, position + 1].map((one) =>
        queue.estimateWaitMs(one),
      );
      expect(near).toBeGreaterThanOrEqual(0);
      expect(far).toBeGreaterThanOrEqual(near);
      for (const { estimatedWaitMs = 0 } of queue.tickets()) {
        expect(estimatedWaitMs).toBeGreaterThanOrEqual(0);
      }
    }),
  ),
  setPriority: fc.tuple(fc.nat(), priority, fc.boolean()).map(([which, to, byTicket]) =>
    act(`setPriority(${which}, ${to})`, (system) => {
      const call = system.pick(which);
      if (call === undefined) return;
      if (byTicket && call.ticket !== undefined) {
        expect(call.ticket.setPriority(to)).toBe(system.model.setPriority(call, to));
      } else {
        const known = system.model.find(call.id);
        const moved = known !== undefined && system.model.setPriority(known, to);
        expect(system.queue.setPriority(call.id, to)).toBe(moved);
      }
    }),
  ),
  cancel: fc.tuple(fc.nat(), fc.boolean()).map(([which, byTicket]) =>
    act(`cancel(${which})`, (system) => {
      const call = system.pick(which);
      if (call === undefined) return;
      if (byTicket && call.ticket !== undefined) {
        expect(call.ticket.cancel('why')).toBe(system.model.cancel(call, 'why'));
      } else {
        const known = system.model.find(call.id);
        const cancelled = known !== undefined && system.model.cancel(known, 'why');
        expect(system.queue.cancel(call.id, 'why')).toBe(cancelled);
      }
    }),
  ),
  pause: fc.constant(
    act('pause()', ({ model, queue }) => {
      model.pause(true);
      queue.pause();
    }),
  ),
  resume: fc.constant(
    act('resume()', ({ model, queue }) => {
      model.pause(false);
      queue.resume();
    }),
  ),
  resize: fc.integer({ min: 1, max: 5 }).map((concurrency) =>
    act(`resize(${concurrency})`, ({ model, queue }) => {
      model.resize(concurrency);
      queue.resize(concurrency);
    }),
  ),
  idle: fc.constant(act('idle()', (system) => awaitIdle(system, system.queue.idle()))),
  stats: fc.constant(
    act('stats()', ({ model, queue }) => {
      const { closed, paused, concurrency, line } = model;
      const waitingByPriority = Array.from(
        { length: PRIORITIES },
        (_, index) => line.filter((caller) => caller.priority === index + 1).length,
      );
      expect(queue.stats()).toMatchObject({ closed, paused, concurrency, waitingByPriority });
    }),
  ),
  close: fc.constantFrom('finish' as const, 'reject' as const).map((waiting) =>
    act(`close(${waiting})`, ({ model, queue }) => {
      model.close(waiting);
      queue.close({ waiting });
    }),
  ),
  drain: fc.constant(
    act('drain()', (system) => {
      system.model.close('finish');
      awaitIdle(system, system.queue.drain());
    }),
  ),
  'Symbol(Symbol.asyncDispose)': fc.constant(
    act('[Symbol.asyncDispose]()', (system) => {
      system.model.close('finish');
      awaitIdle(system, system.queue[Symbol.asyncDispose]());
    }),
  ),
};

const settings = fc.record({
  concurrency: fc.integer({ min: 1, max: 3 }),
  maxWaiting: fc.constantFrom(0, 2, 3, 4, 6, Infinity),
  overflow: fc.constantFrom('reject' as const, 'shed' as const),
  graceMs: ms,
  history: fc.constantFrom(0, 1000),
});
const { 'Symbol(Symbol.asyncDispose)': dispose, ...others } = methods;
const { enqueue, run, cancel, setPriority, close, drain, pause, resume, resize, ...questions } =
  others;
const acts = fc.oneof(
  { weight: 8, arbitrary: run },
  { weight: 8, arbitrary: enqueue },
  { weight: 4, arbitrary: setPriority },
  { weight: 2, arbitrary: cancel },
  { weight: 1, arbitrary: abort },
  { weight: 2, arbitrary: fc.oneof(pause, resume, resize) },
  { weight: 1, arbitrary: fc.oneof(...Object.values(questions)) },
);
const endings = fc.oneof(close, drain, dispose);

const change = fc.record({
  kind: fc.oneof(
    {
      weight: 10,
      arbitrary: fc.constantFrom('cancel', 'setPriority', 'enqueue', 'restore', 'start'),
    },
    { weight: 1, arbitrary: fc.constant('cancelMany') },
  ),
  which: fc.nat(),
  to: priority,
});

/** Every ticket but the `subject` has moved by as much as `by` says. */
function expectMoved(
  before: ReadonlyMap<Ticket, number>,
  subject: Ticket | undefined,
  by: (ticket: Ticket, position: number) => number,
): void {
  const wrong = [...before].filter(
    ([ticket, position]) =>
      ticket !== subject && position > 0 && ticket.position !== position + by(ticket, position),
  );
  expect(wrong.map(([ticket, position]) => [ticket.id, position, ticket.position])).toEqual([]);
}

const racer = fc.record({
  priority: fc.integer({ min: 1, max: 2 }),
  fails: fc.boolean(),
  gone: fc.constantFrom('no', 'abort', 'cancel', 'moved', 'at its turn'),
  resizesTo: fc.constantFrom(0, 0, 0, 1, 2, 3),
  pauses: fc.boolean(),
});

describe('AdmissionQueue', () => {
  it('has no public method that the model leaves out', () => {
    expect(Object.keys(methods).toSorted()).toEqual(methodsOf(AdmissionQueue.prototype));
  });

  test.prop(
    [
      settings,
      fc.commands([turn(acts, 8), turn(acts, 8), finish, finish, advance], {
        maxCommands: 40,
        size: 'max',
      }),
      fc.commands([turn(endings, 1), turn(acts, 3), finish, advance], { maxCommands: 10 }),
    ],
    { numRuns: 100 },
  )(
    'Q1 Q2 Q3 Q4 Q5 Q6 does what an array in the order of turns does, whatever happens (H207, H238)',
    async (given, life, end) => {
      const system = new System(given);
      const setUp = (): { model: System; real: System } => ({ model: system, real: system });
      await fc.asyncModelRun(setUp, life);
      await fc.asyncModelRun(setUp, end);
      await rest(system);
    },
  );

  test.prop(
    [
      fc.integer({ min: 1, max: 2000 }),
      fc.infiniteStream(priority),
      fc.array(change, { maxLength: 25, size: 'max' }),
    ],
    { numRuns: 20 },
  )(
    'Q5 moves every position by one for each that starts, leaves, joins or is moved ahead, and no other (H213)',
    async (length, priorities, changes) => {
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 2000, priorities: 4, clock });
      queue.pause();
      const line = [...priorities.take(length)].map((urgency) =>
        queue.enqueue(() => undefined, { priority: urgency }),
      );
      for (const ticket of line) ticket.result.catch(() => undefined);
      for (const { kind, which, to } of changes) {
        const before = new Map(line.map((ticket) => [ticket, ticket.position]));
        const positions = [...before.values()].filter((position) => position > 0);
        expect(positions.toSorted((a, b) => a - b)).toEqual(positions.map((_, index) => index + 1));
        const subject = line[which % line.length]!;
        const { priority: from, position: at } = subject;
        if (kind === 'cancel') {
          subject.cancel();
          expectMoved(before, subject, (_, position) => (at > 0 && position > at ? -1 : 0));
        } else if (kind === 'cancelMany') {
          const gone = line.filter((_, index) => (index + which) % 3 !== 0);
          const places = new Set(gone.map((ticket) => before.get(ticket)));
          /** How many of them were ahead, by position. */
          const ahead = [0];
          for (const position of positions.keys()) {
            ahead.push(ahead[position]! + Number(places.has(position + 1)));
          }
          for (const ticket of gone) ticket.cancel();
          expectMoved(before, undefined, (ticket, position) =>
            ticket.status === 'cancelled' ? -1 - position : -ahead[position]!,
          );
        } else if (kind === 'setPriority') {
          const waits = at > 0 && from !== to;
          subject.setPriority(to);
          expectMoved(before, subject, (ticket, position) => {
            const wasAhead = waits && at < position;
            const isAhead = waits && to < ticket.priority;
            return Number(isAhead && !wasAhead) - Number(wasAhead && !isAhead);
          });
        } else if (kind === 'enqueue') {
          const ticket = queue.enqueue(() => undefined, { priority: to });
          ticket.result.catch(() => undefined);
          const joins = ticket.status === 'waiting';
          expectMoved(before, ticket, (other) => (joins && to < other.priority ? 1 : 0));
          line.push(ticket);
        } else if (kind === 'restore') {
          const { enqueuedAt } = subject;
          const restored = queue.enqueue(() => undefined, { priority: from, enqueuedAt });
          restored.result.catch(() => undefined);
          const joins = restored.status === 'waiting';
          expectMoved(before, restored, (other) => {
            const newer = other.priority === from && other.toJSON().enqueuedAt > enqueuedAt;
            return joins && (from < other.priority || newer) ? 1 : 0;
          });
          line.push(restored);
        } else {
          queue.resume();
          queue.pause();
          const starts = line.some((ticket) => before.get(ticket) === 1);
          expectMoved(before, undefined, (_, position) => (starts && position > 0 ? -1 : 0));
          await clock.advance(1);
        }
      }
    },
  );

  test.prop([
    fc.scheduler(),
    fc.integer({ min: 1, max: 3 }),
    fc.array(racer, { maxLength: 10, size: 'max' }),
  ])(
    'Q1 Q3 Q4 Q6 holds wherever ends, aborts, moves, pauses and callers come between its microtasks',
    async (s, concurrency, racers) => {
      const queue = new AdmissionQueue({ concurrency, maxWaiting: 4, priorities: 2 });
      const turnOf = (name: string): Promise<void> => s.schedule(Promise.resolve(), name);
      const wrong: string[] = [];
      let inside = 0;
      const answers = new Map<Ticket, number>();
      let paused = false;
      queue.on('completed', () => {
        if (!paused && queue.waiting > 0 && queue.active < queue.concurrency) wrong.push('a gap');
      });
      const atTheirTurn = new Map<string, () => void>();
      queue.on('started', ({ id, active }) => {
        if (paused) wrong.push('started in a pause');
        if (active > queue.concurrency) wrong.push(`${active} of ${queue.concurrency}`);
        atTheirTurn.get(id)?.();
        const rival = [...queue.tickets()].find((ticket) => ticket.position === 1);
        const ticket = queue.get(id)!;
        if (rival !== undefined && rival.priority < ticket.priority) wrong.push('passed by');
      });
      const task = async ({ ticket }: QueueContext, fails: boolean): Promise<void> => {
        if (ticket.position !== 0) wrong.push(`runs at ${ticket.position}`);
        inside++;
        if (inside > queue.active) wrong.push(`${inside} inside`);
        await turnOf('end');
        inside--;
        if (fails) throw new Error('failed');
      };
      racers.forEach(({ priority: urgency, fails, gone, resizesTo, pauses }, index) => {
        const controller = new AbortController();
        let ticket: Ticket<void> | undefined;
        void turnOf(`caller ${index}`).then(() => {
          const before = queue.waiting;
          const one = queue.enqueue((context) => task(context, fails), {
            priority: urgency,
            signal: controller.signal,
          });
          ticket = one;
          if (gone === 'at its turn') atTheirTurn.set(one.id, () => controller.abort());
          if (one.status === 'refused' && !controller.signal.aborted && before < 4) {
            wrong.push('refused with room in line');
          }
          const { status } = one;
          const answered = (how: unknown): void => {
            answers.set(one, (answers.get(one) ?? 0) + 1);
            // Q4: once in, never refused.
            if (status !== 'refused' && codeOf(how) === 'ERR_QUEUE_FULL')
              wrong.push('refused later');
          };
          one.result.then(answered, answered);
        });
        if (gone === 'abort') void turnOf(`abort ${index}`).then(() => controller.abort());
        if (gone === 'cancel') void turnOf(`cancel ${index}`).then(() => ticket?.cancel());
        if (gone === 'moved') {
          void turnOf(`move ${index}`).then(() => ticket?.setPriority(3 - ticket.priority));
        }
        if (resizesTo > 0) void turnOf(`resize ${resizesTo}`).then(() => queue.resize(resizesTo));
        if (!pauses) return;
        void turnOf('pause').then(() => {
          queue.pause();
          paused = true;
          void turnOf('resume').then(() => {
            paused = false;
            queue.resume();
          });
        });
      });
      await s.waitIdle();
      expect(wrong).toEqual([]);
      const { active, waiting } = queue;
      expect({ active, waiting, inside }).toEqual({ active: 0, waiting: 0, inside: 0 });
      expect([...answers.values()]).toEqual(racers.map(() => 1));
      const { accepted, refused, ...ended } = queue.stats();
      expect(accepted + refused).toBe(racers.length);
      expect(ended.completed + ended.failed + ended.cancelled).toBe(accepted);
    },
  );
});

/** Everybody goes away: then nothing is left. */
async function rest(system: System): Promise<void> {
  const { queue, model, calls, clock } = system;
  model.pause(false);
  queue.resume();
  await system.settled();
  while (model.running.size > 0) {
    const call = [...model.running][0] as Call;
    call.finish!('ok');
    delete call.finish;
    await settle();
    model.finish(call, 'ok');
    await system.settled();
  }
  expect({ active: queue.active, waiting: queue.waiting }).toEqual({ active: 0, waiting: 0 });
  expect([...queue.tickets()]).toEqual([]);
  expect(clock.timers).toBe(0);
  expect(calls.filter(({ answers }) => answers !== 1)).toEqual([]);
}
