import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { startProcess } from './process.ts';
import { askTogether, type ClassReport, overload } from './students.ts';

const USAGE = `Usage: node examples/tutoring-chat/load.ts [options]

  --students N,N,…           classes who all ask at once, one after the other (100,300,1000)
  --seconds N                how long there is an overload (20)
  --decode-ms-per-token X    how fast the model is (5)

Starts the chat and its model, and ends by itself: with exit code 1 if an answer was lost.`;

/** How many times what can be answered comes in an overload. */
const TIMES = 3;
/** In an overload the line is soon full. */
const LINE = 50;

const { values: options } = parseArgs({
  options: {
    students: { type: 'string', default: '100,300,1000' },
    seconds: { type: 'string', default: '20' },
    'decode-ms-per-token': { type: 'string', default: '5' },
    help: { type: 'boolean' },
  },
});
const classes = options.students.split(',').map(Number);
const seconds = Number(options.seconds);
// The model server would take more than it should get, and counts.
const pace = ['--parallel', '100', '--prefill-ms-per-token', '0.1'];
pace.push('--decode-ms-per-token', options['decode-ms-per-token']);
if (options.help === true) {
  console.log(USAGE);
} else if ([...classes, seconds].every((count) => Number.isSafeInteger(count) && count > 0)) {
  const lost = (await runClasses()) + (await runOverload());
  process.exitCode = lost === 0 ? 0 : 1;
} else {
  console.error(USAGE);
  process.exitCode = 2;
}

async function runClasses(): Promise<number> {
  console.log(
    '| students | answered | lost | refused | wait p50 | wait p95 | all done | at the model |',
  );
  console.log('| --- | --- | --- | --- | --- | --- | --- | --- |');
  let lost = 0;
  for (const students of classes) {
    const chat = await startProcess(pace);
    const report = await askTogether(chat.url, students);
    const { peak } = await chat.health();
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

async function runOverload(): Promise<number> {
  const chat = await startProcess(pace, { CHAT_MAX_WAITING: String(LINE) });
  // As many as have room in line. The first ones warm everything up.
  let elapsedMs = 0;
  for (let i = 0; i < 3; i += 1) ({ elapsedMs } = await askTogether(chat.url, LINE));
  const capacity = LINE / (elapsedMs / 1000);
  const perSecond = Math.round(TIMES * capacity);

  const before = await chat.memory();
  const [report, middle] = await Promise.all([
    overload(chat.url, perSecond, seconds),
    sleep(500 * seconds).then(() => chat.memory()),
  ]);
  const after = await chat.memory();
  const { active, waiting, peak } = await chat.health();
  await chat.end();

  const { sent, answered, refusalsMs, lost } = report;
  const refusals = [50, 99, 100].map((percent) => msOf(percentile(refusalsMs, percent)));
  const memory = [before, middle, after];
  const rows = [
    ['can be answered', `${capacity.toFixed(1)} a second`],
    ['asked', `${perSecond} a second for ${seconds} s: ${sent}`],
    ['let in and answered', answered],
    ['refused', refusalsMs.length],
    ['lost', lost.length],
    ['a refusal took, p50, p99, most', refusals.join(', ')],
    ['heap before, in the middle, after', memory.map(({ heapUsed }) => mbOf(heapUsed)).join(', ')],
    ['all memory, at the same times', memory.map(({ rss }) => mbOf(rss)).join(', ')],
    ['at the model', `${peak} of 5`],
    ['active and waiting afterwards', `${active} and ${waiting}`],
  ];
  console.log(`\n| ${TIMES} times what can be answered | |\n| --- | --- |`);
  for (const [name, figure] of rows) console.log(`| ${name} | ${figure} |`);
  for (const reason of new Set(lost)) console.error(reason);
  return lost.length;
}

/** By nearest rank. */
function percentile(all: readonly number[], percent: number): number {
  const sorted = all.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? Number.NaN;
}

function secondsOf(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

function msOf(ms: number): string {
  return `${ms.toFixed(1)} ms`;
}

function mbOf(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MB`;
}
