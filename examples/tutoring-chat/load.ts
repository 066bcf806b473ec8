import { parseArgs } from 'node:util';

import { startChild } from '../support/child.ts';
import { askTogether, type ClassReport } from './students.ts';

const USAGE = `Usage: node examples/tutoring-chat/load.ts [options]

  --students N,N,…           classes who all ask at once, one after the other (100,300,1000)
  --decode-ms-per-token X    how fast the model is (5)

Starts the chat and its model, and ends by itself: with exit code 1 if an answer was lost.`;

const START = new URL('start.ts', import.meta.url);

const { values: options } = parseArgs({
  options: {
    students: { type: 'string', default: '100,300,1000' },
    'decode-ms-per-token': { type: 'string', default: '5' },
    help: { type: 'boolean' },
  },
});
const classes = options.students.split(',').map(Number);
// The model server would take more than it should get, and counts.
const args = ['--port', '0', '--parallel', '100', '--prefill-ms-per-token', '0.1'];
args.push('--decode-ms-per-token', options['decode-ms-per-token']);
if (options.help === true) {
  console.log(USAGE);
} else if (classes.every((students) => Number.isSafeInteger(students) && students > 0)) {
  process.exitCode = (await runClasses()) === 0 ? 0 : 1;
} else {
  console.error(USAGE);
  process.exitCode = 2;
}

/** Resolves to how many answers were lost. */
async function runClasses(): Promise<number> {
  console.log(
    '| students | answered | lost | refused | wait p50 | wait p95 | all done | at the model |',
  );
  console.log('| --- | --- | --- | --- | --- | --- | --- | --- |');
  let lost = 0;
  for (const students of classes) {
    const chat = await startChild(START, { names: ['Model', 'Chat'], args });
    const report = await askTogether(chat.urls['Chat']!, students);
    const health = await fetch(`${chat.urls['Model']}/health`);
    const { peak } = (await health.json()) as { readonly peak: number };
    await chat.end();
    tellClass(report, peak);
    lost += report.lost.length;
  }
  return lost;
}

function tellClass(report: ClassReport, peak: number): void {
  const { students, answered, lost, refusals, waitsMs, elapsedMs } = report;
  const waits = [50, 95].map((percent) => secondsOf(percentile(waitsMs, percent)));
  const cells = [
    students,
    answered,
    lost.length,
    refusals,
    ...waits,
    secondsOf(elapsedMs),
    `${peak} of 5`,
  ];
  console.log(`| ${cells.join(' | ')} |`);
  for (const reason of new Set(lost)) console.error(reason);
}

/** By nearest rank. */
function percentile(all: readonly number[], percent: number): number {
  const sorted = all.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? Number.NaN;
}

function secondsOf(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
