/**
 * The arithmetic of a token bucket, apart from clocks, callers and waiting: every function is given
 * the instant and decides from the state alone, so that the same decision can be taken elsewhere.
 *
 * A bucket holds up to `burst` tokens and gains `limit` of them per interval, evenly. All of it is
 * done in integers, so that nothing is lost or gained however long it runs: time in ticks, and the
 * part of a token that is under way as a `fraction` of `per`, the ticks that `gain` tokens take:
 *
 *     tokens + fraction / per  grows by  gain / per  in each tick, up to burst
 *
 * This is the refill of Bucket4j's `BucketState64BitsInteger`, with the rate in lowest terms, which
 * keeps the products below 2^53 for all but odd combinations; those go through BigInt.
 */

/** A tick is the smallest step of time, about a microsecond: a power of two, so that conversions are exact. */
export const TICKS_PER_MS = 1024;

/** The longest interval in ms (278 years): its ticks are safe integers. */
export const MAX_INTERVAL_MS: number = 2 ** 43 - 1;

/** The ticks that are over at the instant `ms`. */
export function ticksAt(ms: number): number {
  return Math.floor(ms * TICKS_PER_MS);
}

/** What a bucket may hold and gains. */
export interface Quota {
  /** Undefined where there is no other. */
  readonly name: string | undefined;
  readonly limit: number;
  readonly intervalMs: number;
  readonly burst: number;
  readonly gain: number;
  readonly per: number;
}

let latest: Quota | undefined;

/**
 * A quota from positive integers. Limiters that are made alike one after the other share theirs:
 * with one for each of many keys that is a fifth of the memory.
 */
export function quotaOf(limit: number, intervalMs: number, burst: number, name?: string): Quota {
  if (
    latest?.limit !== limit ||
    latest.intervalMs !== intervalMs ||
    latest.burst !== burst ||
    latest.name !== name
  ) {
    const ticks = intervalMs * TICKS_PER_MS;
    const divisor = greatestCommonDivisor(limit, ticks);
    latest = { name, limit, intervalMs, burst, gain: limit / divisor, per: ticks / divisor };
  }
  return latest;
}

/**
 * V8 keeps integers below this in the object that has them. A larger one, and a small one that comes
 * out of arithmetic on larger ones, is an object of its own, made anew with each change. So ticks are
 * kept in two parts, and what is small is made so by `| 0`: with 200 000 keys in no order that takes
 * 30 % off the time of a call, and 20 bytes off a key.
 */
const SMALL = 2 ** 30;

export class Bucket {
  quota: Quota;
  /** Whole tokens: at most `burst`, below 0 while there is debt. */
  tokens: number;
  /** 0 when the bucket is full. */
  fraction = 0;
  #high = 0;
  #low = 0;
  hold: Hold | undefined;

  /** A full one. */
  constructor(quota: Quota, at: number) {
    this.quota = quota;
    this.tokens = quota.burst;
    this.hold = undefined;
    this.at = at;
  }

  /** The tick of which `tokens` and `fraction` speak. */
  get at(): number {
    return this.#high * SMALL + this.#low;
  }

  set at(tick: number) {
    const high = Math.floor(tick / SMALL);
    this.#high = high | 0;
    this.#low = (tick - high * SMALL) | 0;
  }
}

/**
 * A bucket counts lower than it should for a time: up to the tick `until`, while `own` goes on as if
 * nothing had been held back. It is never below the other, since the same comes and goes of both.
 */
export interface Hold {
  readonly own: Bucket;
  readonly until: number;
}

/** Adds what has been gained up to `now`. An instant in the past changes nothing. */
export function refill(bucket: Bucket, now: number): void {
  const { hold } = bucket;
  if (hold !== undefined) {
    refill(hold.own, now);
    if (hold.until <= now) letGo(bucket);
  }
  const elapsed = now - bucket.at;
  if (elapsed <= 0) return;
  bucket.at = now;
  const { burst, gain, per } = bucket.quota;
  if (bucket.tokens === burst) return;
  const grown = elapsed * gain + bucket.fraction;
  let gained: number;
  let fraction: number;
  if (grown <= Number.MAX_SAFE_INTEGER) {
    // Exact: the quotient of two integers below 2^53 is never rounded up to the next integer.
    gained = Math.floor(grown / per);
    fraction = grown - gained * per;
  } else {
    const exact = BigInt(elapsed) * BigInt(gain) + BigInt(bucket.fraction);
    gained = Number(exact / BigInt(per));
    fraction = Number(exact % BigInt(per));
  }
  if (gained >= burst - bucket.tokens) {
    bucket.tokens = burst;
    bucket.fraction = 0;
  } else if (burst < SMALL && per < SMALL && bucket.tokens > -SMALL) {
    bucket.tokens = (bucket.tokens + gained) | 0;
    bucket.fraction = fraction | 0;
  } else {
    bucket.tokens += gained;
    bucket.fraction = fraction;
  }
}

