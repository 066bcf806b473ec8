import {
  AdmissionQueue,
  type AdmissionQueueEvents,
  type AdmissionQueueOptions,
  type EnqueueOptions,
  type QueueContext,
  type Ticket,
} from '../../src/admission-queue.ts';
import { Call, type Limits, type Verdict, Watch } from './calls.ts';
import { isTimed } from './semaphores.ts';
import type { ClockView, Sim } from './sim.ts';

class TicketCall extends Call {
  readonly key: string;
  ticket: Ticket | undefined;
  /** It may change its mind; the call's own is that of its arrival. */
  urgency: number;
  lastStatus = 'waiting';
  /** Whether anybody reads its result: otherwise how it ended is seen from its ticket. */
  isFollowed = true;
  /** Those who stood before it when it was let in. */
  ahead: readonly TicketCall[] = [];
  /** Set when the queue was full and this one had to go. */
  isVictim = false;

  constructor(key: string, ...rest: ConstructorParameters<typeof Call>) {
    super(...rest);
    this.key = key;
    this.urgency = this.priority;
  }

  /** When a ticket that nobody follows was answered is not known: it says itself what it holds. */
  override holds(now: number): boolean {
    if (this.isFollowed || this.over || this.startedAt === undefined) return super.holds(now);
    return this.ticket?.position === 0;
  }

  override get waits(): boolean {
    return super.waits && !this.verdict.startsWith('ERR') && this.verdict !== 'aborted';
  }
}

/** What somebody who follows a place in line has been told. */
interface Follower {
  readonly call: TicketCall;
  readonly iterator: AsyncIterator<number>;
  asking: boolean;
  last: number | undefined;
  done: boolean;
}

const IDS = { most: 'Q1', active: 'Q1', order: 'Q3', head: 'Q3', once: 'Q6' };

class QueueWatch extends Watch<TicketCall> {
  readonly #of: WatchedQueue;
  readonly options: AdmissionQueueOptions;
  /** Those who wait in the order in which they are to start, and where they stand. */
  line: { readonly call: TicketCall; readonly placedAt: number }[] = [];
  readonly followers = new Set<Follower>();
  readonly finished: string[] = [];
  /** Who got in with an id for the last time. */
  readonly latest = new Map<string, TicketCall>();
  replay: Set<string> | undefined;
  paused = false;
  /** Whether it has been paused since before everything was at rest. */
  #restsPaused = false;
  readonly counts = { accepted: 0, completed: 0, failed: 0, refused: 0, overrun: 0 };

  constructor(
    sim: Sim,
    name: string,
    clock: ClockView,
    of: WatchedQueue,
    options: AdmissionQueueOptions,
  ) {
    super(sim, name, clock, IDS);
    this.#of = of;
    this.options = options;
    this.room = of.concurrency;
  }

  verdictOn(options: EnqueueOptions, priority: number): Verdict {
    const of = this.#of;
    if (of.isClosed) return 'ERR_CLOSED';
    if (options.signal?.aborted === true) return 'aborted';
    if (options.id !== undefined && of.position(options.id) >= 0) return 'ERR_DUPLICATE_ID';
    if (!this.paused && of.active < of.concurrency) return 'grant';
    if (of.waiting >= (this.options.maxWaiting ?? 1000) && !this.#sheds(priority)) {
      return 'ERR_QUEUE_FULL';
    }
    return options.waitTimeoutMs === 0 ? 'ERR_WAIT_TIMEOUT' : 'wait';
  }

  come(options: EnqueueOptions): TicketCall {
    const priority =
      options.priority ?? this.options.defaultPriority ?? this.options.priorities ?? 5;
    const verdict = this.verdictOn(options, priority);
    const limits: Limits = {
      signal: options.signal,
      waitTimeoutMs: options.waitTimeoutMs ?? this.options.waitTimeoutMs,
      runTimeoutMs: options.runTimeoutMs ?? this.options.runTimeoutMs,
      graceMs: this.options.graceMs,
    };
    const call = new TicketCall(
      options.id ?? '',
      this.nextId(),
      verdict,
      1,
      priority,
      limits,
      this.sim.now,
      this.sim.context.getStore(),
    );
    this.arrived(call);
    this.sim.log(`queue ${call.id} is ${call.key}`);
    if (verdict === 'wait') {
      if (this.#of.waiting >= (this.options.maxWaiting ?? 1000)) {
        const victim = this.#standing().at(-1)!.call;
        victim.isVictim = true;
        victim.allowed = 'ERR_SHED';
        this.sim.log(`${this.name} ${victim.id} has to go`);
      }
      if (options.enqueuedAt !== undefined) this.reordered = true;
      this.place(call, Math.min(options.enqueuedAt ?? this.sim.now, this.sim.now));
    } else if (verdict !== 'grant') this.counts.refused++;
    if (verdict === 'wait' || verdict === 'grant') {
      this.counts.accepted++;
      this.latest.set(call.key, call);
    }
    return call;
  }

