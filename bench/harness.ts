/**
 * How everything here is measured: all subjects in one process, one round of each in turn, so that
 * a machine that gets slower gets slower for all of them; the first rounds are warm-up; medians are
 * compared, and ratios are what is stated. A subject lives through all its rounds, as a limiter in a
 * server does. `--smoke` runs everything once with little work, to see that it runs.
 */

export const smoke: boolean = process.argv.includes('--smoke');

/** A round returns the figure to compare: milliseconds, nanoseconds or bytes for a piece of work. */
export interface Subject {
  readonly name: string;
  readonly round: () => number | Promise<number>;
}

const WARM_UP = 3;

/** The median of each subject's rounds. */
export async function interleave(
  subjects: readonly Subject[],
  rounds = 15,
  warmUp = WARM_UP,
): Promise<Map<string, number>> {
  const all = new Map<string, number[]>(subjects.map(({ name }) => [name, []]));
  for (let round = 0; round < (smoke ? 1 : rounds + warmUp); round++) {
    for (const subject of subjects) {
      const figure = await subject.round();
      if (smoke || round >= warmUp) all.get(subject.name)!.push(figure);
    }
  }
  return new Map([...all].map(([name, values]) => [name, median(values)]));
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}

/** Milliseconds that `work` takes. */
export async function timed(work: () => unknown): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

export function heading(title: string): void {
  console.log(`\n${title}`);
}

export function figures(medians: ReadonlyMap<string, number>, unit: string): void {
  for (const [name, figure] of medians) {
    console.log(`  ${name.padEnd(32)} ${figure.toFixed(figure < 10 ? 2 : 1).padStart(10)} ${unit}`);
  }
}

/** A ratio and what it should be at most. */
export function verdict(what: string, ratio: number, atMost: number): void {
  const mark = ratio <= atMost ? 'met' : 'MISSED';
  console.log(`  → ${what}: ${ratio.toFixed(3)} (at most ${atMost}) ${smoke ? '' : mark}`);
}
