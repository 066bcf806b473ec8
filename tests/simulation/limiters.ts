import {
  type Cost,
  type Lease,
  type LimitOptions,
  RateLimiter,
  type RateLimiterAcquireOptions,
  type RateLimiterContext,
  type RateLimiterEvents,
  type UpstreamCount,
} from '../../src/rate-limiter.ts';
import { Call, type Verdict, Watch } from './calls.ts';
import type { ClockView, Sim } from './sim.ts';

const LIMITS = ['requests', 'tokens'] as const;
export type LimitName = (typeof LIMITS)[number];
type Counts = { readonly [Name in LimitName]?: number | undefined };

/** 1024 in a ms. */
const TICKS = 1024;

/**
 * What is known of a bucket from outside, in parts of a token: `limit` of them come in per tick, and
 * `intervalMs * 1024` are a token. Of two things at one instant nobody outside knows the order, and
 * at the rim of a bucket it counts: so it is a highest and a lowest level.
 */
export class Bounds {
  limit: number;
  intervalMs: number;
  burst: number;
  high: number;
  low: number;
  /** As long as an upstream says that there is less: what it would be otherwise. */
  own: { high: number; low: number; readonly untilMs: number } | undefined;
  #at: number;
  /** Whether it has been raised, or given another burst, at this instant. */
  #adjusted = false;

  constructor({ limit, intervalMs = 1000, burst = limit }: LimitOptions, now: number) {
    this.limit = limit;
    this.intervalMs = intervalMs;
    this.burst = burst;
    this.#at = now;
    this.high = this.low = this.full;
  }

  get token(): number {
    return this.intervalMs * TICKS;
  }

  get full(): number {
    return this.burst * this.token;
  }

