/** One limit, in whole tokens and whole ms. */
export interface ModelLimit {
  readonly limit: number;
  readonly intervalMs: number;
  readonly burst: number;
}

interface ModelBucket extends ModelLimit {
  /** In parts of a token: `intervalMs` of them are one, and `limit` of them come in per ms. */
  level: number;
  /** The same for what the upstream said, as long as that counts. */
  upstream: number;
  until: number;
}

/** One caller, as the model sees it. */
export interface ModelCaller {
  readonly demand: readonly number[];
  readonly priority: number;
  readonly deadline: number;
  /** 'granted', the code of an error, or undefined as long as it waits. */
  outcome?: string;
  at?: number;
  retryAfterMs?: number;
  estimatedWaitMs?: number;
}

/**
 * What a rate limiter does, in the obvious way: an array to wait in, and time that goes on by one ms
 * after the other. Whatever is asked of it has to happen at whole ms.
 */
export class RateLimiterModel {
  now = 0;
  pausedUntil = 0;
  closed = false;
  readonly maxWaiting: number;
  readonly maxPauseMs: number;
  readonly buckets: ModelBucket[];
  line: ModelCaller[] = [];

  constructor(limits: readonly ModelLimit[], maxWaiting: number, maxPauseMs: number) {
    this.maxWaiting = maxWaiting;
    this.maxPauseMs = maxPauseMs;
    this.buckets = limits.map((limit) => ({
      ...limit,
      level: limit.burst * limit.intervalMs,
      upstream: Infinity,
      until: Infinity,
    }));
  }

  tokens(index: number): number {
    const bucket = this.buckets[index]!;
    return Math.floor(levelOf(bucket) / bucket.intervalMs);
  }

  /** One ms later: what has come in is granted before anybody's time is over. */
  tick(): void {
    this.now++;
    for (const bucket of this.buckets) {
      this.#add(bucket, bucket.limit);
      if (bucket.until === this.now) bucket.upstream = Infinity;
    }
    this.#pump();
    for (const caller of this.line) {
      if (caller.deadline <= this.now) this.#end(caller, 'ERR_WAIT_TIMEOUT');
    }
    this.#pump();
  }

  /** Whether it is granted at once, to one who does not wait. */
  try(demand: readonly number[]): boolean {
    if (this.closed || this.line.length > 0 || !this.#fits(demand)) return false;
    this.#take(demand);
    return true;
  }

  arrive(caller: ModelCaller): void {
    const { demand, priority, deadline } = caller;
    if (this.closed) return this.#end(caller, 'ERR_CLOSED');
    if (this.buckets.some(({ burst }, index) => demand[index]! > burst)) {
      return this.#end(caller, 'ERR_EXCEEDS_CAPACITY');
    }
    const before = this.line.filter((other) => other.priority <= priority);
    if (before.length === 0 && this.#fits(demand)) {
      this.#take(demand);
      return this.#end(caller, 'granted');
    }
    if (this.line.length >= this.maxWaiting) {
      this.#tell(caller);
      return this.#end(caller, 'ERR_QUEUE_FULL');
    }
    const total = demand.map((amount, index) =>
      before.reduce((sum, other) => sum + other.demand[index]!, amount),
    );
    const waitMs = before.length === 0 ? this.#inLineMs(caller) : this.#waitFor(total);
    const pausesLong = this.pausedUntil - this.now > this.maxPauseMs;
    // Who would not wait is not let in to find out that there is a wait.
    if (pausesLong || deadline === this.now || this.now + waitMs > deadline) {
      this.#tell(caller);
      return this.#end(caller, 'ERR_RATE_LIMITED');
    }
    const behind = this.line.findIndex((other) => other.priority > priority);
    this.line.splice(behind === -1 ? this.line.length : behind, 0, caller);
  }

  /** Asks at every ms to come, in a copy of everything in which nobody gives up. */
  retryAfterMs(demand: readonly number[], priority: number): number {
    if (this.closed) return Infinity;
    if (this.buckets.some(({ burst }, index) => demand[index]! > burst)) return Infinity;
    const copy = this.#copy();
    copy.#pump();
    while (copy.line.some((other) => other.priority <= priority) || !copy.#fits(demand)) {
      copy.tick();
    }
    return copy.now - this.now;
  }

  /** The same with one more in line, until it is granted. */
  #inLineMs({ demand, priority }: ModelCaller): number {
    const copy = this.#copy();
    const caller: ModelCaller = { demand, priority, deadline: Infinity };
    const behind = copy.line.findIndex((other) => other.priority > priority);
    copy.line.splice(behind === -1 ? copy.line.length : behind, 0, caller);
    copy.#pump();
    while (caller.outcome === undefined) copy.tick();
    return copy.now - this.now;
  }

