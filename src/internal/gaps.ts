import {
  copyAll,
  type Demand,
  each,
  fits,
  type LinkedBucket,
  refillAll,
  takeAll,
  type Turn,
  turnOf,
} from './buckets.ts';

/** The time from one grant to the next: from `tick`, when so much is `left`, up to the tick `until`. */
export interface Gap {
  readonly left: LinkedBucket;
  readonly tick: number;
  readonly until: number;
}

/** One in line. */
interface Waiting {
  readonly demand: Demand;
  readonly priority: number;
}

/** When a newcomer would be granted what it wants. */
export interface Turns {
  /** If it waited in line. */
  readonly wait: Turn;
  /** If it came back then: the same or later, since those less urgent are served meanwhile. */
  readonly retry: Turn;
}

/**
 * Plays through a line from the tick `start` on, if nobody else comes or goes: what is left between
 * the grants for one with this `priority`, once all before it have been served. The first gap is
 * where it would stand in line; the last has no end. Each is good until the next is asked for.
 */
export function* gapsOf(
  line: Iterable<Waiting>,
  first: LinkedBucket,
  priority: number,
  start: number,
): IterableIterator<Gap> {
  const left = copyAll(first);
  let tick = start;
  for (const waiting of line) {
    const until = turnOf(left, waiting.demand, tick).tick;
    if (waiting.priority > priority) yield { left, tick, until };
    tick = until;
    refillAll(left, tick);
    takeAll(left, waiting.demand);
  }
  yield { left, tick, until: Infinity };
}

/** The gaps to look for many callers in: the first, and each that holds what none before it does. */
export function keptOf(gaps: Iterable<Gap>): Gap[] {
  const kept: Gap[] = [];
  const ends: LinkedBucket[] = [];
  for (const { left, tick, until } of gaps) {
    const end = copyAll(left);
    // What is there at its last tick; after the end of the line there is everything in the end.
    if (until < Infinity) refillAll(end, until - 1);
    const most = Array.from(each(end), ({ tokens, quota }) =>
      until < Infinity ? tokens : quota.burst,
    );
    const isNew = tick < until && !ends.some((other) => fits(other, most));
    if (isNew) ends.push(end);
    if (isNew || kept.length === 0) kept.push({ left: copyAll(left), tick, until });
  }
  return kept;
}

/** The turns of one who wants `demand`, which is within every burst. */
export function turnsIn(gaps: Iterable<Gap>, demand: Demand): Turns {
  let wait: Turn | undefined;
  let retry: Turn | undefined;
  for (const { left, tick, until } of gaps) {
    retry = turnOf(left, demand, tick);
    wait ??= retry;
    // At the end of a gap the next in line goes first.
    if (retry.tick < until) break;
  }
  return { wait: wait!, retry: retry! };
}
