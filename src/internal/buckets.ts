import { integerWithin, positiveInteger } from './assert.ts';
import { quote } from './quote.ts';
import { Bucket, copyOf, type Quota, refill, take, tickOfLevel } from './token-bucket.ts';

/**
 * Buckets that are taken from all or nothing, as a linked list: nearly every limiter has one, and
 * two hundred thousand of them should not have two hundred thousand arrays.
 */
export class NamedBucket extends Bucket {
  /** Undefined where there is only one. */
  readonly name: string | undefined;
  next: NamedBucket | undefined;

  constructor(quota: Quota, at: number, name: string | undefined) {
    super(quota, at);
    this.name = name;
    this.next = undefined;
  }
}

/** What is wanted: the same of every bucket, or so much of each in the order of the list. */
export type Demand = number | readonly number[];

/** Counts by the names of the buckets, as callers give them. */
export type Counts = Readonly<Record<string, number | undefined>>;

export function amountOf(demand: Demand, index: number): number {
  return typeof demand === 'number' ? demand : demand[index]!;
}

export function* each(first: NamedBucket): IterableIterator<NamedBucket> {
  for (let bucket: NamedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    yield bucket;
  }
}

/** A cost, checked: a positive integer, or counts of which at least one is not 0. */
export function demandOf(first: NamedBucket, cost: number | Counts): Demand {
  if (typeof cost !== 'object' || cost === null || first.name === undefined) {
    return positiveInteger('cost', cost);
  }
  const demand = countsOf(first, 'cost', cost, 0);
  if (demand.every((count) => count === 0)) {
    throw new RangeError('Expected `cost` to be above 0 for at least one limit.');
  }
  return demand;
}

/** Counts, checked and in the order of the list; one that is not given is as in `missing`. */
export function countsOf(
  first: NamedBucket,
  option: string,
  counts: Counts,
  missing: Demand,
): number[] {
  const names = new Set(Object.keys(counts));
  const found: number[] = [];
  for (const { name } of each(first)) {
    const count = names.delete(name!) ? counts[name!] : undefined;
    found.push(
      count === undefined
        ? amountOf(missing, found.length)
        : integerWithin(`${option}.${name}`, count, 0, Number.MAX_SAFE_INTEGER),
    );
  }
  for (const name of names) throw new TypeError(`Unknown limit ${quote(name)} in \`${option}\`.`);
  return found;
}

/** The demand as a caller gives it. */
export function costOf(first: NamedBucket, demand: Demand): number | Record<string, number> {
  if (typeof demand === 'number') return demand;
  return Object.fromEntries(
    [...each(first)].map(({ name }, index) => [name!, amountOf(demand, index)]),
  );
}

/** Brings all of them up to `now`, and tells of which instant they speak then. */
export function refillAll(first: NamedBucket, now: number): number {
  for (let bucket: NamedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    refill(bucket, now);
  }
  return first.at;
}

/** Whether all of them hold what is wanted. */
export function fits(first: NamedBucket, demand: Demand): boolean {
  let index = 0;
  for (let bucket: NamedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    if (bucket.tokens < amountOf(demand, index++)) return false;
  }
  return true;
}

/** Takes what is wanted, which they hold. */
export function takeAll(first: NamedBucket, demand: Demand): void {
  let index = 0;
  for (let bucket: NamedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    take(bucket, amountOf(demand, index++));
  }
}

/** The first bucket of which more is wanted than it can ever hold, and how much. */
export function exceeded(
  first: NamedBucket,
  demand: Demand,
): { readonly wanted: number; readonly bucket: NamedBucket } | undefined {
  let index = 0;
  for (let bucket: NamedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    const wanted = amountOf(demand, index++);
    if (wanted > bucket.quota.burst) return { wanted, bucket };
  }
  return undefined;
}

/** When something can be had, and which bucket is the last to have enough for it. */
export interface Turn {
  readonly tick: number;
  readonly limit: string | undefined;
}

/** The first tick, `start` or later, at which all of them hold what is wanted. */
export function turnOf(first: NamedBucket, demand: Demand, start: number): Turn {
  return lastOf(first, start, (bucket, index) =>
    tickOfLevel(bucket, amountOf(demand, index), start),
  );
}

/**
 * No later than the tick at which all of them have gained what is wanted on top of what is `owed` to
 * others. It is that tick where there is one bucket and nothing of it is held back. Otherwise a
 * bucket may gain nothing, being full, while everybody waits for another one.
 */
export function earliestTurnOf(
  first: NamedBucket,
  demand: Demand,
  owed: readonly number[],
  start: number,
): Turn {
  return lastOf(first, start, (bucket, index) =>
    tickOfLevel(bucket.hold?.own ?? bucket, amountOf(demand, index) + owed[index]!, start),
  );
}

function lastOf(
  first: NamedBucket,
  start: number,
  tickOf: (bucket: NamedBucket, index: number) => number,
): Turn {
  let last: Turn = { tick: start, limit: undefined };
  let index = 0;
  for (const bucket of each(first)) {
    const tick = tickOf(bucket, index++);
    if (tick > last.tick) last = { tick, limit: bucket.name };
  }
  return last;
}

/** Buckets to look into the future with. */
export function copyAll(first: NamedBucket): NamedBucket {
  const copy = new NamedBucket(first.quota, first.at, first.name);
  return Object.assign(copy, copyOf(first), { next: first.next && copyAll(first.next) });
}
