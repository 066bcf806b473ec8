import { fork } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

/**
 * How everything here is measured: all subjects in one process, one round of each in turn, so that
 * a machine that gets slower gets slower for all of them; the first rounds are warm-up; medians are
 * compared, and ratios are what is stated. A subject lives through all its rounds, as a limiter in a
 * server does. `--smoke` runs everything once with little work, to see that it runs; `--out=FILE`
 * writes what was measured to a file, for bench/report.ts; `--only=N` runs the section of that number.
 */

const { values: given } = parseArgs({
  strict: false,
  options: { smoke: { type: 'boolean' }, out: { type: 'string' }, only: { type: 'string' } },
});
export const smoke: boolean = given.smoke === true;

/** A ratio, or a figure, that is to be at most so much. */
export interface Verdict {
  readonly what: string;
  readonly got: number;
  readonly atMost: number;
}

/** A heading and everything that was printed under it. */
export interface Section {
  readonly title: string;
  readonly figures: { readonly name: string; readonly value: number; readonly unit: string }[];
  readonly verdicts: Verdict[];
  readonly notes: string[];
}

const sections: Section[] = [];
if (typeof given.out === 'string' && given.only === undefined) {
  const file = given.out;
  process.on('exit', () => writeFileSync(file, JSON.stringify(sections)));
}

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
    // In a section there and back again: nobody always has the garbage of the same other one to clear away.
    const back = given.only !== undefined && round % 2 === 1;
    for (const subject of back ? subjects.toReversed() : subjects) {
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

let count = 0;

/**
 * A heading with a process of its own, for what must not depend on the heap and the compiled code that
 * others have left behind.
 */
export async function section(title: string, measure: () => Promise<void>): Promise<void> {
  const number = String(count++);
  if (given.only === number) {
    heading(title);
    await measure();
    process.send?.(sections);
    if (process.connected) process.disconnect();
  } else if (given.only === undefined) {
    const child = fork(process.argv[1]!, [...process.argv.slice(2), `--only=${number}`]);
    child.once('message', (measured: Section[]) => sections.push(...measured));
    const [code] = (await once(child, 'exit')) as [number | null];
    if (code !== 0) throw new Error(`${title}: it ended with ${code}.`);
  }
}

export function heading(title: string): void {
  sections.push({ title, figures: [], verdicts: [], notes: [] });
  console.log(`\n${title}`);
}

export function figures(medians: ReadonlyMap<string, number>, unit: string): void {
  for (const [name, value] of medians) {
    sections.at(-1)!.figures.push({ name, value, unit });
    console.log(`  ${name.padEnd(32)} ${value.toFixed(value < 10 ? 2 : 1).padStart(10)} ${unit}`);
  }
}

/** A ratio and what it should be at most. */
export function verdict(what: string, got: number, atMost: number): void {
  sections.at(-1)!.verdicts.push({ what, got, atMost });
  const mark = got <= atMost ? 'met' : 'MISSED';
  const limit = Number(atMost.toFixed(3));
  console.log(`  → ${what}: ${got.toFixed(3)} (at most ${limit}) ${smoke ? '' : mark}`);
}

/** What there is to know about the figures above. */
export function note(text: string): void {
  sections.at(-1)!.notes.push(text);
}
