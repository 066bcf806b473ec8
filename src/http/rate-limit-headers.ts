import {
  decimalOf,
  fieldsOf,
  type HeadersLike,
  httpDateOf,
  isoTimeOf,
  nowOf,
  wholeMs,
} from './header-values.ts';

/** What an upstream says of one of its limits. `RateLimiter.sync` takes it as it is. */
export interface UpstreamLimit {
  /** How much it grants in all. */
  readonly limit?: number;
  /** How much is left. */
  readonly remaining: number;
  /** In how many ms the whole of it is there again; 0 where that is over. */
  readonly resetMs?: number;
}

type Field = 'limit' | 'remaining' | 'reset';

/** Of one limit, as found. */
type Found = { [F in Field]?: string | undefined };

/**
 * What the rate-limit headers of an answer say, by limit: the families of OpenAI and those who follow
 * it (`x-ratelimit-remaining-tokens`: `tokens`), of Anthropic (`anthropic-ratelimit-input-tokens-
 * remaining`: `inputTokens`), and the IETF's `RateLimit` with the names that are in it, or `default`
 * where there is no name, as in its older drafts and with GitHub. Resets may be durations (`6m0s`),
 * seconds, or times, which are taken relative to the answer's own `Date` and may be over.
 *
 * Undefined where there are none, where the answer comes from a cache (its `Age` is above 0), or where
 * nothing is understood: a limit whose remaining count is missing, negative or no number is left out,
 * and so is a reset that is none.
 *
 * @example
 * ```ts
 * const limits = parseRateLimitHeaders(response.headers);
 * if (limits?.tokens !== undefined) limiter.sync({ tokens: limits.tokens });
 * ```
 */
export function parseRateLimitHeaders(
  headers: HeadersLike,
): { readonly [name: string]: UpstreamLimit | undefined } | undefined {
  const fields = fieldsOf(headers);
  if ((decimalOf(fields.get('age')) ?? 0) > 0) return undefined;
  const found = new Map([
    ...draft7(fields.get('ratelimit')),
    ...families(fields),
    ...structured(fields.get('ratelimit'), fields.get('ratelimit-policy')),
  ]);
  const now = nowOf(fields);
  const limits: [string, UpstreamLimit][] = [];
  for (const [name, { limit, remaining, reset }] of found) {
    const left = countOf(remaining);
    const all = countOf(limit);
    // Azure says -1 for "none of your business".
    if (left === undefined || (limit !== undefined && all === undefined)) continue;
    const resetMs = resetOf(reset, now);
    limits.push([
      name,
      {
        ...(all !== undefined && { limit: all }),
        remaining: left,
        ...(resetMs !== undefined && { resetMs }),
      },
    ]);
  }
  return limits.length === 0 ? undefined : Object.fromEntries(limits);
}

const FAMILIES = [
  /^x-ratelimit-(?<field>limit|remaining|reset)(?:-(?<name>[a-z][a-z-]*))?$/,
  /^anthropic-ratelimit-(?<name>[a-z][a-z-]*)-(?<field>limit|remaining|reset)$/,
  /^ratelimit-(?<field>limit|remaining|reset)$/,
];

/** One header a field: `x-ratelimit-remaining-tokens`. */
function families(fields: ReadonlyMap<string, string>): Map<string, Found> {
  const found = new Map<string, Found>();
  for (const [header, value] of fields) {
    for (const family of FAMILIES) {
      const groups = family.exec(header)?.groups;
      if (groups === undefined) continue;
      const name = (groups['name'] ?? 'default').replace(/-([a-z]?)/g, (_, letter: string) =>
        letter.toUpperCase(),
      );
      found.set(name, { ...found.get(name), [groups['field']!]: value });
    }
  }
  return found;
}

/** `limit=100, remaining=50, reset=5`, as draft 7 of the IETF had it. */
function draft7(field: string | undefined): [string, Found][] {
  const pairs = (field ?? '').split(',').map((pair) => /^\s*(\w+)=(\d+)\s*$/.exec(pair));
  if (pairs.includes(null)) return [];
  return [['default', Object.fromEntries(pairs.map((pair) => [pair![1], pair![2]]))]];
}

/** `"default";r=50;t=30`, and its quota from `"default";q=100;w=60`. */
function structured(field: string | undefined, policy: string | undefined): [string, Found][] {
  const policies = new Map(itemsOf(policy ?? ''));
  const found: [string, Found][] = [];
  for (const [name, parameters] of itemsOf(field ?? '')) {
    const quota = policies.get(name);
    // Places are not tokens: they come back when a call ends.
    if (quota?.get('qu') === '"concurrent-requests"') continue;
    found.push([
      name,
      { limit: quota?.get('q'), remaining: parameters.get('r'), reset: parameters.get('t') },
    ]);
  }
  return found;
}

/**
 * The strings of a list with their parameters, as far as RFC 9651 is used here. A list with anything
 * wrong in it is ignored as a whole, as that RFC wants it.
 */
function itemsOf(list: string): [string, Map<string, string>][] {
  const items: [string, Map<string, string>][] = [];
  let at = 0;
  const eat = (form: RegExp): string | undefined => {
    form.lastIndex = at;
    const found = form.exec(list)?.[0];
    at += found?.length ?? 0;
    return found;
  };
  for (;;) {
    const name = eat(/"(?:[ !#-[\]-~]|\\["\\])*"/y);
    if (name === undefined) return [];
    const parameters = new Map<string, string>();
    while (eat(/; */y) !== undefined) {
      const key = eat(/[a-z*][a-z0-9_.*-]*/y);
      const value =
        eat(/=/y) === undefined
          ? '?1'
          : eat(
              /-?\d+(?:\.\d+)?|"(?:[ !#-[\]-~]|\\["\\])*"|[a-z*][\w!#$%&'*+.^`|~:/-]*|\?[01]|:[\w+/=]*:/iy,
            );
      if (key === undefined || value === undefined) return [];
      parameters.set(key, value);
    }
    items.push([name.slice(1, -1).replace(/\\(.)/g, '$1'), parameters]);
    if (at === list.length) return items;
    if (eat(/[ \t]*,[ \t]*/y) === undefined) return [];
  }
}

/** A count: a non-negative integer; of a list of quotas, the first. */
function countOf(text: string | undefined): number | undefined {
  const count = Number(/^(\d+)(?:\s*[,;]|$)/.exec(text ?? '')?.[1] ?? Number.NaN);
  return Number.isSafeInteger(count) ? count : undefined;
}

/** A duration, or a time as seen from `now`: in ms from there, 0 where it is over. */
function resetOf(text: string | undefined, now: number): number | undefined {
  if (text === undefined) return undefined;
  const number = decimalOf(text);
  if (number === undefined) {
    const time = isoTimeOf(text) ?? httpDateOf(text);
    return time === undefined ? durationOf(text) : wholeMs(time - now);
  }
  // Nobody asks for a duration of 30 years: those are times, in ms or in seconds.
  if (number >= 1e12) return wholeMs(number - now);
  return wholeMs(number >= 1e9 ? number * 1000 - now : number * 1000);
}

const UNITS: ReadonlyMap<string, number> = new Map([
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
  ['us', 0.001],
  ['µs', 0.001],
  ['ns', 0.000_001],
]);

/** As Go writes it: `6m0s`, `1.5s`, `12ms`. */
function durationOf(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:[dhms]|[muµn]s))+$/.test(text)) return undefined;
  let ms = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)([a-zµ]+)/g)) {
    ms += Number(amount) * UNITS.get(unit!)!;
  }
  return ms <= Number.MAX_SAFE_INTEGER ? wholeMs(ms) : undefined;
}