  #tell(caller: ModelCaller): void {
    caller.retryAfterMs = this.retryAfterMs(caller.demand, caller.priority);
    caller.estimatedWaitMs = this.#inLineMs(caller);
  }

  /** All of them leave before the next in line is looked at. */
  leave(callers: readonly ModelCaller[], outcome: string): void {
    for (const caller of callers) this.#end(caller, outcome);
    this.#pump();
  }

  /** Tells how much has come back of each, in parts of a token. */
  settle(demand: readonly number[], actual: readonly number[]): number[] {
    const back = this.buckets.map((bucket, index) => {
      const before = bucket.level;
      this.#add(bucket, (demand[index]! - actual[index]!) * bucket.intervalMs);
      // An upstream's count is below our own: what comes back of that is no less.
      return Math.max(0, bucket.level - before);
    });
    this.#pump();
    return back;
  }

  pause(ms: number): void {
    if (this.now + ms <= this.pausedUntil || ms === 0) return;
    this.pausedUntil = this.now + ms;
    const late = this.line.filter(
      ({ deadline }) => ms > this.maxPauseMs || deadline < this.pausedUntil,
    );
    for (const caller of late) this.#end(caller, 'ERR_RATE_LIMITED');
    if (!this.closed) for (const caller of late) this.#tell(caller);
  }

  sync(index: number, remaining: number, resetMs: number, raise: boolean): void {
    const bucket = this.buckets[index]!;
    bucket.upstream = Infinity;
    const excess = this.tokens(index) - remaining;
    if (excess > 0 && resetMs > 0) {
      // What is under way of a token stays under way.
      bucket.upstream = bucket.level - excess * bucket.intervalMs;
      bucket.until = this.now + resetMs;
      if (resetMs === Infinity) bucket.level = bucket.upstream;
    }
    if (raise && excess < 0) this.#add(bucket, -excess * bucket.intervalMs);
    this.#pump();
  }

  close(reject: boolean): void {
    this.closed = true;
    if (reject) for (const caller of this.line) this.#end(caller, 'ERR_CLOSED');
  }

  /**
   * How long it takes until so much has come in, be it more than there is room for: that may be too
   * short, and is what can be known without trying it out.
   */
  #waitFor(amounts: readonly number[]): number {
    const copy = this.#copy();
    copy.line = [];
    while (copy.now < copy.pausedUntil) copy.tick();
    for (const bucket of copy.buckets) Object.assign(bucket, { burst: Number.MAX_SAFE_INTEGER });
    while (!copy.#fits(amounts)) copy.tick();
    return copy.now - this.now;
  }

  #copy(): RateLimiterModel {
    const copy = new RateLimiterModel(this.buckets, Infinity, Infinity);
    copy.now = this.now;
    copy.pausedUntil = this.pausedUntil;
    copy.line = this.line.map(({ demand, priority }) => ({ demand, priority, deadline: Infinity }));
    for (const [index, { level, upstream, until }] of this.buckets.entries()) {
      Object.assign(copy.buckets[index]!, { level, upstream, until });
    }
    return copy;
  }

  #fits(demand: readonly number[]): boolean {
    return (
      this.now >= this.pausedUntil &&
      this.buckets.every((bucket, index) => levelOf(bucket) >= demand[index]! * bucket.intervalMs)
    );
  }

  #take(demand: readonly number[]): void {
    for (const [index, bucket] of this.buckets.entries()) {
      this.#add(bucket, -demand[index]! * bucket.intervalMs);
    }
  }

  #add(bucket: ModelBucket, parts: number): void {
    const full = bucket.burst * bucket.intervalMs;
    bucket.level = Math.min(full, bucket.level + parts);
    if (bucket.upstream < Infinity) bucket.upstream = Math.min(full, bucket.upstream + parts);
  }

  #pump(): void {
    while (this.line.length > 0 && this.#fits(this.line[0]!.demand)) {
      const caller = this.line[0]!;
      this.#take(caller.demand);
      this.#end(caller, 'granted');
    }
  }

  #end(caller: ModelCaller, outcome: string): void {
    this.line = this.line.filter((other) => other !== caller);
    caller.outcome = outcome;
    caller.at = this.now;
  }
}

function levelOf({ level, upstream }: ModelBucket): number {
  return Math.min(level, upstream);
}
