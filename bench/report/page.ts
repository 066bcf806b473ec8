import type { Section, Verdict } from '../harness.ts';

/** What one script under bench/ measured. */
export interface Subject {
  readonly name: string;
  readonly sections: readonly Section[];
}

export interface Machine {
  readonly processor: string;
  readonly memoryGiB: number;
  readonly node: string;
  readonly platform: string;
}

export interface Chart {
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

/** The page of all figures, as Markdown. */
export function pageOf(
  subjects: readonly Subject[],
  machine: Machine,
  charts: readonly Chart[],
): string {
  const verdicts = subjects.flatMap(({ sections }) => sections.flatMap((each) => each.verdicts));
  const met = verdicts.filter(isMet).length;
  return [
    '# Benchmarks',
    '',
    '<!-- Written by `npm run bench`. What is changed here by hand is lost with the next run. -->',
    '',
    `\`npm run bench\` measures all of this again. The last time, ${met} of ${verdicts.length} goals were met; those that`,
    'were not say so in their row, and where a peer is faster its row says that.',
    '',
    '## How it is measured',
    '',
    '* Everything under one heading runs interleaved in one process: a round of each subject in turn, so',
    '  that a machine that gets slower gets slower for all. Streams are served by processes of their own.',
    '* What is measured of a semaphore and of a queue has a process for each heading, and goes every other round',
    '  the other way round: so nobody always clears away the garbage of the same other one.',
    '* The first rounds are warm-up and are not counted. A figure is the median of the others, and what',
    '  is compared are ratios within one run: the figures of two runs, or of two machines, are not.',
    '* A subject lives through all its rounds, as it would in a server.',
    '* Bytes are what is left on the heap after a full collection.',
    '* The peers do [less](comparison.md). They are what the price of the rest is to be seen against.',
    '',
    `Machine: ${machine.processor}, ${machine.memoryGiB} GiB, ${machine.platform}, Node ${machine.node}.`,
    '',
    ...charts.flatMap(({ file, title }) => [`![${title}](images/${file})`, '']),
    ...subjects.flatMap(chapterOf),
  ].join('\n');
}

function chapterOf({ name, sections }: Subject): string[] {
  return [
    `## ${name}`,
    '',
    `[bench/${name}.ts](../bench/${name}.ts)`,
    '',
    ...sections.flatMap(sectionOf),
  ];
}

function sectionOf({ title, figures, verdicts, notes }: Section): string[] {
  const lines = [`### ${title}`, ''];
  if (figures.length > 0) {
    lines.push('| | |', '| --- | ---: |');
    for (const { name, value, unit } of figures)
      lines.push(`| ${name} | ${digits(value)} ${unit} |`);
    lines.push('');
  }
  if (verdicts.length > 0) {
    lines.push('| Goal | measured | at most | |', '| --- | ---: | ---: | --- |');
    for (const verdict of verdicts) {
      const { what, got, atMost } = verdict;
      const mark = isMet(verdict) ? 'met' : '**missed**';
      lines.push(`| ${what} | ${digits(got)} | ${digits(atMost)} | ${mark} |`);
    }
    lines.push('');
  }
  for (const note of notes) lines.push(note, '');
  return lines;
}

function isMet({ got, atMost }: Verdict): boolean {
  return got <= atMost;
}

/** Three digits that mean something, without an exponent. */
export function digits(value: number): string {
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en');
  return String(Number(value.toPrecision(3)));
}
