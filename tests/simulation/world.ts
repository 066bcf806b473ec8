import type { AdmissionQueueEvents } from '../../src/admission-queue.ts';
import { compose } from '../../src/gate.ts';
import type { OpenSession } from '../../src/session-manager.ts';
import { getEventListeners } from 'node:events';
import { type Call, type Watch, whenOver } from './calls.ts';
import { WatchedKeyed } from './keyeds.ts';
import { type LeaseCall, WatchedLimiter } from './limiters.ts';
import { WatchedQueue } from './queues.ts';
import { WatchedResource } from './resources.ts';
import { type PermitCall, WatchedSemaphore } from './semaphores.ts';
import { WatchedSessions } from './sessions.ts';
import { ClockView, Fault, type Sim } from './sim.ts';
import { WatchedStreamer } from './streams.ts';
import { after, Task } from './tasks.ts';

/** A gate whose options are its own affair. */
export interface AnyGate {
  run(
    task: (context: { readonly signal: AbortSignal }) => unknown,
    options?: object,
  ): Promise<unknown>;
}

interface WaitLimits {
  signal: AbortSignal | undefined;
  waitTimeoutMs?: number;
}

type Action = readonly [name: string, weight: number, act: () => void];

/** A promise that there is nothing left to do. */
interface IdleWait {
  readonly of: { readonly active: number; readonly waiting?: number };
  readonly name: string;
}

const QUEUE_EVENTS = [
  'queued',
  'started',
  'completed',
  'failed',
  'cancelled',
  'timedOut',
  'shed',
  'refused',
  'saturated',
  'idle',
  'position',
  'resumed',
  'resized',
  'closed',
] as const satisfies (keyof AdmissionQueueEvents)[];

/** What most of an epoch may be about. */
const FOCUSES = [
  undefined,
  undefined,
  /semaphore|permit|abort/,
  /queue|ticket|abort/,
  /limiter|lease|abort/,
  /session|compose|abort/,
  /stream/,
  /resource|handle|abort/,
  /keyed/,
];

/** For what need not have come when nobody is there any more, but has to come. */
const ITS_OWN_TIME = { active: 1 };

/** What makes lines shorter. */
const ENDS = /^(finish|permit\.release|handle\.release)$/;

