import {
  decimalOf,
  fieldsOf,
  type HeadersLike,
  httpDateOf,
  nowOf,
  wholeMs,
} from './header-values.ts';

/**
 * How long an upstream asks to wait, in ms: the larger of `Retry-After` (seconds or an HTTP date, which
 * is taken relative to the answer's own `Date`) and `retry-after-ms`. Undefined where it does not say,
 * or says something that is neither, such as a negative number or a date in the past.
 *
 * What it says is returned however long it is, since to come back earlier would be wrong. It is for
 * the caller not to wait that long: `RateLimiter.pause` does not, beyond its `maxPauseMs`.
 *
 * @example
 * ```ts
 * if (response.status === 429) limiter.pause(parseRetryAfter(response.headers) ?? 1000);
 * ```
 */
export function parseRetryAfter(headers: HeadersLike): number | undefined {
  const fields = fieldsOf(headers);
  const asked = fields.get('retry-after');
  const waits = [
    decimalOf(fields.get('retry-after-ms')) ?? NaN,
    (decimalOf(asked) ?? NaN) * 1000,
    (httpDateOf(asked) ?? NaN) - nowOf(fields),
  ].filter((wait) => wait >= 0);
  return waits.length === 0 ? undefined : wholeMs(Math.max(...waits));
}