  refill(now: number): void {
    const { own } = this;
    if (own !== undefined && own.untilMs <= now) {
      this.high = own.high;
      this.low = own.low;
      this.own = undefined;
    }
    const gained = (now - this.#at) * TICKS * this.limit;
    if (gained <= 0) return;
    this.#at = now;
    this.#adjusted = false;
    for (const level of [this, this.own]) {
      if (level === undefined) continue;
      level.high = Math.min(this.full, level.high + gained);
      level.low = Math.min(this.full, level.low + gained);
    }
  }

  /** `mayBeBefore`: it may have been taken before what an upstream said has lowered the rest. */
  take(tokens: number, mayBeBefore = false): void {
    for (const level of [this, this.own]) {
      if (level === undefined) continue;
      // What it was made at this instant may be what there was after it had been taken.
      const stays = mayBeBefore && (level === this || this.#adjusted);
      if (!stays) level.high -= tokens * this.token;
      level.low -= tokens * this.token;
    }
  }

  /** Comes back, or is charged where it is negative. */
  giveBack(tokens: number): void {
    for (const level of [this, this.own]) {
      if (level === undefined) continue;
      // Before whatever was taken at this instant there may have been no room for it.
      level.high += tokens * this.token;
      level.low = Math.min(this.full, level.low + tokens * this.token);
    }
  }

  hold(remaining: number, untilMs: number, now: number): void {
    if (this.own !== undefined) {
      this.high = this.own.high;
      this.low = this.own.low;
      this.own = undefined;
    }
    if (untilMs <= now) return;
    const [high, low] = [this.high, this.low];
    if (untilMs < Infinity) this.own = { high, low, untilMs };
    // Whole tokens are held back, and what is under way of one is not.
    this.high = Math.min(high, (remaining + 1) * this.token - 1);
    this.low = Math.min(low, remaining * this.token);
  }

  /** There are at least so many, if there is room for them. */
  raise(tokens: number): void {
    this.#adjusted = true;
    for (const level of [this, this.own]) {
      if (level === undefined) continue;
      level.high = Math.min(this.full, Math.max(level.high, (tokens + 1) * this.token - 1));
      level.low = Math.max(level.low, Math.min(this.full, tokens * this.token));
    }
  }

  reshape({ limit, intervalMs, burst }: Required<LimitOptions>): void {
    this.#adjusted = true;
    const scale = (intervalMs ?? this.intervalMs) / this.intervalMs;
    this.limit = limit;
    this.intervalMs = intervalMs!;
    this.burst = burst!;
    for (const level of [this, this.own]) {
      if (level === undefined) continue;
      // A part of a token is rounded down to a tick of the new interval.
      level.high = Math.min(this.full, Math.ceil(level.high * scale));
      level.low = Math.min(this.full, Math.floor(level.low * scale) - this.limit);
    }
  }

  /** It says itself how many whole tokens there are: of those that are possible. */
  narrow(tokens: number): boolean {
    const { own, token } = this;
    this.high = Math.min(this.high, this.full);
    if (own !== undefined) own.high = Math.min(own.high, this.full);
    const isPossible = tokens * token <= this.high && (tokens + 1) * token - 1 >= this.low;
    this.high = Math.min(this.high, (tokens + 1) * token - 1);
    this.low = Math.max(this.low, tokens * token);
    return isPossible;
  }

  /** In how many ticks there are so many tokens: at the earliest, or at the latest. */
  ticksTo(tokens: number, level: 'high' | 'low'): number {
    return Math.max(0, Math.ceil((tokens * this.token - this[level]) / this.limit));
  }
}

export class LeaseCall extends Call {
  readonly demand: readonly number[];
  lease: Lease<LimitName> | undefined;
  /** Whether it could be known when it came that it would not be let in in its time. */
  isLate = false;

  constructor(demand: readonly number[], ...rest: ConstructorParameters<typeof Call>) {
    super(...rest);
    this.demand = demand;
  }
}

const IDS = { most: 'R2', active: 'R1', order: 'R5', head: 'R3', once: 'R4' };

interface Limited {
  readonly limits: Readonly<Record<LimitName, Required<LimitOptions>>>;
  readonly maxWaiting: number;
  readonly maxPauseMs: number;
  readonly priorities: number;
}

class LimiterWatch extends Watch<LeaseCall> {
  readonly #of: WatchedLimiter;
  readonly options: Limited;
  readonly bounds: readonly Bounds[];
  pausedUntil = 0;
  /** Whether something other than arrivals has changed what will be there when. */
  moved = false;
  /** Whether an upstream has said something since everything was at rest. */
  synced = false;
  #latest = 0;
  #latestGranted = 0;
  /** When the pause ends that there was when everything was at rest. */
  #pausedBefore = 0;
  replay: Map<number, number> | undefined;

  constructor(sim: Sim, name: string, clock: ClockView, of: WatchedLimiter, options: Limited) {
    super(sim, name, clock, IDS);
    this.#of = of;
    this.options = options;
    this.bounds = LIMITS.map((limit) => new Bounds(options.limits[limit], sim.now));
    this.room = Infinity;
  }

  demandOf(cost: Cost<LimitName> = 1): number[] {
    return LIMITS.map((name) => (typeof cost === 'number' ? cost : (cost[name] ?? 0)));
  }

  verdictOn(options: RateLimiterAcquireOptions<LimitName>, demand: readonly number[]): Verdict {
    const of = this.#of;
    if (of.isClosed) return 'ERR_CLOSED';
    if (options.signal?.aborted === true) return 'aborted';
    if (this.bounds.some(({ burst }, index) => demand[index]! > burst))
      return 'ERR_EXCEEDS_CAPACITY';
    return 'wait';
  }

  come(options: RateLimiterAcquireOptions<LimitName> = {}): LeaseCall {
    this.refill();
    const demand = this.demandOf(options.cost);
    const call = new LeaseCall(
      demand,
      this.nextId(),
      this.verdictOn(options, demand),
      1,
      options.priority ?? this.options.priorities,
      options,
      this.sim.now,
      this.sim.context.getStore(),
    );
    this.arrived(call);
    call.isLate = this.#limited(call);
    return call;
  }

  /** All that is known is brought up to now. */
  refill(): void {
    for (const bounds of this.bounds) bounds.refill(this.sim.now);
  }

  override begun(call: LeaseCall): void {
    super.begun(call);
    this.#latestGranted = Math.max(this.#latestGranted, call.id);
    if (this.#pausedBefore > this.sim.now) this.fail('R3', `${call.id} is granted in a pause`);
    this.refill();
    for (const [index, bounds] of this.bounds.entries())
      bounds.take(call.demand[index]!, this.synced);
  }

  /** What has been used instead of the estimate. */
  settle(call: LeaseCall, actual: readonly number[]): void {
    this.refill();
    this.moved = true;
    this.sim.log(`limiter ${call.id} used ${actual.join()} of ${call.demand.join()}`);
    for (const [index, bounds] of this.bounds.entries()) {
      bounds.giveBack(call.demand[index]! - actual[index]!);
    }
    this.overrun ||= actual.some((amount, index) => amount > call.demand[index]!);
  }

  /** Whether any settlement so far was above its estimate. */
  overrun = false;

  override allows(call: LeaseCall, code: string): boolean {
    if (!call.waits) return false;
    if (code === 'ERR_QUEUE_FULL') return call.arrivedAt === this.sim.now && this.#full(call);
    if (code === 'ERR_WAIT_TIMEOUT') return false;
    if (code === 'ERR_RATE_LIMITED') return call.isLate || this.#limited(call);
    return super.allows(call, code);
  }

  override check(): void {
    const of = this.#of;
    if (of.active < 0 || of.waiting < 0) this.fail('R1', 'less than nothing');
    if (of.waiting > this.options.maxWaiting) this.fail('R4', `${of.waiting} wait`);
    if (this.replay !== undefined && this.replay.size !== of.waiting) {
      this.fail('I9', `events say ${this.replay.size} wait, it says ${of.waiting}`);
    }
  }

  override checkAtRest(): void {
    const of = this.#of;
    super.checkAtRest();
    this.refill();
    const { waiting } = this;
    const stats = of.stats();
    if (waiting.length !== stats.waiting) {
      this.fail('R4', `${waiting.length} wait, it says ${stats.waiting}`);
    }
    let running = 0;
    for (const call of this.calls) {
      if (call.lease === undefined && call.startedAt !== undefined && !call.over) running++;
    }
    if (running !== stats.active) this.fail('R1', `${running} run, it says ${stats.active}`);
    for (const [index, { available, debt, burst }] of stats.limits.entries()) {
      const bounds = this.bounds[index]!;
      const tokens = available - debt;
      if (tokens > burst || (tokens < 0 && !this.overrun)) {
        this.fail('R1', `${tokens} tokens of ${burst}`);
      }
      const before = `${bounds.low / bounds.token} to ${bounds.high / bounds.token}`;
      if (!bounds.narrow(tokens)) {
        this.fail(
          tokens * bounds.token > bounds.high ? 'R2' : 'R4',
          `${tokens} ${LIMITS[index]!} are there, and should be ${before}`,
        );
      }
    }
    if (stats.pausedMs !== Math.max(0, this.pausedUntil - this.sim.now)) {
      this.fail('R3', `a pause of ${stats.pausedMs} ms, not until ${this.pausedUntil}`);
    }
    const impossible = waiting.find(({ demand }) =>
      this.bounds.some(({ burst }, index) => demand[index]! > burst),
    );
    if (impossible !== undefined) this.fail('R7', `${impossible.id} waits for what can never be`);
    this.#checkHead(waiting);
    this.#checkLatest(waiting.at(-1), waiting);
    this.moved = false;
    this.#pausedBefore = this.pausedUntil;
    this.synced = false;
    if (waiting.length === 0) this.#checkPromise();
    const needed = waiting.length > 0 ? 1 : 0;
    if (this.clock.armed !== needed)
      this.fail('I8', `${this.clock.armed} timers, ${needed} needed`);
  }

  /** Nobody waits whose tokens are there. */
  #checkHead(waiting: readonly LeaseCall[]): void {
    const [head] = waiting.toSorted((a, b) => (this.precedes(a, b) ? -1 : 1));
    if (head === undefined || this.sim.now < this.pausedUntil) return;
    if (this.bounds.every((bounds, index) => bounds.ticksTo(head.demand[index]!, 'low') === 0)) {
      this.fail('R3', `${head.id} waits though all that it wants is there`);
    }
  }

  /** Who came last could have known then that it would not be let in in its time (R7). */
  #checkLatest(call: LeaseCall | undefined, waiting: readonly LeaseCall[]): void {
    // Who came after it and was let in at once is more urgent.
    const isNew = call !== undefined && call.id > this.#latest && call.id > this.#latestGranted;
    this.#latest = call?.id ?? this.#latest;
    if (call === undefined || !isNew || call.arrivedAt !== this.sim.now || this.moved) return;
    if (this.bounds.some(({ own }) => own !== undefined)) return;
    const leftMs = call.limits.waitTimeoutMs ?? Infinity;
    const before = waiting.filter((other) => other !== call && this.precedes(other, call));
    const pausedMs = Math.max(0, this.pausedUntil - this.sim.now);
    const isLate = this.bounds.some((bounds, index) => {
      const total = before.reduce((sum, other) => sum + other.demand[index]!, call.demand[index]!);
      return Math.max(pausedMs, bounds.ticksTo(total, 'high') / TICKS) > leftMs;
    });
    if (isLate) this.fail('R7', `${call.id} waits for what is known to come too late`);
  }

  /** What `retryAfterMs` says is not too early and not too late. */
  #checkPromise(): void {
    const { random } = this.sim;
    const cost = random.within(1, 4);
    const saidMs = this.#of.retryAfterMs(cost);
    if (this.#of.isClosed || this.bounds.some(({ burst }) => burst < cost)) {
      if (saidMs !== Infinity) this.fail('R3', `${saidMs} ms for what can never be`);
      return;
    }
    if (this.bounds.some(({ own }) => own !== undefined)) return;
    const pausedMs = Math.max(0, this.pausedUntil - this.sim.now);
    const ms = (level: 'high' | 'low'): number =>
      Math.max(
        ...this.bounds.map((bounds) => Math.max(pausedMs, bounds.ticksTo(cost, level) / TICKS)),
      );
    if (saidMs < ms('high') || saidMs > ms('low')) {
      this.fail('R3', `${cost} in ${saidMs} ms, and it is ${ms('high')} to ${ms('low')}`);
    }
  }

