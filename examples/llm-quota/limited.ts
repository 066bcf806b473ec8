import { RateLimiter } from 'sluice';
import { parseRateLimitHeaders, parseRetryAfter } from 'sluice/http';

import { type Answer, type Provider, type Question, refusalOf } from './providers.ts';

/** What an account may do: so many requests and so many tokens per window. */
export interface Quota {
  readonly requests: number;
  readonly tokens: number;
  readonly windowMs: number;
}

/**
 * How much of a quota may be saved up and go at once. The provider counts the first requests a
 * little after they were sent, and has filled up less by the time that the next ones come: the other
 * half is for that. It costs nothing after the first burst.
 */
const BURST = 0.5;

/** A call that is refused more often has another problem. */
const MAX_REFUSALS = 20;

/** Who was refused goes before everybody else. */
const AGAIN = 1;

/** A provider that is never asked for more than its quota. */
export class LimitedProvider {
  readonly limiter: RateLimiter<'requests' | 'tokens'>;
  readonly #provider: Provider;
  #sent = 0;
  #refused = 0;
  #lastSentAt: number | undefined;

  constructor(provider: Provider, { requests, tokens, windowMs }: Quota) {
    const bucket = (limit: number): Readonly<Record<'limit' | 'intervalMs' | 'burst', number>> => ({
      limit,
      intervalMs: windowMs,
      burst: Math.ceil(limit * BURST),
    });
    this.#provider = provider;
    this.limiter = new RateLimiter({
      limits: { requests: bucket(requests), tokens: bucket(tokens) },
    });
  }

  /** Requests that were sent, and those of them that were answered with 429. */
  get sent(): number {
    return this.#sent;
  }

  get refused(): number {
    return this.#refused;
  }

  /** When the last one was sent, on the clock of `performance.now()`. */
  get lastSentAt(): number | undefined {
    return this.#lastSentAt;
  }

  /** Asks in its turn, and again where the provider has refused. */
  async ask(question: Question): Promise<Answer> {
    const cost = { requests: 1, tokens: estimateOf(question) };
    let answer = await this.#askOnce(question, { cost });
    for (let refusals = 1; answer === undefined; refusals += 1) {
      if (refusals > MAX_REFUSALS) throw new Error(`Refused ${MAX_REFUSALS} times.`);
      answer = await this.#askOnce(question, { cost, priority: AGAIN });
    }
    return answer;
  }

  /** Undefined where the provider has refused. */
  #askOnce(
    question: Question,
    options: {
      readonly cost: { readonly requests: number; readonly tokens: number };
      readonly priority?: number;
    },
  ): Promise<Answer | undefined> {
    return this.limiter.run(async ({ lease, signal }) => {
      this.#sent += 1;
      this.#lastSentAt = performance.now();
      try {
        const answer = await this.#provider.ask(question, signal, (headers) => this.#sync(headers));
        lease.settle({ tokens: answer.tokens });
        return answer;
      } catch (error) {
        const headers = refusalOf(error);
        if (headers === undefined) throw error;
        this.#refused += 1;
        // Nothing was used. What is left is what the provider says.
        lease.cancel();
        this.#sync(headers);
        this.limiter.pause(parseRetryAfter(headers) ?? 1000);
        return undefined;
      }
    }, options);
  }

  #sync(headers: Headers): void {
    const { requests, tokens } = parseRateLimitHeaders(headers) ?? {};
    this.limiter.sync({ requests, tokens });
  }
}

/**
 * The most that a call can use: the prompt at about four characters a token, with something for its
 * frame, and the longest answer.
 */
export function estimateOf({ prompt, maxTokens }: Question): number {
  return Math.ceil(prompt.length / 4) + 4 + maxTokens;
}