/** One of each primitive, in use by a crowd that keeps no rules, for a while. */
export class World {
  readonly #sim: Sim;
  readonly #semaphore: WatchedSemaphore;
  readonly #queue: WatchedQueue;
  readonly #limiter: WatchedLimiter;
  readonly #sessions: WatchedSessions;
  readonly #streamer: WatchedStreamer;
  readonly #resource: WatchedResource;
  readonly #keyed: WatchedKeyed;
  readonly #watches: readonly Watch<Call>[];
  readonly #gates: readonly AnyGate[];
  /** Where a task that runs has to hold a place, by its gate. */
  readonly #holders: ReadonlyMap<AnyGate, readonly Watch<Call>[]>;
  /** The composed tasks that run, by their async contexts. */
  readonly #running = new Map<object, readonly Watch<Call>[]>();
  readonly #actions: readonly Action[];
  readonly #total: number;
  readonly #controllers = new Set<AbortController>();
  readonly #shared: AbortController[] = [];
  readonly #permits = new Set<PermitCall>();
  readonly #leases = new Set<LeaseCall>();
  readonly #handles = new Set<ReturnType<WatchedResource['hold']>>();
  readonly #openSessions = new Set<OpenSession>();
  readonly #idleWaits = new Set<IdleWait>();
  readonly #records: {
    readonly id: string;
    readonly enqueuedAt: number;
    readonly priority: number;
  }[] = [];
  readonly #reentry: number;
  readonly #throws: number;
  readonly #timeouts: boolean;
  #composed = 0;
  #depth = 0;
  /** While something wrong is asked for, nobody else acts: what of theirs is told then was before. */
  #mistaken = false;
  #ids = 0;
  #rests = 0;

  constructor(sim: Sim) {
    const { random } = sim;
    this.#sim = sim;
    sim.stormy = true;
    // Each epoch has a character of its own: what is never done together with what is found nowhere else.
    this.#reentry = random.pick([0, 0.01, 0.03]);
    this.#throws = random.pick([0, 0, 0.02]);
    this.#timeouts = random.chance(0.7);
    const faults = { early: random.chance(0.3), back: random.chance(0.3) };
    const view = (backwards = true): ClockView =>
      new ClockView(sim, { ...faults, back: faults.back && backwards });
    const isHeard = (): boolean => random.chance(0.75);
    const crowded = random.chance(0.06);
    const maxWaiting = (): number => (crowded ? 400 : random.pick([0, 1, 3, 8, 1000, 1000]));

    this.#semaphore = new WatchedSemaphore(
      sim,
      'semaphore',
      view(),
      {
        capacity: random.within(1, 4),
        maxWaiting: maxWaiting(),
        ...(random.chance(0.3) && { maxHoldMs: random.within(5, 30) }),
      },
      isHeard(),
    );
    this.#queue = new WatchedQueue(
      sim,
      'queue',
      view(),
      {
        concurrency: random.within(1, 3),
        maxWaiting: maxWaiting(),
        priorities: random.pick([1, 3, 5, 32]),
        overflow: random.pick(['reject', 'shed']),
        history: random.pick([0, 2, 10, 1000]),
        ...(random.chance(0.5) && { graceMs: random.within(1, 20) }),
        ...(random.chance(0.2) && { waitTimeoutMs: random.within(1, 60) }),
        ...(random.chance(0.2) && { runTimeoutMs: random.within(1, 60) }),
        ...(random.chance(0.5) && { generateId: () => `g${this.#ids++}` }),
      },
      isHeard(),
    );
    const limit = (): { limit: number; intervalMs: number; burst: number } => ({
      limit: random.within(1, 5),
      intervalMs: random.pick([7, 30, 100]),
      burst: random.within(1, 7),
    });
    this.#limiter = new WatchedLimiter(
      sim,
      'limiter',
      view(false),
      {
        limits: { requests: limit(), tokens: limit() },
        maxWaiting: maxWaiting(),
        maxPauseMs: random.pick([50, 300_000]),
        priorities: random.pick([1, 3, 5]),
      },
      isHeard(),
    );
    let sessions = 0;
    this.#sessions = new WatchedSessions(
      sim,
      'sessions',
      view(),
      {
        maxActive: random.pick([1, 4, 1000]),
        timeoutMs: random.pick([20, 100, 30_000]),
        history: random.pick([0, 1, 5, 1000]),
        cleanupTimeoutMs: random.within(1, 30),
        generateId: () => `s${sessions++}`,
        ...(random.chance(0.5) && { graceMs: random.within(1, 20) }),
      },
      isHeard(),
    );
    this.#streamer = new WatchedStreamer(view(), {
      highWaterMark: random.pick([1, 2, 16]),
      stallMs: random.pick([30, 200]),
      teardownGraceMs: random.within(1, 20),
      ...(random.chance(0.4) && { firstTokenTimeoutMs: random.within(3, 60) }),
      ...(random.chance(0.4) && { idleTimeoutMs: random.within(3, 60) }),
      ...(random.chance(0.4) && { timeoutMs: random.within(3, 100) }),
    });
    this.#resource = new WatchedResource(sim, 'resource', view(), {
      maxUsers: random.within(1, 3),
      accessTimeoutMs: random.pick([20, 100]),
      loadTimeoutMs: random.pick([10, 40, 1000]),
      hasFallback: random.chance(0.4),
      ...(random.chance(0.4) && { loadGraceMs: random.within(1, 40) }),
    });
    this.#keyed = new WatchedKeyed(
      sim,
      view(false),
      view(false),
      random.within(1, 4),
      random.within(20, 200),
    );

    const [semaphore, queue, limiter] = [this.#semaphore, this.#queue, this.#limiter];
    this.#watches = [
      semaphore.watch,
      queue.watch,
      limiter.watch,
      this.#sessions.watch,
      this.#resource.watch,
    ] as readonly unknown[] as readonly Watch<Call>[];
    // Each order goes one way, so that nobody waits for whom he keeps waiting.
    const { watch: inSessions } = this.#sessions;
    const { watch: inResource } = this.#resource;
    const [inQueue, inLimiter, inSemaphore] = [queue.watch, limiter.watch, semaphore.watch];
    const gates: readonly (readonly [gate: unknown, watches: readonly unknown[]])[] = [
      [queue, [inQueue]],
      [compose(this.#sessions, queue), [inSessions, inQueue]],
      [compose(queue, limiter), [inQueue, inLimiter]],
      [compose(queue, semaphore), [inQueue, inSemaphore]],
      [
        compose(this.#sessions, queue, limiter, semaphore),
        [inSessions, inQueue, inLimiter, inSemaphore],
      ],
      [compose(limiter, semaphore), [inLimiter, inSemaphore]],
      [compose(queue, this.#resource), [inQueue, inResource]],
      [this.#sessions, [inSessions]],
      [semaphore, [inSemaphore]],
      [limiter, [inLimiter]],
    ];
    const hasGrace = new Set<unknown>([
      ...(queue.watch.options.graceMs === undefined ? [] : [inQueue]),
      ...(this.#sessions.watch.options.graceMs === undefined ? [] : [inSessions]),
    ]);
    this.#gates = gates.map(([gate]) => gate as AnyGate);
    this.#holders = new Map(
      gates.map(([gate, watches]) => [
        gate as AnyGate,
        watches.filter((watch) => !hasGrace.has(watch)) as Watch<Call>[],
      ]),
    );
    if (random.chance(0.5)) {
      for (const gate of [queue, limiter, semaphore]) this.#sessions.observe(gate);
    }
    this.#disturb();
    this.#actions = this.#swarm(crowded);
    this.#total = this.#actions.reduce((sum, [, weight]) => sum + weight, 0);
    sim.reenter = () => {
      if (!sim.stormy || this.#depth >= 3 || this.#mistaken) return;
      if (!random.chance(this.#reentry)) return;
      this.act();
    };
  }

  /** Does one thing. */
  act(): void {
    const { random } = this.#sim;
    let skip = random.below(this.#total);
    for (const [name, weight, act] of this.#actions) {
      skip -= weight;
      if (skip >= 0) continue;
      this.#sim.acts++;
      this.#sim.log(name);
      this.#depth++;
      try {
        if (random.chance(0.3)) this.#sim.context.run({}, act);
        else act();
      } catch (error) {
        this.#sim.inspect(error);
        this.#sim.fail('I6', `${name} throws ${String(error)}`);
      } finally {
        this.#depth--;
      }
      return;
    }
  }

  /** What has to hold whenever nothing is on the stack. */
  check(): void {
    for (const watch of this.#watches) watch.check();
  }

  /** What has to hold when everything that needs no time has happened. */
  checkAtRest(): void {
    this.check();
    for (const watch of this.#watches) watch.checkAtRest();
    this.#streamer.checkAtRest(this.#sim);
    this.#keyed.checkAtRest();
    this.#checkPlaces();
    // The dearest of the checks.
    if (this.#rests++ % 4 === 0) this.#checkListeners();
    for (const wait of this.#idleWaits) {
      if (wait.of.active === 0 && (wait.of.waiting ?? 0) === 0) {
        this.#sim.fail('I10', `${wait.name} is idle, and who waits for that is not told`);
      }
    }
    if (this.#sim.thrown.size > 0) {
      this.#sim.fail('I6', 'what a callback threw has not surfaced');
    }
  }

  /** Brings a bit more to its end; true when nothing is left. */
  windDown(round: number): boolean {
    const sim = this.#sim;
    if (round === 0) {
      sim.stormy = false;
      this.#queue.resume();
      if (sim.random.chance(0.4)) this.#shut();
    }
    sim.acts++;
    for (const call of this.#leases) {
      if (call.lease !== undefined) this.#limiter.watch.ended(call, true, call.lease);
    }
    for (const stream of this.#streamer.streams) stream.finish();
    for (const session of this.#openSessions) void session.end();
    for (const follower of this.#queue.watch.followers) this.#queue.ask(follower);
    this.#openSessions.clear();
    if (round < 2 || this.#isBusy()) return false;
    if (round % 2 === 0) return false;
    return this.#resource.isClosed || this.#close();
  }

  /** Gives back all that is held; false where nothing was. */
  letGo(): boolean {
    const { held } = this.#sim;
    let any = held.size > 0;
    for (const task of held) task.finish();
    for (const call of this.#permits) {
      if (call.permit === undefined) continue;
      any = true;
      this.#semaphore.giveBack(call);
      this.#permits.delete(call);
    }
    for (const call of this.#handles) {
      if (call.handle === undefined) continue;
      any = true;
      this.#resource.giveBack(call);
      this.#handles.delete(call);
    }
    return any;
  }

  checkAtEnd(): void {
    for (const watch of this.#watches) watch.checkAtEnd();
    this.#streamer.checkAtEnd(this.#sim);
    this.#keyed.checkAtEnd();
    if (this.#composed > 0)
      this.#sim.fail('I6', `${this.#composed} composed calls are not answered`);
    for (const { name } of this.#idleWaits)
      this.#sim.fail('I10', `who waits for ${name} is not told`);
    for (const signal of this.#sim.signals) {
      const left =
        getEventListeners(signal, 'abort').length - (this.#sim.ownListeners.get(signal) ?? 0);
      if (left > 0) this.#sim.fail('I7', `${left} listeners are left`);
    }
    this.#sim.signals.clear();
  }

  /** The last thing: what was loaded is disposed of. */
  #close(): boolean {
    this.#wait('the end of the resource', ITS_OWN_TIME, () => this.#resource.close());
    return false;
  }

  #isBusy(): boolean {
    return (
      this.#watches.some((watch) => watch.calls.size > 0) ||
      this.#streamer.streams.size > 0 ||
      this.#sessions.active > 0 ||
      this.#sim.clock.timers > 0
    );
  }

  #shut(): void {
    const { random } = this.#sim;
    const how = (): { readonly waiting: 'finish' | 'reject' } => ({
      waiting: random.pick(['finish', 'reject']),
    });
    for (const gate of [this.#queue, this.#limiter, this.#semaphore]) {
      if (random.chance(0.5)) gate.close(how());
      else this.#wait(`drain of ${gate.watch.name}`, gate, () => gate.drain());
    }
    const report = this.#sessions.shutdown({
      drainMs: random.pick([0, 20, 1000]),
      forceMs: random.pick([0, 20, 1000]),
    });
    this.#wait('shutdown', ITS_OWN_TIME, () => report);
  }

  /** Waits for something that is not to come before `of` is idle, and then has to. */
  #wait(name: string, of: IdleWait['of'], begin: () => Promise<unknown>): void {
    const wait = { of, name };
    this.#idleWaits.add(wait);
    void begin().then(() => this.#idleWaits.delete(wait));
  }

  /** As many listeners on each signal as there are primitives with somebody to tell (I7). */
  #checkListeners(): void {
    const sim = this.#sim;
    const needed = new Map<AbortSignal, number>();
    const used = new Set<AbortSignal>();
    for (const watch of this.#watches) {
      for (const signal of watch.signals()) needed.set(signal, (needed.get(signal) ?? 0) + 1);
      for (const { limits } of watch.calls)
        if (limits.signal !== undefined) used.add(limits.signal);
    }
    const streams = this.#streamer.signals();
    for (const signal of sim.signals) {
      const own = sim.ownListeners.get(signal) ?? 0;
      const count = getEventListeners(signal, 'abort').length - own;
      const least = needed.get(signal) ?? 0;
      const most = least + (streams.has(signal) ? 1 : 0);
      if (!signal.aborted && (count < least || count > most)) {
        sim.fail('I7', `${count} listeners on a signal, ${least} to ${most} needed`);
      }
      if (count === 0 && !used.has(signal) && !streams.has(signal)) sim.signals.delete(signal);
    }
  }

  /** Listeners that do things and throw, on some of the events. */
  #disturb(): void {
    const { random } = this.#sim;
    if (!random.chance(0.5)) return;
    const chaos = (): void => {
      this.#sim.reenter();
      this.#sim.perhapsThrow(this.#throws);
    };
    for (const name of QUEUE_EVENTS) if (random.chance(0.3)) this.#queue.on(name, chaos);
    for (const name of [
      'queued',
      'acquired',
      'released',
      'cancelled',
      'timedOut',
      'idle',
    ] as const) {
      if (random.chance(0.3)) this.#semaphore.on(name, chaos);
    }
    for (const name of ['queued', 'granted', 'limited', 'cancelled', 'settled', 'idle'] as const) {
      if (random.chance(0.3)) this.#limiter.on(name, chaos);
    }
    for (const name of ['started', 'completed', 'failed', 'cancelled', 'timedOut'] as const) {
      if (random.chance(0.3)) this.#sessions.on(name, chaos);
    }
    for (const name of [
      'queued',
      'acquired',
      'released',
      'loading',
      'loaded',
      'disposed',
    ] as const) {
      if (random.chance(0.3)) this.#resource.on(name, chaos);
    }
  }

  #signal(): AbortSignal | undefined {
    const { random } = this.#sim;
    const kind = random.below(10);
    if (kind < 4) return undefined;
    if (kind === 4 || kind === 5) {
      const slot = random.below(3);
      const shared = this.#shared[slot];
      if (shared?.signal.aborted === false) return shared.signal;
      this.#shared[slot] = this.#controller();
      return this.#shared[slot].signal;
    }
    if (kind === 6 && random.chance(0.3)) return AbortSignal.abort(new Fault('aborted before'));
    return this.#controller().signal;
  }

  #controller(): AbortController {
    const controller = new AbortController();
    this.#controllers.add(controller);
    if (this.#controllers.size > 30) {
      const [oldest] = this.#controllers;
      this.#controllers.delete(oldest!);
    }
    return controller;
  }

  /** The options of a call that any gate may take. */
  #limits(): WaitLimits {
    const { random } = this.#sim;
    const signal = this.#signal();
    if (!this.#timeouts || random.chance(0.6)) return { signal };
    return { signal, waitTimeoutMs: random.chance(0.1) ? 0 : random.within(1, 60) };
  }

  #runLimits(): WaitLimits & { runTimeoutMs?: number } {
    const { random } = this.#sim;
    const limits = this.#limits();
    if (!this.#timeouts || random.chance(0.6)) return limits;
    return { ...limits, runTimeoutMs: random.within(1, 40) };
  }

  #graced(): WaitLimits & { runTimeoutMs?: number; graceMs?: number } {
    const { random } = this.#sim;
    const limits = this.#runLimits();
    return random.chance(0.3) ? { ...limits, graceMs: random.within(1, 20) } : limits;
  }

  #task(): (context: { readonly signal: AbortSignal }) => unknown {
    const task = new Task(this.#sim);
    return (context) => task.start(context);
  }

  #id(): string {
    const { random } = this.#sim;
    // Now and then one that is there already.
    return random.chance(0.03) ? `q${random.below(this.#ids + 1)}` : `q${this.#ids++}`;
  }

  #priority(): { readonly priority?: number } {
    const { random } = this.#sim;
    const { priorities = 5 } = this.#queue.watch.options;
    return random.chance(0.3) ? {} : { priority: random.within(1, Math.min(priorities, 4)) };
  }

  #quiet(promise: Promise<unknown>): void {
    promise.catch((error: unknown) => this.#sim.inspect(error));
  }

  #swarm(crowded: boolean): Action[] {
    const { random } = this.#sim;
    const [semaphore, queue, limiter] = [this.#semaphore, this.#queue, this.#limiter];
    const [sessions, resource, streamer] = [this.#sessions, this.#resource, this.#streamer];
    const weight = (): number => random.pick([0.6, 1, 1, 2]);
    const weightRun = (): { weight?: number } =>
      random.chance(0.5) ? {} : { weight: random.within(1, 4) };
    const cost = (): { cost?: number | { requests?: number; tokens?: number } } =>
      random.chance(0.3)
        ? {}
        : {
            cost: random.chance(0.3)
              ? random.within(1, 4)
              : { requests: random.below(3), tokens: random.within(1, 5) },
          };
    const urgency = (): { priority?: number } =>
      random.chance(0.5) ? {} : { priority: random.within(1, limiter.watch.options.priorities) };
    const waitingTicket = (): string | undefined => {
      const { line } = queue.watch;
      return line.length === 0 ? undefined : line[random.below(line.length)]!.call.key;
    };
    const actions: Action[] = [
      [
        'semaphore.acquire',
        3,
        () => this.#permits.add(semaphore.hold({ ...weightRun(), ...this.#limits() })),
      ],
      [
        'semaphore.tryAcquire',
        2,
        () => {
          const call = semaphore.tryHold(random.within(1, 3));
          if (call !== undefined) this.#permits.add(call);
        },
      ],
      [
        'semaphore.run',
        4,
        () => {
          this.#quiet(semaphore.run(this.#task(), { ...weightRun(), ...this.#graced() }));
        },
      ],
      [
        'permit.release',
        6,
        () => {
          const call = random.chance(0.5) ? [...this.#permits][0] : random.among(this.#permits);
          if (call === undefined) return;
          semaphore.giveBack(call);
          if (call.over && random.chance(0.8)) this.#permits.delete(call);
        },
      ],
      ['semaphore.resize', 1, () => semaphore.resize(random.within(1, 5))],
      [
        'queue.run',
        4,
        () => {
          const isPlain = random.chance(0.2);
          this.#quiet(
            isPlain
              ? queue.run(this.#task())
              : queue.run(this.#task(), {
                  id: this.#id(),
                  ...this.#priority(),
                  ...this.#runLimits(),
                }),
          );
        },
      ],
      [
        'queue.enqueue',
        4,
        () => {
          queue.enqueue(this.#task(), {
            id: this.#id(),
            ...this.#priority(),
            ...this.#runLimits(),
          });
        },
      ],
      ['queue.enqueue, plain', 2, () => void queue.enqueue(this.#task(), this.#priority())],
      [
        'queue.setPriority',
        3,
        () => {
          const id = waitingTicket();
          if (id !== undefined && id !== '')
            queue.setPriority(id, random.within(1, queue.watch.options.priorities!));
        },
      ],
      ['queue.cancel', 2, () => this.#cancel(random.chance(0.7) ? waitingTicket() : undefined)],
      ['queue.pause', 2, () => (random.chance(0.4) ? queue.pause() : queue.resume())],
      ['queue.resize', 1, () => queue.resize(random.within(1, 4))],
      ['queue.restore', 4, () => this.#restore()],
      [
        'ticket.positions',
        2,
        () => {
          const call = random.among(queue.watch.calls);
          if (call?.waits === true && queue.watch.followers.size < 6) queue.followPlace(call);
          for (const follower of queue.watch.followers) if (random.chance(0.5)) queue.ask(follower);
        },
      ],
      [
        'limiter.acquire',
        3,
        () => this.#leases.add(limiter.hold({ ...cost(), ...urgency(), ...this.#limits() })),
      ],
      [
        'limiter.tryAcquire',
        3,
        () => {
          const call = limiter.tryHold(random.within(1, 3));
          if (call !== undefined) this.#leases.add(call);
        },
      ],
      [
        'limiter.run',
        3,
        () => {
          this.#quiet(limiter.run(this.#task(), { ...cost(), ...urgency(), ...this.#limits() }));
        },
      ],
      ['lease.settle', 3, () => this.#settle()],
      ['limiter.pause', 1, () => limiter.pause(random.pick([0, 1, 5, 30, 80]))],
      [
        'limiter.sync',
        1,
        () => {
          const count = (): { remaining: number; resetMs?: number } => ({
            remaining: random.below(5),
            ...(random.chance(0.7) && { resetMs: random.pick([0, 3, 20, 60]) }),
          });
          limiter.sync(
            {
              ...(random.chance(0.7) && { requests: count() }),
              ...(random.chance(0.5) && { tokens: count() }),
            },
            { raise: random.chance(0.2) },
          );
        },
      ],
      [
        'limiter.configure',
        1,
        () => {
          const name = random.pick(['requests', 'tokens'] as const);
          limiter.configure({
            [name]: {
              limit: random.within(1, 6),
              ...(random.chance(0.5) && { burst: random.within(1, 8) }),
              ...(random.chance(0.3) && { intervalMs: random.pick([7, 10, 30, 100]) }),
            },
          });
        },
      ],
      [
        'sessions.run',
        3,
        () => {
          this.#quiet(
            sessions.run(this.#task(), {
              signal: this.#signal(),
              ...(random.chance(0.4) && { timeoutMs: random.within(1, 50) }),
            }),
          );
        },
      ],
      [
        'sessions.open',
        1,
        () => {
          const opened = sessions.begin({
            signal: this.#signal(),
            ...(random.chance(0.4) && { timeoutMs: random.within(1, 50) }),
          });
          if (opened !== undefined) this.#openSessions.add(opened.session);
        },
      ],
      [
        'session.end',
        2,
        () => {
          const session = random.among(this.#openSessions);
          if (session === undefined) return;
          this.#openSessions.delete(session);
          void session.end(random.chance(0.3) ? new Fault('of a session') : undefined);
        },
      ],
      [
        'session.defer',
        1,
        () => {
          for (const call of sessions.watch.present.values()) {
            if (call.session?.status === 'active' && random.chance(0.5)) sessions.watch.defer(call);
          }
        },
      ],
      ['compose', 5, () => this.#compose()],
      ['stream', 4, () => this.#stream()],
      [
        'stream.read',
        12,
        () => {
          const stream = random.among(streamer.streams);
          stream?.act();
        },
      ],
      ['resource.run', 2, () => this.#quiet(resource.run(this.#task(), this.#graced()))],
      ['resource.acquire', 2, () => this.#handles.add(resource.hold(this.#limits()))],
      [
        'handle.release',
        3,
        () => {
          const call = random.among(this.#handles);
          if (call === undefined) return;
          resource.giveBack(call);
          if (call.over) this.#handles.delete(call);
        },
      ],
      [
        'resource.reload',
        1,
        () => this.#quiet(random.chance(0.5) ? resource.reload() : resource.preload()),
      ],
      ['resource.cancelLoading', 1, () => resource.cancelLoading()],
      ['resource.configure', 1, () => resource.configure({ maxUsers: random.within(1, 4) })],
      ['keyed', 4, () => this.#keyed.act()],
      [
        'abort',
        7,
        () => {
          const controller = random.chance(0.3)
            ? this.#shared[random.below(3)]
            : random.among(this.#controllers);
          if (controller !== undefined) this.#abort(controller);
        },
      ],
      ['abort a waiter', 8, () => this.#abortWaiter()],
      ['abort a race', 4, () => this.#race()],
      ['finish', 12, () => random.among(this.#sim.held)?.finish()],
      [
        'later',
        2,
        () => {
          this.#sim.clock.setTimeout(() => this.#sim.stormy && this.act(), random.within(0, 30));
        },
      ],
      [
        'idle',
        1,
        () => {
          const gate = random.pick([semaphore, queue, limiter]);
          this.#wait(gate.watch.name, gate, () => gate.idle());
        },
      ],
      ['bad options', 1, () => this.#mistake()],
    ];
    if (crowded) {
      actions.push([
        'a crowd',
        8,
        () => {
          for (let count = random.within(5, 30); count > 0; count--) {
            const kind = random.below(3);
            if (kind === 0) this.#permits.add(semaphore.hold(this.#limits()));
            else
              queue.enqueue(this.#task(), {
                id: this.#id(),
                ...this.#priority(),
                ...this.#runLimits(),
              });
          }
        },
      ]);
    }
    const focus = random.pick(FOCUSES);
    // Where little comes to its end there are long lines.
    const pace = random.pick([0.15, 0.4, 1]);
    return actions.map(([name, times, act]) => [
      name,
      Math.ceil(
        10 * times * weight() * (focus?.test(name) === true ? 5 : 1) * (ENDS.test(name) ? pace : 1),
      ),
      act,
    ]);
  }

  #abort(controller: AbortController): void {
    this.#controllers.delete(controller);
    controller.abort(this.#sim.random.pick([new Fault('aborted'), undefined, 'a string', 0]));
  }

  /** A place comes free, and whoever gets it is aborted before it can know. */
  #race(): void {
    const { random, held } = this.#sim;
    const [semaphore, queue] = [this.#semaphore, this.#queue];
    const call = random.among(this.#permits);
    let watch: Watch<Call> | undefined;
    const what = random.below(4);
    if (what === 0) {
      random.among(held)?.finish();
    } else if (what === 1) {
      watch = queue.watch as unknown as Watch<Call>;
      queue.resize(Math.min(5, queue.concurrency + 1));
    } else if (what === 2) {
      watch = this.#limiter.watch as unknown as Watch<Call>;
      this.#settle();
    } else {
      watch = semaphore.watch as unknown as Watch<Call>;
      if (call?.permit === undefined) semaphore.resize(Math.min(6, semaphore.capacity + 1));
      else semaphore.giveBack(call);
    }
    void after(random.below(3), () => {
      if (this.#sim.stormy) this.#abortWaiter(watch);
    });
  }

  /** The first in line of some primitive leaves, or another one who waits. */
  #abortWaiter(watch?: Watch<Call>): void {
    const { random } = this.#sim;
    const lines = this.#watches.filter(({ waiting }) => waiting.length > 1);
    const { waiting } = watch ?? random.pick(lines.length > 0 ? lines : this.#watches);
    const call = random.chance(0.6) ? waiting[0] : waiting[random.below(waiting.length)];
    for (const controller of this.#controllers) {
      if (controller.signal === call?.limits.signal) this.#abort(controller);
    }
  }

  #cancel(id: string | undefined): void {
    const queue = this.#queue;
    const call = id === undefined ? this.#sim.random.among(queue.watch.calls) : queue.callOf(id);
    if (call?.ticket === undefined) return;
    const { status } = call.ticket;
    const reason = new Fault('cancelled');
    const isPending = status === 'waiting' || status === 'active';
    if (isPending) call.dismissal = { reason };
    if (call.ticket.cancel(reason) !== isPending)
      queue.watch.fail('Q6', `cancel of one that is ${status}`);
  }

  /** A ticket leaves and comes again with its record. */
  #restore(): void {
    const { random } = this.#sim;
    const queue = this.#queue;
    if (this.#records.length > 0 && random.chance(0.6)) {
      const record = this.#records.splice(random.below(this.#records.length), 1)[0]!;
      const { id, enqueuedAt, priority } = record;
      queue.enqueue(this.#task(), { id, enqueuedAt, priority, ...this.#runLimits() });
      return;
    }
    const place = queue.watch.line[random.below(queue.watch.line.length)];
    if (place?.call.ticket?.status !== 'waiting') return;
    const { enqueuedAt, priority } = place.call.ticket.toJSON();
    // One that the queue has made is not the same each time.
    const id = place.call.key === '' ? this.#id() : place.call.key;
    if (enqueuedAt !== place.placedAt) queue.watch.fail('Q3', `a record says ${enqueuedAt}`);
    this.#records.push({ id, enqueuedAt, priority });
    this.#cancel(place.call.key === '' ? undefined : place.call.key);
  }

  #settle(): void {
    const { random } = this.#sim;
    const call = random.among(this.#leases);
    if (call?.lease === undefined) return;
    if (random.chance(0.8)) this.#leases.delete(call);
    const isCancelled = typeof call.lease.cost === 'number' || random.chance(0.3);
    const [requests, tokens] = call.demand as [number, number];
    this.#limiter.settleLease(
      call,
      isCancelled
        ? undefined
        : {
            ...(random.chance(0.8) && { requests: random.below(requests + 2) }),
            ...(random.chance(0.8) && { tokens: random.below(tokens + 4) }),
          },
    );
  }

  #compose(): void {
    const gate = this.#sim.random.pick(this.#gates);
    const token = {};
    this.#composed++;
    const over = (): void => void this.#composed--;
    const task = this.#task();
    const tapped = (context: { readonly signal: AbortSignal }): unknown => {
      const result = task(context);
      this.#running.set(token, this.#holders.get(gate)!);
      whenOver(this.#sim, result, () => this.#running.delete(token));
      return result;
    };
    const promise = this.#sim.context.run(token, () => gate.run(tapped, this.#optionsFor(gate)));
    promise.then(over, (error: unknown) => {
      over();
      this.#sim.inspect(error);
    });
  }

  /** While a task runs it holds a place in each of its gates, unless one has a grace. */
  #checkPlaces(): void {
    for (const [token, watches] of this.#running) {
      for (const watch of watches) {
        const holds = [...watch.calls].some(
          (call) => call.context === token && call.startedAt !== undefined && !call.over,
        );
        if (!holds) watch.fail('I1', 'a task runs without a place');
      }
    }
  }

  #stream(): void {
    const { random } = this.#sim;
    if (this.#streamer.streams.size > 5) return;
    const gate = random.chance(0.8) ? random.pick(this.#gates) : undefined;
    const { signal, ...options } = this.#optionsFor(gate);
    this.#streamer.make(this.#sim, gate, gate === undefined ? {} : options, signal);
  }

  /** Options that this gate knows. */
  #optionsFor(gate: AnyGate | undefined): { signal: AbortSignal | undefined } {
    const { signal, ...limits } = this.#limits();
    const isBare = gate === undefined || gate === (this.#sessions as unknown);
    return isBare ? { signal } : { signal, ...limits };
  }

  /** What cannot be: it is refused, and nothing has changed. */
  #mistake(): void {
    const { random } = this.#sim;
    const before = this.#gauges();
    this.#mistaken = true;
    const bad = random.pick([
      { weight: 0 },
      { cost: -1 },
      { priority: 99 },
      { waitTimeoutMs: NaN },
      { signal: {} },
      { concurency: 2 },
    ]);
    for (const gate of [this.#semaphore, this.#queue, this.#limiter]) {
      const run = Object.getPrototypeOf(Object.getPrototypeOf(gate)).run as AnyGate['run'];
      run
        .call(gate, () => this.#sim.fail('I6', 'a task runs with bad options'), bad)
        .then(
          () => this.#sim.fail('I6', 'bad options are taken'),
          (error: unknown) => {
            if (!(error instanceof TypeError || error instanceof RangeError)) {
              this.#sim.fail('I6', `bad options are ${String(error)}`);
            }
          },
        );
    }
    for (const call of [
      () => this.#semaphore.resize(0),
      () => this.#queue.resize(1.5),
      () => this.#limiter.pause(-1),
    ]) {
      try {
        call();
        this.#sim.fail('I6', 'bad arguments are taken');
      } catch (error) {
        if (!(error instanceof RangeError)) this.#sim.fail('I6', String(error));
      }
    }
    this.#mistaken = false;
    if (this.#gauges() !== before) this.#sim.fail('I6', 'bad options have changed something');
  }

  #gauges(): string {
    return [this.#semaphore, this.#queue, this.#limiter]
      .map(({ active, waiting }) => `${active}/${waiting}`)
      .join();
  }
}