  #full(call: LeaseCall): boolean {
    const others = this.waiting.filter((other) => other !== call).length;
    return others + this.granted.length >= this.options.maxWaiting;
  }

  /** Whether it could be known that it would not be let in in its time. */
  #limited({ limits: { waitTimeoutMs = Infinity }, demand, arrivedAt }: LeaseCall): boolean {
    const pausedMs = this.pausedUntil - this.sim.now;
    if (pausedMs > this.options.maxPauseMs) return true;
    const leftMs = arrivedAt + waitTimeoutMs - this.sim.now;
    if (leftMs === Infinity) return false;
    if (pausedMs > leftMs) return true;
    // With all who wait, or were let in at this instant, before it at the most.
    const owed = [...this.waiting, ...this.granted].filter((other) => other.demand !== demand);
    return this.bounds.some((bounds, index) => {
      const total = owed.reduce((amount, other) => amount + other.demand[index]!, demand[index]!);
      return Math.max(0, pausedMs) + bounds.ticksTo(total, 'low') / TICKS > leftMs;
    });
  }
}

export class WatchedLimiter extends RateLimiter<LimitName> {
  readonly watch: LimiterWatch;
  isClosed = false;

  constructor(sim: Sim, name: string, clock: ClockView, options: Limited, heard: boolean) {
    super({ ...options, clock });
    this.watch = new LimiterWatch(sim, name, clock, this, options);
    if (heard) this.#listen();
  }

