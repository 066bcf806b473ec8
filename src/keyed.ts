import type { Clock } from './clock.ts';
import { KeysFullError } from './errors.ts';
import { callable, positiveInteger, positiveMs, readOptions, text } from './internal/assert.ts';
import { Alarm, Time } from './internal/time.ts';

/**
 * What `Keyed` asks an instance before it forgets it. Limiters, semaphores and queues have these; so
 * may anything else.
 */
export interface KeyedInstance {
  /** How many tasks or permits are out. */
  readonly active: number;
  /** How many callers wait. */
  readonly waiting: number;
  /** False while it remembers something that a new instance would not, such as tokens that are spent. */
  readonly full?: boolean;
}

/** How many instances there may be, and for how long one may lie idle. */
export interface KeyedOptions {
  /** How many instances there may be at most: a positive integer. */
  readonly maxKeys: number;
  /**
   * How long an instance that is not asked for is kept, in ms, unless its place is needed; one that
   * can be forgotten is gone within twice that time. Default Infinity.
   */
  readonly idleMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

const OPTIONS = new Set(['maxKeys', 'idleMs', 'clock']);

/** How many instances are looked at for one that makes room, or in one turn of the clean-up. */
const MAX_LOOKS = 128;

/**
 * One instance for each key: a limiter for each user, a semaphore for each model.
 *
 * An instance is made when its key is first asked for and forgotten when nobody would notice: when
 * nothing is active, nobody waits and, for a limiter, all its tokens are there, so that forgetting it
 * never resets anybody's quota. Ask for the instance at each use and do not keep it: one that is kept
 * while it is unused may have been forgotten and made again for somebody else. What was changed on an
 * instance since it was made (its capacity, its limits) is forgotten with it.
 *
 * When `maxKeys` are there, a new key takes the place of one that can be forgotten, preferably one
 * that has not been asked for lately. It looks at up to 128 of them; the next call goes on from
 * there. So whoever can choose keys freely can fill it with instances that are in use, and new keys
 * are refused while that lasts: count by what a client cannot make up.
 *
 * O(1) per call. Memory is the instances and an entry in a map for each.
 *
 * @example
 * ```ts
 * const limiters = new Keyed(() => new RateLimiter({ limit: 60, intervalMs: 60_000 }), {
 *   maxKeys: 100_000,
 *   idleMs: 300_000,
 * });
 * if (limiters.get(user).tryAcquire() === undefined) refuse();
 * ```
 */
export class Keyed<T extends KeyedInstance> {
  readonly #make: (key: string) => T;
  readonly #maxKeys: number;
  readonly #idleMs: number;
  readonly #time: Time;
  readonly #alarm: Alarm;

  /**
   * Two generations instead of a list in order of use, which would cost an entry more for each key:
   * what is asked for is in, or moves to, the `#young`; those left in the `#old` have not been asked
   * for since the last change of generations, and `#hand` looks through them.
   */
  #young = new Map<string, T>();
  #old = new Map<string, T>();
  #hand: Iterator<[string, T]> = this.#old.entries();

  /** `make` is called once for each key that is not there, and must not give out one instance twice. */
  constructor(make: (key: string) => T, options: KeyedOptions) {
    const { maxKeys, idleMs, clock } = readOptions('Keyed', options, OPTIONS);
    this.#make = callable('make', make);
    this.#maxKeys = positiveInteger('maxKeys', maxKeys);
    this.#idleMs =
      idleMs === undefined || idleMs === Infinity ? Infinity : positiveMs('idleMs', idleMs);
    this.#time = new Time(clock);
    this.#alarm = new Alarm(this.#time, (now) => this.#cleanUp(now), true);
  }

  /** How many instances there are. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /**
   * The instance of this key, made now if it is not there. Throws `ERR_KEYS_FULL` when there is no
   * room for another one, and what `make` throws.
   */
  get(key: string): T {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) {
      this.#old.delete(key);
      this.#young.set(key, old);
      return old;
    }
    text('key', key);
    this.#makeRoom();
    const made = this.#make(key);
    if (typeof made?.active !== 'number' || typeof made.waiting !== 'number') {
      throw new TypeError('Expected `make` to return something with `active` and `waiting`.');
    }
    // It may have asked for other keys.
    this.#makeRoom();
    if (this.#idleMs < Infinity && this.#alarm.at === Infinity) {
      this.#alarm.set(this.#time.read() + this.#idleMs);
    }
    this.#young.set(key, made);
    return made;
  }

  /** Whether there is an instance of this key now. */
  has(key: string): boolean {
    return this.#young.has(key) || this.#old.has(key);
  }

  /** Forgets the instance of this key, even one that is in use. False if there is none. */
  delete(key: string): boolean {
    const deleted = this.#young.delete(key) || this.#old.delete(key);
    if (this.size === 0) this.#alarm.set(Infinity);
    return deleted;
  }

  /** All of them as of now, in no particular order. O(size). */
  *[Symbol.iterator](): IterableIterator<[string, T]> {
    // Whoever goes through them may ask for some, which moves them from one to the other.
    yield* [...this.#young, ...this.#old];
  }

  #makeRoom(): void {
    for (let looks = 0; this.size >= this.#maxKeys; looks++) {
      if (looks === MAX_LOOKS) throw new KeysFullError(this.#maxKeys);
      if (!this.#look()) this.#nextGeneration();
    }
  }

  /** Forgets the next one that nobody asked for lately, or keeps it as if it had been asked for. */
  #look(): boolean {
    const { done, value } = this.#hand.next();
    if (done === true) return false;
    const [key, instance] = value;
    this.#old.delete(key);
    // One that throws when it is asked is not known to be of no use.
    let forgettable = false;
    try {
      forgettable = isForgettable(instance);
    } finally {
      if (!forgettable) this.#young.set(key, instance);
    }
    return true;
  }

  #nextGeneration(): void {
    this.#old = this.#young;
    this.#young = new Map();
    this.#hand = this.#old.entries();
    if (this.size > 0 && this.#idleMs < Infinity) {
      this.#alarm.set(this.#time.now() + this.#idleMs);
    }
  }

  /** In turns, so that nobody else waits long: first those left over, then a new generation. */
  #cleanUp(now: number): void {
    let through = false;
    try {
      for (let looks = 0; looks < MAX_LOOKS && !through; looks++) through = !this.#look();
    } finally {
      // Also behind one that throws when it is asked.
      if (through) this.#nextGeneration();
      else this.#alarm.set(now);
    }
  }
}

function isForgettable({ active, waiting, full }: KeyedInstance): boolean {
  return active === 0 && waiting === 0 && full !== false;
}
