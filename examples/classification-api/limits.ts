import { Keyed, RateLimitedError, RateLimiter } from 'sluice';

import type { Settings } from './settings.ts';

/** How often requests may come: together, and from each user. */
export class Limits {
  readonly #all: RateLimiter;
  readonly #users: Keyed<RateLimiter>;

  constructor({ perSecond, burst, userPerSecond, userBurst, maxUsers }: Settings) {
    this.#all = new RateLimiter({ limit: perSecond, burst });
    this.#users = new Keyed(() => new RateLimiter({ limit: userPerSecond, burst: userBurst }), {
      maxKeys: maxUsers,
      idleMs: 60_000,
    });
  }

  /** Throws `ERR_RATE_LIMITED` for who comes too soon. What one limit refuses, the other forgets. */
  admit(user: string): void {
    const own = this.#users.get(user);
    const lease = own.tryAcquire();
    if (lease === undefined) throw new RateLimitedError(own.retryAfterMs(), 'user');
    if (this.#all.tryAcquire() !== undefined) return;
    lease.cancel();
    throw new RateLimitedError(this.#all.retryAfterMs(), 'all');
  }

  /** How many requests may come now, and of how many users something is remembered. */
  gauges(): { readonly available: number; readonly users: number } {
    return { available: this.#all.available(), users: this.#users.size };
  }
}