  /** An `acquire` whose lease the world settles. */
  hold(options: RateLimiterAcquireOptions<LimitName>): LeaseCall {
    const call = this.watch.come(options);
    const promise = this.acquire(options);
    this.watch.follow(
      call,
      promise.then((lease) => {
        this.#got(call, lease);
        return lease;
      }),
    );
    return call;
  }

  tryHold(cost: Cost<LimitName>): LeaseCall | undefined {
    const { watch } = this;
    const { acts } = watch.sim;
    const couldBe = watch.bounds.every((bounds, index) => {
      bounds.refill(watch.sim.now);
      return bounds.high >= watch.demandOf(cost)[index]! * bounds.token;
    });
    const lease = this.tryAcquire(cost);
    if (lease === undefined) return undefined;
    if (this.waiting > 0 && watch.sim.acts === acts) {
      watch.fail('R5', 'tryAcquire passes those who wait');
    }
    if (!couldBe) watch.fail('R2', 'tryAcquire gives what is not there');
    const call = watch.come({ cost });
    this.#got(call, lease);
    call.answeredAt = watch.sim.now;
    return call;
  }

  /** Settles the lease at `actual`; undefined cancels it. */
  settleLease(call: LeaseCall, actual: Counts | undefined): void {
    const { lease, demand } = call;
    if (lease === undefined) return;
    const first = !call.over;
    const used = LIMITS.map((name, index) =>
      actual === undefined ? 0 : (actual[name] ?? demand[index]!),
    );
    if (first) this.watch.settle(call, used);
    this.watch.ended(call, true, lease);
    const did =
      actual === undefined || typeof lease.cost === 'number'
        ? lease.cancel()
        : lease.settle(actual);
    if (did !== first) this.watch.fail('R4', 'a lease is settled other than once');
  }

  override run<T>(
    task: (context: RateLimiterContext<LimitName>) => T | PromiseLike<T>,
    options?: RateLimiterAcquireOptions<LimitName>,
  ): Promise<T> {
    const call = this.watch.come(options);
    const promise = super.run(
      this.watch.tap(call, (context: RateLimiterContext<LimitName>) => {
        if (this.watch.sim.random.chance(0.2)) this.#settleEarly(call, context.lease);
        return task(context);
      }),
      options,
    );
    this.watch.follow(call, promise);
    return promise;
  }

