import { KeysFullError } from '../../src/errors.ts';
import { Keyed } from '../../src/keyed.ts';
import { RateLimiter } from '../../src/rate-limiter.ts';
import { Bounds } from './limiters.ts';
import type { ClockView, Sim } from './sim.ts';

const LIMIT = { limit: 3, intervalMs: 100, burst: 4 };

/**
 * A limiter for each of many users: whatever is forgotten and made again, none of them may come to
 * more than one limiter would have given.
 */
export class WatchedKeyed {
  readonly clock: ClockView;
  readonly #theirs: ClockView;
  readonly #sim: Sim;
  readonly #keyed: Keyed<RateLimiter>;
  readonly #maxKeys: number;
  readonly #bounds = new Map<string, Bounds>();
  /** Who is being served, by key. */
  readonly #busy = new Map<
    string,
    { readonly limiter: RateLimiter; tasks: number; started: number }
  >();

  constructor(sim: Sim, clock: ClockView, theirs: ClockView, maxKeys: number, idleMs: number) {
    this.clock = clock;
    this.#theirs = theirs;
    this.#sim = sim;
    this.#maxKeys = maxKeys;
    this.#keyed = new Keyed(() => new RateLimiter({ ...LIMIT, clock: theirs }), {
      maxKeys,
      idleMs,
      clock,
    });
  }

  /** Some users come, each of them more than once. */
  act(): void {
    const { random } = this.#sim;
    for (let users = random.within(1, 3); users > 0; users--) {
      const key = `user ${random.below(this.#maxKeys + 2)}`;
      for (let calls = random.within(1, 4); calls > 0; calls--) this.#call(key);
    }
  }

  #call(key: string): void {
    const { random, now } = this.#sim;
    let limiter: RateLimiter;
    try {
      limiter = this.#keyed.get(key);
    } catch (error) {
      if (!(error instanceof KeysFullError))
        this.#sim.fail('R2', 'keyed: fails with something else');
      else if (this.#busy.size + this.#spent() < this.#maxKeys) {
        this.#sim.fail('R2', 'keyed: is full of what could be forgotten');
      }
      return;
    }
    const busy = this.#busy.get(key);
    if (busy !== undefined && busy.limiter !== limiter) {
      this.#sim.fail('R2', `keyed: ${key} was forgotten while it was in use`);
    }
    let bounds = this.#bounds.get(key);
    if (bounds === undefined) this.#bounds.set(key, (bounds = new Bounds(LIMIT, now)));
    bounds.refill(now);
    const cost = random.within(1, 2);
    if (random.chance(0.2)) {
      void this.#use(key, limiter, bounds);
      return;
    }
    // A task that has its tokens may not have been called yet.
    const isSettled = busy === undefined || busy.started === busy.tasks;
    const lease = limiter.tryAcquire(cost);
    if (lease === undefined) {
      if (bounds.low >= cost * bounds.token && isSettled)
        this.#sim.fail('R4', `keyed: ${key} has tokens and is refused`);
      return;
    }
    bounds.take(cost);
    if (bounds.high < 0) this.#sim.fail('R2', `keyed: ${key} has got more than its limiter has`);
  }

  /** Holds it for a while, so that it must not be forgotten. */
  async #use(key: string, limiter: RateLimiter, bounds: Bounds): Promise<void> {
    const { random, clock } = this.#sim;
    const busy = this.#busy.get(key) ?? { limiter, tasks: 0, started: 0 };
    this.#busy.set(key, busy);
    busy.tasks++;
    await limiter.run(() => {
      busy.started++;
      bounds.refill(this.#sim.now);
      bounds.take(1);
      if (bounds.high < 0) this.#sim.fail('R2', `keyed: ${key} has got more than its limiter has`);
      return new Promise<void>((resolve) => clock.setTimeout(resolve, random.below(50)));
    });
    busy.started--;
    if (--busy.tasks === 0) this.#busy.delete(key);
  }

  /** How many cannot be forgotten since they have spent something. */
  #spent(): number {
    let spent = 0;
    for (const [key, bounds] of this.#bounds) {
      bounds.refill(this.#sim.now);
      if (!this.#busy.has(key) && bounds.low < bounds.full) spent++;
    }
    return spent;
  }

  checkAtRest(): void {
    if (this.#keyed.size > this.#maxKeys) this.#sim.fail('R2', 'keyed: too many keys');
    if (this.clock.armed > 1) this.#sim.fail('I8', `keyed: ${this.clock.armed} timers`);
    this.clock.set = 0;
    this.#theirs.set = 0;
  }

  checkAtEnd(): void {
    if (this.#keyed.size > 0)
      this.#sim.fail('I10', `keyed: ${this.#keyed.size} idle keys are kept`);
    if (this.clock.armed + this.#theirs.armed > 0)
      this.#sim.fail('I8', 'keyed: a timer at the end');
  }
}
