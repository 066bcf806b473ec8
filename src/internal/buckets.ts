import { integerWithin, positiveInteger } from './assert.ts';
import { quote } from './quote.ts';
import { Bucket, copyInto, type Quota, refill, take, tickOfLevel } from './token-bucket.ts';

/**
 * Buckets that are taken from all or nothing, as a linked list: nearly every limiter has one, and
 * two hundred thousand of them should not have two hundred thousand arrays.
 */
export class LinkedBucket extends Bucket {
  readonly next: LinkedBucket | undefined;

  constructor(quota: Quota, at: number, next: LinkedBucket | undefined) {
    super(quota, at);
    this.next = next;
  }
}

/** What is wanted: the same of every bucket, or so much of each in the order of the list. */
export type Demand = number | readonly number[];

/** Counts by the names of the buckets, as callers give them. */
export type Counts = Readonly<Record<string, number | undefined>>;

export function amountOf(demand: Demand, index: number): number {
  return typeof demand === 'number' ? demand : demand[index]!;
}

export function* each(first: LinkedBucket): IterableIterator<LinkedBucket> {
  for (let bucket: LinkedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    yield bucket;
  }
}

export function quotasOf(first: LinkedBucket): Quota[] {
  return Array.from(each(first), ({ quota }) => quota);
}

/** A cost, checked: a positive integer, or counts of which at least one is not 0. */
export function demandOf(first: LinkedBucket, cost: number | Counts): Demand {
  if (typeof cost !== 'object' || cost === null || first.quota.name === undefined) {
    return positiveInteger('cost', cost);
  }
  const demand = countsOf(first, 'cost', cost, 0);
  if (!demand.some((count) => count > 0)) {
    throw new RangeError('Expected `cost` to be above 0 for at least one limit.');
  }
  return demand;
}

/** Counts, checked and in the order of the list; one that is not given is as in `missing`. */
export function countsOf(
  first: LinkedBucket,
  option: string,
  counts: Counts,
  missing: Demand,
): number[] {
  const found: number[] = [];
  let known = 0;
  for (let bucket: LinkedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    const name = bucket.quota.name!;
    const given = Object.hasOwn(counts, name);
    if (given) known++;
    const count = given ? counts[name] : undefined;
    found.push(
      count === undefined ? amountOf(missing, found.length) : checkedCount(option, name, count),
    );
  }
  if (Object.keys(counts).length > known) throw unknownLimit(first, option, counts);
  return found;
}

/** The label is put together only for the message: every call with named limits comes by here. */
function checkedCount(option: string, name: string, count: number): number {
  return Number.isSafeInteger(count) && count >= 0
    ? count + 0
    : integerWithin(`${option}.${name}`, count, 0, Number.MAX_SAFE_INTEGER);
}

function unknownLimit(first: LinkedBucket, option: string, counts: Counts): TypeError {
  const names = new Set(quotasOf(first).map(({ name }) => name));
  const unknown = Object.keys(counts).find((name) => !names.has(name))!;
  return new TypeError(`Unknown limit ${quote(unknown)} in \`${option}\`.`);
}

/** The demand as a caller gives it. */
export function costOf(
  first: LinkedBucket,
  demand: Demand,
): number | Readonly<Record<string, number>> {
  if (typeof demand === 'number') return demand;
  return Object.freeze(
    Object.fromEntries(quotasOf(first).map(({ name }, index) => [name!, amountOf(demand, index)])),
  );
}

/** Brings all of them up to `now`, and tells of which instant they speak then. */
export function refillAll(first: LinkedBucket, now: number): number {
  for (let bucket: LinkedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    refill(bucket, now);
  }
  return first.at;
}

/** Whether all of them hold what is wanted. */
export function fits(first: LinkedBucket, demand: Demand): boolean {
  let index = 0;
  for (let bucket: LinkedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    if (bucket.tokens < amountOf(demand, index++)) return false;
  }
  return true;
}

/** Takes what is wanted, which they hold. */
export function takeAll(first: LinkedBucket, demand: Demand): void {
  let index = 0;
  for (let bucket: LinkedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
    take(bucket, amountOf(demand, index++));
  }
}

/** The first bucket of which more is wanted than it can ever hold, and how much. */
export function exceeded(
  first: LinkedBucket,
  demand: Demand,
): { readonly wanted: number; readonly bucket: LinkedBucket } | undefined {
  let index = 0;
  for (let bucket: LinkedBucket | undefined = first; bucket !== undefined; bucket = bucket.next) {
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
export function turnOf(first: LinkedBucket, demand: Demand, start: number): Turn {
  return lastOf(first, start, (bucket, index) =>
    tickOfLevel(bucket, amountOf(demand, index), start),
  );
}

/**
 * No later than the tick at which all of them have gained what is wanted on top of what is `owed` to
 * others. It is that tick where there is one bucket and nothing of it is held back. Otherwise a
 * bucket may gain nothing, being full, while everybody waits for another one, or for what is held.
 */
export function earliestTurnOf(
  first: LinkedBucket,
  demand: Demand,
  owed: readonly number[],
  start: number,
): Turn {
  return lastOf(first, start, (bucket, index) => {
    const level = amountOf(demand, index) + owed[index]!;
    const tick = tickOfLevel(bucket, level, start);
    const { hold } = bucket;
    // Past the end of the hold it is the own count, in which takings meanwhile have made room.
    return hold === undefined
      ? tick
      : Math.min(tick, Math.max(hold.until, tickOfLevel(hold.own, level, start)));
  });
}

function lastOf(
  first: LinkedBucket,
  start: number,
  tickOf: (bucket: LinkedBucket, index: number) => number,
): Turn {
  let last: Turn = { tick: start, limit: undefined };
  let index = 0;
  for (const bucket of each(first)) {
    const tick = tickOf(bucket, index++);
    if (tick > last.tick) last = { tick, limit: bucket.quota.name };
  }
  return last;
}

/** Buckets to look into the future with. */
export function copyAll(first: LinkedBucket): LinkedBucket {
  const copy = new LinkedBucket(first.quota, first.at, first.next && copyAll(first.next));
  return copyInto(copy, first);
}
