import { systemClock } from '../clock.ts';

/**
 * Header fields as clients and servers have them: `Headers` of fetch, or `headers` of node:http. They
 * come from somebody else: what is not understood is as good as absent, and nothing here throws.
 */
export type HeadersLike =
  | { get(name: string): string | null; entries(): Iterable<readonly [string, string]> }
  | { readonly [name: string]: string | readonly string[] | number | undefined };

/** Longer values are not looked at. */
const MAX_LENGTH = 1024;

/** All fields by their names in lower case; of one that comes several times, the first. */
export function fieldsOf(headers: HeadersLike): Map<string, string> {
  const fields = new Map<string, string>();
  // Those of axios have a `get`, and their fields as properties.
  const entries =
    typeof headers.get === 'function' && typeof headers['entries'] === 'function'
      ? (headers as Headers).entries()
      : Object.entries(headers as Record<string, unknown>);
  for (const [name, given] of entries) {
    const value: unknown = Array.isArray(given) ? given[0] : given;
    const text = typeof value === 'number' ? String(value) : value;
    const key = name.toLowerCase();
    if (typeof text === 'string' && text.length <= MAX_LENGTH && !fields.has(key)) {
      fields.set(key, text.trim());
    }
  }
  return fields;
}

/**
 * What time it is for whoever sent this, in ms since the epoch: their own `Date` where they tell it,
 * so that it does not matter how far apart the clocks are.
 */
export function nowOf(fields: ReadonlyMap<string, string>): number {
  return httpDateOf(fields.get('date')) ?? systemClock.now();
}

/** A non-negative decimal number without sign or exponent. */
export function decimalOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+(?:\.\d+)?$/.test(text)) return undefined;
  const number = Number(text);
  return number <= Number.MAX_SAFE_INTEGER ? number : undefined;
}

/** A span in whole ms: never shorter, never below 0, and without the dust of the arithmetic. */
export function wholeMs(ms: number): number {
  return Math.max(0, Math.ceil(Math.round(ms * 1000) / 1000));
}

const MONTHS = 'JanFebMarAprMayJunJulAugSepOctNovDec';

/** The three forms of RFC 9110, section 5.6.7, the second and third of which are obsolete. */
const HTTP_DATES = [
  /^\w{3}, (?<day>\d\d) (?<month>\w{3}) (?<year>\d{4}) (?<time>\d\d:\d\d:\d\d) GMT$/,
  /^\w{6,9}, (?<day>\d\d)-(?<month>\w{3})-(?<year>\d\d) (?<time>\d\d:\d\d:\d\d) GMT$/,
  /^\w{3} (?<month>\w{3}) (?<day>[ \d]\d) (?<time>\d\d:\d\d:\d\d) (?<year>\d{4})$/,
];

/** An HTTP date, in ms since the epoch. `Date.parse` alone takes nearly anything for a date. */
export function httpDateOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  for (const form of HTTP_DATES) {
    const found = form.exec(text)?.groups;
    if (found === undefined) continue;
    const { day, month, time } = found as Record<'day' | 'month' | 'time', string>;
    // Where there is no such month, its number is not whole, and the time none.
    const index = MONTHS.indexOf(month);
    return isoTimeOf(`${yearOf(found['year']!)}-${two(index / 3 + 1)}-${two(day)}T${time}Z`);
  }
  return undefined;
}

function two(number: string | number): string {
  return String(number).trim().padStart(2, '0');
}

/** A year of two digits is the one that is not more than 50 years ahead. */
function yearOf(text: string): string {
  if (text.length === 4) return text;
  const thisYear = 1970 + Math.floor(systemClock.now() / 31_556_952_000);
  const year = thisYear - (thisYear % 100) + Number(text);
  return String(year > thisYear + 50 ? year - 100 : year);
}

/** A time of RFC 3339, in ms since the epoch. */
export function isoTimeOf(text: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/i.test(text))
    return undefined;
  const time = Date.parse(text.toUpperCase());
  return Number.isNaN(time) ? undefined : time;
}
