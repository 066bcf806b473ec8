import { type Clock, systemClock } from '../clock.ts';
import {
  countOrInfinity,
  integerWithin,
  msOrInfinity,
  positiveInteger,
  readOptions,
} from './assert.ts';
import { MAX_PRIORITIES } from './priority-line.ts';
import { quote } from './quote.ts';
import { checkedClock } from './time.ts';
import { MAX_INTERVAL_MS, type Quota, quotaOf } from './token-bucket.ts';

/** One limit: how fast tokens come in, and how many can be saved up. */
export interface LimitOptions {
  /** How many tokens come in per `intervalMs`, evenly spread: a positive integer. */
  readonly limit: number;
  /** A positive integer of ms, up to 2^43 - 1. Default 1000. */
  readonly intervalMs?: number | undefined;
  /**
   * How many tokens can be saved up, and so be taken at once: a positive integer. Default `limit`.
   * In any window of `w` ms at most `burst + limit * w / intervalMs` are granted: a provider that
   * counts N per window of W ms is never exceeded with `limit: N - burst` and `intervalMs: W`.
   */
  readonly burst?: number | undefined;
}

/** One limit, as it is now. */
export interface LimitStats {
  /** Undefined where there is one limit without a name. */
  readonly name: string | undefined;
  readonly limit: number;
  readonly intervalMs: number;
  readonly burst: number;
  /** Whole tokens that are there now. */
  readonly available: number;
  /** Tokens that are owed because of settlements above the estimate. */
  readonly debt: number;
}

/** One limit without a name, or several with names. */
interface Limits extends Omit<LimitOptions, 'limit'> {
  readonly limit?: number | undefined;
  readonly limits?: Readonly<Record<string, LimitOptions>> | undefined;
}

export const LIMIT_OPTIONS: ReadonlySet<string> = new Set(['limit', 'intervalMs', 'burst']);

/** The quota of one limit, checked; `name` where there are several. */
export function quotaFrom(
  { limit, intervalMs = 1000, burst = limit }: LimitOptions,
  name?: string,
): Quota {
  const prefix = name === undefined ? '' : `limits.${name}.`;
  return quotaOf(
    positiveInteger(`${prefix}limit`, limit),
    integerWithin(`${prefix}intervalMs`, intervalMs, 1, MAX_INTERVAL_MS),
    positiveInteger(`${prefix}burst`, burst),
    name,
  );
}

/** That of the only limit, or those of the named ones, checked. */
export function quotasFrom({ limit, intervalMs, burst, limits }: Limits): Quota[] {
  if (limits === undefined) return [quotaFrom({ limit: limit!, intervalMs, burst })];
  const named = Object.entries<LimitOptions>(readOptions('limits', limits, undefined));
  if (limit !== undefined || intervalMs !== undefined || burst !== undefined) {
    throw new TypeError('Expected either `limit`, `intervalMs` and `burst` or `limits`, got both.');
  }
  if (named.length === 0) throw new TypeError('Expected `limits` to have at least one limit.');
  return named.map(([name, of]) => quotaFrom(readOptions(quote(name), of, LIMIT_OPTIONS), name));
}

export const SETTING_OPTIONS: readonly string[] = [
  'maxWaiting',
  'priorities',
  'maxPauseMs',
  'clock',
];

/** What else a limiter is told, checked. */
export interface Settings {
  readonly clock: Clock;
  readonly maxWaiting: number;
  readonly priorities: number;
  readonly maxPauseMs: number;
}

/** One object for all limiters that ask for nothing else. */
const SETTINGS: Settings = {
  clock: systemClock,
  maxWaiting: Infinity,
  priorities: 5,
  maxPauseMs: 300_000,
};

export function settingsOf(given: {
  readonly [Name in keyof Settings]?: Settings[Name] | undefined;
}): Settings {
  if (!SETTING_OPTIONS.some((name) => name in given)) return SETTINGS;
  const { clock, maxWaiting, priorities, maxPauseMs } = { ...SETTINGS, ...given };
  return {
    clock: checkedClock(clock),
    maxWaiting: countOrInfinity('maxWaiting', maxWaiting),
    priorities: integerWithin('priorities', priorities, 1, MAX_PRIORITIES),
    maxPauseMs: msOrInfinity('maxPauseMs', maxPauseMs),
  };
}
