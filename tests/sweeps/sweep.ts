import { microtasks } from '../support/promises.ts';

/** Where the thing happens that everything else is swept around. */
const PIVOT = 15;
const DEPTHS = 31;

/** One order of events: what is told of when it turns out wrong. */
export interface Placing {
  readonly depth: number;
  /** Whether the action comes first where both are at the same depth. */
  readonly first: boolean;
}

/**
 * Every placing of an action around a pivot: the pivot after 15 microtasks, the action after each of
 * 0 to 30; at the same depth, in both orders.
 */
export const PLACINGS: readonly Placing[] = Array.from(
  { length: DEPTHS },
  (_, depth) => depth,
).flatMap((depth) =>
  depth === PIVOT
    ? [
        { depth, first: true },
        { depth, first: false },
      ]
    : [{ depth, first: depth < PIVOT }],
);

/** Lets both happen; resolves when they have. */
export async function place(
  { depth, first }: Placing,
  pivot: () => void,
  action: () => void,
): Promise<void> {
  const later = async (ticks: number, what: () => void): Promise<void> => {
    await microtasks(ticks);
    what();
  };
  const both = [
    (): Promise<void> => later(depth, action),
    (): Promise<void> => later(PIVOT, pivot),
  ];
  if (!first) both.reverse();
  await Promise.all(both.map((start) => start()));
}
