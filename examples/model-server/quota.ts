/** What is limited. */
type QuotaName = 'requests' | 'tokens';

/** How one limit stands: what the rate-limit headers tell. */
export interface QuotaCount {
  readonly name: QuotaName;
  readonly limit: number;
  /** Whole ones that are left. */
  readonly remaining: number;
  /** In how many ms all of it is there again. */
  readonly resetMs: number;
}

/** Why a request was refused, and in how many ms it would not be: Infinity where that is never. */
export interface QuotaRefusal {
  readonly count: QuotaCount;
  readonly requested: number;
  readonly retryAfterMs: number;
}

interface Bucket {
  readonly name: QuotaName;
  readonly limit: number;
  level: number;
}

/**
 * Requests and tokens per window, as providers describe theirs: there is the whole of it at first,
 * and it comes back evenly, never above the whole. A request takes what it may use at most, of all
 * or of none, and gives back what it has not used when it is over.
 *
 * On purpose nothing of sluice is in here: what a client does about a quota is to be judged by
 * somebody else.
 */
export class Quota {
  readonly #windowMs: number;
  readonly #buckets: readonly Bucket[];
  #at = performance.now();

  /** A limit of 0 is none. */
  constructor(requests: number, tokens: number, windowMs: number) {
    this.#windowMs = windowMs;
    this.#buckets = [
      { name: 'requests' as const, limit: requests, level: requests },
      { name: 'tokens' as const, limit: tokens, level: tokens },
    ].filter(({ limit }) => limit > 0);
  }

  /** Takes one request and so many tokens, or nothing and says why. */
  take(tokens: number): QuotaRefusal | undefined {
    this.#refill();
    for (const bucket of this.#buckets) {
      const requested = bucket.name === 'requests' ? 1 : tokens;
      if (bucket.level >= requested) continue;
      const retryAfterMs = requested > bucket.limit ? Infinity : this.#msFor(bucket, requested);
      return { count: this.#count(bucket), requested, retryAfterMs };
    }
    for (const bucket of this.#buckets) bucket.level -= bucket.name === 'requests' ? 1 : tokens;
    return undefined;
  }

  /** Tokens that were taken and not used. */
  giveBack(tokens: number): void {
    this.#refill();
    const bucket = this.#buckets.find(({ name }) => name === 'tokens');
    if (bucket !== undefined) bucket.level = Math.min(bucket.limit, bucket.level + tokens);
  }

  counts(): QuotaCount[] {
    this.#refill();
    return this.#buckets.map((bucket) => this.#count(bucket));
  }

  #count(bucket: Bucket): QuotaCount {
    const { name, limit, level } = bucket;
    return { name, limit, remaining: Math.floor(level), resetMs: this.#msFor(bucket, limit) };
  }

  #msFor({ limit, level }: Bucket, wanted: number): number {
    return ((wanted - level) / limit) * this.#windowMs;
  }

  #refill(): void {
    const now = performance.now();
    for (const bucket of this.#buckets) {
      const gained = (bucket.limit * (now - this.#at)) / this.#windowMs;
      bucket.level = Math.min(bucket.limit, bucket.level + gained);
    }
    this.#at = now;
  }
}