  resumes(): void {
    this.paused = false;
    this.#restsPaused = false;
  }

  /** Behind all of its priority who came before. */
  place(call: TicketCall, placedAt: number): void {
    this.line = this.line.filter((place) => place.call !== call);
    const behind = this.line.findIndex(
      (place) =>
        place.call.urgency > call.urgency ||
        (place.call.urgency === call.urgency && place.placedAt > placedAt),
    );
    this.line.splice(behind === -1 ? this.line.length : behind, 0, { call, placedAt });
  }

  override begun(call: TicketCall): void {
    super.begun(call);
    if (this.#restsPaused) this.fail('Q3', `${call.id} starts in a pause`);
    const index = this.line.findIndex((place) => place.call === call);
    call.ahead = this.line.slice(0, Math.max(index, 0)).map((place) => place.call);
  }

  override precedes(a: TicketCall, b: TicketCall): boolean {
    return !this.reordered && b.ahead.includes(a);
  }

  /** A ticket whose result nobody reads is over when it says so itself. */
  #notice(call: TicketCall, status: string): void {
    const { outcome } = call;
    if (status === 'completed' && outcome?.ok !== true) this.fail('Q6', `${call.id} is completed`);
    if (status === 'failed' && outcome?.ok !== false) this.fail('Q6', `${call.id} has failed`);
    call.answeredAt = this.sim.now;
    this.sim.log(`${this.name} ${call.id} is ${status}`);
    this.forget(call);
  }

  protected override forget(call: TicketCall): void {
    super.forget(call);
    const isLost = call.graceEndsAt <= this.sim.now;
    if (!this.calls.has(call) && !isLost && (call.verdict === 'wait' || call.verdict === 'grant')) {
      this.finished.push(call.key);
    }
  }

  override check(): void {
    const of = this.#of;
    if (of.waiting > (this.options.maxWaiting ?? 1000)) this.fail('Q2', `${of.waiting} wait`);
    if (of.active < 0 || of.waiting < 0) this.fail('Q1', 'less than nothing');
    if (this.replay !== undefined && this.replay.size !== of.waiting) {
      this.fail('I9', `events say ${this.replay.size} wait, it says ${of.waiting}`);
    }
  }

  override checkAtRest(): void {
    for (const call of this.calls) this.#checkStatus(call);
    super.checkAtRest();
    const of = this.#of;
    const { sim } = this;
    this.room = of.concurrency;
    this.#restsPaused = this.paused;
    this.line = this.#standing();
    const { live, line } = this;
    if (live !== of.active) this.fail('Q1', `${live} run, it says ${of.active}`);
    if (line.length !== of.waiting) {
      this.fail('Q6', `${line.length} wait, it says ${of.waiting}`);
    }
    if (line.length > 0 && !this.paused && live < of.concurrency) {
      this.fail('Q3', `${line[0]!.call.id} waits though a place is free`);
    }
    this.#checkPositions();
    let timers = 0;
    for (const call of this.calls) {
      const { waitTimeoutMs = Infinity, runTimeoutMs = Infinity } = call.limits;
      if (
        call.waits ? waitTimeoutMs < Infinity : call.holds(sim.now) && isTimed(call, runTimeoutMs)
      ) {
        timers = 1;
      }
    }
    if (this.clock.armed !== timers)
      this.fail('I8', `${this.clock.armed} timers, ${timers} needed`);
  }

  override checkAtEnd(): void {
    super.checkAtEnd();
    for (const follower of this.followers) {
      if (follower.asking)
        this.fail('Q5', `who follows ${follower.call.id} is not told of its end`);
    }
    const { accepted, refused, completed, failed, cancelled, timedOut, shed } = this.#of.stats();
    if (accepted !== this.counts.accepted) this.fail('Q6', `${accepted} accepted`);
    if (refused !== this.counts.refused)
      this.fail('Q6', `${refused} refused, not ${this.counts.refused}`);
    if (accepted !== completed + failed + cancelled + timedOut + shed) {
      this.fail('Q6', `${accepted} accepted and not as many ended`);
    }
  }