/** Takes what is there. */
export function take(bucket: Bucket, amount: number): void {
  bucket.tokens -= amount;
  if (bucket.hold !== undefined) take(bucket.hold.own, amount);
}

/** Takes what may not be there: the bucket may end up in debt. */
export function charge(bucket: Bucket, amount: number): void {
  bucket.tokens = Math.max(bucket.tokens - amount, -Number.MAX_SAFE_INTEGER);
  if (bucket.hold !== undefined) charge(bucket.hold.own, amount);
}

/** Puts back what was taken, as far as there is room. */
export function giveBack(bucket: Bucket, amount: number): void {
  const { burst } = bucket.quota;
  if (amount >= burst - bucket.tokens) {
    bucket.tokens = burst;
    bucket.fraction = 0;
  } else {
    bucket.tokens += amount;
  }
  if (bucket.hold !== undefined) giveBack(bucket.hold.own, amount);
}

/** Holds all but `remaining` tokens back up to the tick `until`, which is to come; Infinity: for good. */
export function holdBack(bucket: Bucket, remaining: number, until: number): void {
  if (remaining >= bucket.tokens) return;
  bucket.hold = until < Infinity ? { own: copyOf(bucket), until } : undefined;
  bucket.tokens = remaining;
}

/** Ends a hold now. */
export function letGo(bucket: Bucket): void {
  const { hold } = bucket;
  if (hold === undefined) return;
  bucket.hold = undefined;
  bucket.tokens = hold.own.tokens;
  bucket.fraction = hold.own.fraction;
  bucket.at = hold.own.at;
}

/** Goes on with another quota. What is there stays, as far as there is room for it. */
export function reshape(bucket: Bucket, quota: Quota): void {
  const { per } = bucket.quota;
  bucket.quota = quota;
  bucket.fraction = Number((BigInt(bucket.fraction) * BigInt(quota.per)) / BigInt(per));
  if (bucket.tokens >= quota.burst) {
    bucket.tokens = quota.burst;
    bucket.fraction = 0;
  }
  if (bucket.hold !== undefined) reshape(bucket.hold.own, quota);
}

/** The same again, to look into the future with. */
export function copyOf(bucket: Bucket): Bucket {
  return copyInto(new Bucket(bucket.quota, bucket.at), bucket);
}

export function copyInto<B extends Bucket>(copy: B, { tokens, fraction, hold }: Bucket): B {
  copy.tokens = tokens;
  copy.fraction = fraction;
  copy.hold = hold && { own: copyOf(hold.own), until: hold.until };
  return copy;
}

/**
 * The first tick, `start` or later, at which the bucket holds `level` tokens if nobody takes any
 * before. A level above `burst`, which it never holds, stands for takings one after the other, each
 * as soon as it is possible.
 */
export function tickOfLevel(bucket: Bucket, level: number, start: number): number {
  if (start > bucket.at) {
    bucket = copyOf(bucket);
    refill(bucket, start);
  }
  const tick = bucket.at + ticksOf(bucket, level - bucket.tokens);
  const until = bucket.hold?.until ?? Infinity;
  return tick > until ? tickOfLevel(bucket, level, until) : tick;
}

/** How many ticks it takes to gain so many tokens. */
function ticksOf({ quota: { gain, per }, fraction }: Bucket, tokens: number): number {
  if (tokens <= 0) return 0;
  const product = tokens * per;
  if (product <= Number.MAX_SAFE_INTEGER) return Math.ceil((product - fraction) / gain);
  const exact = BigInt(tokens) * BigInt(per) - BigInt(fraction);
  // Rounded up.
  return Number((exact + BigInt(gain) - 1n) / BigInt(gain));
}

function greatestCommonDivisor(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}