  override pause(ms: number): void {
    const { watch } = this;
    watch.moved = true;
    watch.sim.log(`limiter pauses for ${ms} ms`);
    watch.pausedUntil = Math.max(watch.pausedUntil, watch.sim.now + ms);
    super.pause(ms);
  }

  override sync(
    counts: { readonly [N in LimitName]?: UpstreamCount | undefined },
    options?: { readonly raise?: boolean | undefined },
  ): void {
    const { watch } = this;
    watch.refill();
    watch.sim.log(`limiter ${JSON.stringify(counts)} ${JSON.stringify(options)}`);
    for (const [index, name] of LIMITS.entries()) {
      const count = counts[name];
      if (count === undefined) continue;
      const { remaining, resetMs = Infinity } = count;
      const bounds = watch.bounds[index]!;
      bounds.hold(remaining, watch.sim.now + resetMs, watch.sim.now);
      watch.synced = true;
      if (options?.raise === true) bounds.raise(remaining);
      watch.moved = true;
    }
    super.sync(counts, options);
  }

  override configure(limits: {
    readonly [N in LimitName]?: Partial<LimitOptions> | undefined;
  }): void {
    const { watch } = this;
    watch.refill();
    watch.sim.log(`limiter ${JSON.stringify(limits)}`);
    for (const [index, name] of LIMITS.entries()) {
      const change = limits[name];
      if (change === undefined) continue;
      const bounds = watch.bounds[index]!;
      const limit = change.limit ?? bounds.limit;
      const intervalMs = change.intervalMs ?? bounds.intervalMs;
      const burst = change.burst ?? (bounds.burst === bounds.limit ? limit : bounds.burst);
      watch.moved = true;
      watch.synced = true;
      bounds.reshape({ limit, intervalMs, burst });
      for (const call of watch.calls) {
        if (call.demand[index]! > burst) call.allowed = 'ERR_EXCEEDS_CAPACITY';
      }
    }
    super.configure(limits);
  }

  override close(options?: { readonly waiting?: 'finish' | 'reject' | undefined }): void {
    this.isClosed = true;
    if (options?.waiting === 'reject') this.watch.rejectsWaiting = true;
    super.close(options);
  }

  /** A task settles its lease itself. */
  #settleEarly(call: LeaseCall, lease: Lease<LimitName>): void {
    const { random } = this.watch.sim;
    const actual = call.demand.map((amount) => random.below(amount + 3));
    if (typeof lease.cost === 'number' || random.chance(0.3)) {
      this.watch.settle(
        call,
        call.demand.map(() => 0),
      );
      if (!lease.cancel()) this.watch.fail('R4', 'a lease cannot be cancelled');
    } else {
      this.watch.settle(call, actual);
      if (!lease.settle({ requests: actual[0], tokens: actual[1] })) {
        this.watch.fail('R4', 'a lease cannot be settled');
      }
    }
    if (lease.cancel()) this.watch.fail('R4', 'a lease is settled twice');
  }

  #got(call: LeaseCall, lease: Lease<LimitName>): void {
    this.watch.begun(call);
    call.outcome = { ok: true, value: lease };
    call.lease = lease;
  }

  #listen(): void {
    const { watch } = this;
    const waiting = new Map<number, number>();
    watch.replay = waiting;
    const on = <Name extends keyof RateLimiterEvents>(
      name: Name,
      apply: (event: RateLimiterEvents[Name]) => void,
    ): void => {
      this.on(name, (event) => {
        apply(event);
        // Of all that a pause turns away at once, each is told of when all have left.
        if (event.waiting !== waiting.size && name !== 'limited') {
          watch.fail('I9', `the event ${name} says ${event.waiting} wait, not ${waiting.size}`);
        }
      });
    };
    const leaves = ({ id }: { readonly id: number }): void => {
      if (!waiting.delete(id)) watch.fail('I9', 'one leaves the line who was not in it');
    };
    on('queued', ({ id, priority }) => waiting.set(id, priority));
    on('granted', ({ id }) => {
      const priority = waiting.get(id) ?? Infinity;
      for (const [other, urgency] of waiting) {
        if (urgency < priority || (urgency === priority && other < id)) {
          if (waiting.has(id)) watch.fail('R5', `${id} is granted before ${other}`);
        }
      }
      waiting.delete(id);
    });
    // Where a pause turns people away they are said to be limited; a newcomer never joined.
    on('limited', ({ id }) => waiting.delete(id));
    on('cancelled', leaves);
    on('timedOut', leaves);
    on('idle', ({ active }) => {
      if (active > 0) watch.fail('I9', 'idle, and somebody is there');
    });
  }
}