  #standing(): { readonly call: TicketCall; readonly placedAt: number }[] {
    // Answers are seen a bit later than they are given; a ticket knows whether the queue has heard its
    // signal yet, which others are told of before.
    return this.line.filter(
      ({ call }) =>
        call.waits &&
        !call.isVictim &&
        (call.ticket === undefined
          ? call.limits.signal?.aborted !== true
          : call.ticket.status === 'waiting'),
    );
  }

  #sheds(priority: number): boolean {
    const last = this.#standing().at(-1);
    return this.options.overflow === 'shed' && last !== undefined && last.call.urgency > priority;
  }

  /** Each of them in a way of its own (Q5): all of the line, its iterators, and the ids. */
  #checkPositions(): void {
    const of = this.#of;
    const { line } = this;
    for (let index = 0; index < line.length; index++) {
      const { call } = line[index]!;
      const position =
        call.ticket?.position ?? (call.key === '' ? index + 1 : of.position(call.key));
      if (position !== index + 1) {
        this.fail('Q5', `${call.id} is number ${position}, and should be number ${index + 1}`);
      }
    }
    if (line.length < 20) {
      let index = -of.active;
      for (const ticket of of.tickets()) {
        const expected = line[index++]?.call.ticket;
        if (ticket.position !== Math.max(0, index)) this.fail('Q5', 'tickets() are not in order');
        if (expected !== undefined && expected !== ticket)
          this.fail('Q3', 'the line is not in order');
      }
    }
    const waitMs = of.estimateWaitMs();
    if (waitMs !== undefined && !(waitMs >= 0)) this.fail('Q5', `an estimate of ${waitMs} ms`);
    if ((this.options.history ?? 1000) >= 1000) {
      for (const id of this.finished.slice(-3)) {
        if (id !== '' && of.callOf(id) === undefined && of.position(id) !== -1) {
          this.fail('Q5', `${id} is over, and its position is ${of.position(id)}`);
        }
      }
    }
    for (const follower of this.followers) this.#checkFollower(follower);
  }

  #checkFollower({ call, asking, last, done }: Follower): void {
    if (!asking) return;
    const position = call.ticket!.position;
    if (last !== position || position <= 0) {
      this.fail('Q5', `who follows ${call.id} was told ${String(last)} and not ${position}`);
    }
    if (done) this.fail('Q5', 'a follower asks after the end');
  }

  #checkStatus(call: TicketCall): void {
    const { ticket } = call;
    if (ticket === undefined) return;
    const { status } = ticket;
    const was = call.lastStatus;
    if (status !== was && was !== 'waiting' && was !== 'active') {
      this.fail('Q6', `${call.id} was ${was} and is ${status}`);
    }
    if (was === 'active' && status === 'waiting') this.fail('Q6', `${call.id} waits again`);
    call.lastStatus = status;
    if (call.isVictim && status !== 'shed' && call.answeredAt === undefined) {
      this.fail('Q2', `${call.id} was to be shed and is ${status}`);
    }
    if (status === 'shed' && !call.isVictim) this.fail('Q2', `${call.id} was shed for no reason`);
    const isFinal = status !== 'waiting' && status !== 'active';
    if (!call.isFollowed && isFinal && call.answeredAt === undefined) this.#notice(call, status);
    if (call.holds(this.sim.now) !== (ticket.position === 0)) {
      this.fail('Q5', `${call.id} is ${status} and its position is ${ticket.position}`);
    }
  }
}

export class WatchedQueue extends AdmissionQueue {
  readonly watch: QueueWatch;
  isClosed = false;

  constructor(
    sim: Sim,
    name: string,
    clock: ClockView,
    options: AdmissionQueueOptions,
    heard: boolean,
  ) {
    super({ ...options, clock });
    this.watch = new QueueWatch(sim, name, clock, this, options);
    if (heard) this.#listen();
  }

  override run<T>(
    task: (context: QueueContext) => T | PromiseLike<T>,
    options: EnqueueOptions = {},
  ): Promise<T> {
    const { watch } = this;
    const call = watch.come(options);
    const { onTicket } = options;
    // Most callers do not want their tickets; of those the ledger sees a bit late that time is over.
    const expires = call.limits.waitTimeoutMs !== undefined;
    const isPlain = onTicket === undefined && call.id % 3 === 0 && !expires;
    const promise = super.run(
      watch.tap(call, task),
      isPlain
        ? options
        : {
            ...options,
            onTicket: (ticket) => {
              this.#ticketed(call, ticket);
              onTicket?.(ticket);
            },
          },
    );
    watch.follow(call, promise);
    return promise;
  }

  override enqueue<T>(
    task: (context: QueueContext) => T | PromiseLike<T>,
    options: EnqueueOptions = {},
  ): Ticket<T> {
    const { watch } = this;
    const call = watch.come(options);
    const ticket = super.enqueue(watch.tap(call, task), {
      ...options,
      onTicket: (early) => this.#ticketed(call, early),
    });
    call.ticket ??= ticket;
    if (call.ticket !== ticket) watch.fail('Q6', 'two tickets for one call');
    call.isFollowed = call.id % 4 !== 1;
    if (call.isFollowed) watch.follow(call, ticket.result);
    return ticket;
  }

  override setPriority(id: string, priority: number): boolean {
    const call = this.callOf(id);
    const moves = this.position(id) > 0;
    if (call !== undefined && moves && call.urgency !== priority) {
      call.urgency = priority;
      this.watch.reordered = true;
      this.watch.place(call, this.watch.sim.now);
    }
    this.watch.sim.log(`queue ${call?.id} to ${priority}`);
    const moved = super.setPriority(id, priority);
    if (moved !== moves) this.watch.fail('Q3', `setPriority of ${id} says ${moved}`);
    return moved;
  }

  override pause(): void {
    this.watch.paused = true;
    super.pause();
  }

  override resume(): void {
    this.watch.resumes();
    super.resume();
  }

  override resize(concurrency: number): void {
    this.watch.sim.log(`queue of ${concurrency}`);
    const { acts } = this.watch.sim;
    this.watch.room = Math.max(this.watch.room, concurrency);
    super.resize(concurrency);
    // It may have been changed again by a callback.
    if (this.watch.sim.acts === acts && this.concurrency !== concurrency) {
      this.watch.fail('Q1', `its concurrency is ${this.concurrency}, not ${concurrency}`);
    }
  }

  override close(options?: { readonly waiting?: 'finish' | 'reject' | undefined }): void {
    this.isClosed = true;
    if (options?.waiting === 'reject') this.watch.rejectsWaiting = true;
    super.close(options);
  }

  /** Follows a place in line, asking when the world says so. */
  followPlace(call: TicketCall): void {
    if (call.ticket === undefined) return;
    const iterator = call.ticket.positions()[Symbol.asyncIterator]();
    this.watch.followers.add({ call, iterator, asking: false, last: undefined, done: false });
  }

  ask(follower: Follower): void {
    if (follower.asking || follower.done) return;
    const { watch } = this;
    follower.asking = true;
    void follower.iterator.next().then(({ done, value }) => {
      follower.asking = false;
      if (done === true) {
        follower.done = true;
        watch.followers.delete(follower);
        return;
      }
      if (follower.last === value || follower.last === 0) {
        watch.fail('Q5', `a follower of ${follower.call.id} is told ${value} twice`);
      }
      follower.last = value;
    });
  }

  callOf(id: string): TicketCall | undefined {
    for (const call of this.watch.calls) {
      if (call.key !== id) continue;
      const isThere =
        call.ticket === undefined
          ? call.waits || call.holds(this.watch.sim.now)
          : call.ticket.position >= 0;
      if (isThere) return call;
    }
    return undefined;
  }

  #ticketed(call: TicketCall, ticket: Ticket): void {
    if (call.ticket !== undefined) this.watch.fail('Q6', 'onTicket is called twice');
    if (call.startedAt !== undefined) this.watch.fail('Q6', 'onTicket is called after the start');
    call.ticket = ticket;
    this.watch.sim.reenter();
    this.watch.sim.perhapsThrow(0.02);
  }

  #listen(): void {
    const { watch } = this;
    const waiting = new Set<string>();
    watch.replay = waiting;
    const on = <Name extends keyof AdmissionQueueEvents>(
      name: Name,
      apply: (event: AdmissionQueueEvents[Name]) => void,
    ): void => {
      this.on(name, (event) => {
        apply(event);
        if ('waiting' in event && event.waiting !== waiting.size) {
          watch.fail('I9', `the event ${name} says ${event.waiting} wait, not ${waiting.size}`);
        }
      });
    };
    const left = ({
      id,
      ranMs,
    }: {
      readonly id: string;
      readonly ranMs?: number | undefined;
    }): void => {
      if (waiting.delete(id) !== (ranMs === undefined)) {
        watch.fail('I9', `${id} ends, and the event says something else of its wait`);
      }
    };
    on('queued', ({ id }) => waiting.add(id));
    on('started', ({ id }) => {
      const first = watch.line.find(
        ({ call }) => waiting.has(call.key) && watch.latest.get(call.key) === call,
      );
      if (waiting.delete(id) && first !== undefined && !watch.reordered && first.call.key !== id) {
        if (watch.line.some(({ call }) => call.key === id)) {
          watch.fail('Q3', `${id} starts before ${first.call.key}`);
        }
      }
    });
    on('cancelled', left);
    on('timedOut', left);
    on('shed', ({ id }) => {
      if (!waiting.delete(id)) watch.fail('I9', `${id} is shed and did not wait`);
    });
    on('saturated', ({ active }) => {
      if (active < 1) watch.fail('I9', 'saturated, and nobody runs');
    });
    on('idle', ({ active, waiting: others }) => {
      if (active > 0 || others > 0) watch.fail('I9', 'idle, and somebody is there');
    });
  }
}
