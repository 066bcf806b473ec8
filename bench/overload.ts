// node bench/overload.ts: the examples, each asked for more than it can do. --help tells the rest;
// docs/overload.md, the results.
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';

import { drive, type Report } from './overload/drive.ts';
import { SUBJECTS } from './overload/subjects.ts';

const USAGE = `Usage: npm run overload -- [options] [example …]

  --seconds S   for how long (20)
  --times X     how many times what it can do is asked of it (3)

Starts each example as a process of its own, measures what it can do, sends more than that whatever becomes
of it, and prints what has. Exit code 1 if a request has neither an answer nor a refusal that says when to
come again, or if anybody is active or waiting afterwards.
Examples: ${SUBJECTS.map(({ name }) => name).join(', ')} (all of them)`;

const FIGURES = [
  'can be answered, asked, a second',
  'requests',
  'finished',
  'refused',
  'lost',
  'a refusal took, p50, p99, most',
  'of that in the server, p99',
  'a bare server took, p50, p99',
  'a connection took, p99',
  'heap before, in the middle, after',
  'event loop late, p99',
  'active, waiting afterwards',
  'load of the machine',
] as const;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '20' },
    times: { type: 'string', default: '3' },
    help: { type: 'boolean', default: false },
  },
});
const [seconds, times] = [Number(values.seconds), Number(values.times)];
const chosen = SUBJECTS.filter(
  ({ name }) => positionals.length === 0 || positionals.includes(name),
);
const areKnown = positionals.every((each) => SUBJECTS.some(({ name }) => name === each));
if (values.help) {
  console.log(USAGE);
} else if (areKnown && Number.isInteger(seconds) && seconds > 0 && times > 0) {
  const reports: Report[] = [];
  for (const subject of chosen) {
    const report = await drive(subject, times, seconds);
    reports.push(report);
    for (const why of lostIn(report)) console.error(`${report.name}: ${why}`);
    if (!holds(report)) process.exitCode = 1;
  }
  tell(['', ...reports.map(({ name }) => name)]);
  tell(['---', ...reports.map(() => '---')]);
  const columns = reports.map(figuresOf);
  for (const [row, figure] of FIGURES.entries()) {
    tell([figure, ...columns.map((column) => column[row]!)]);
  }
} else {
  console.error(USAGE);
  process.exitCode = 2;
}

function tell(cells: readonly string[]): void {
  console.log(`| ${cells.join(' | ')} |`);
}

/** As in `FIGURES`. */
function figuresOf(report: Report): string[] {
  const { capacityPerSecond, askedPerSecond, outcomes, figures, delays, left } = report;
  const bareMs = report.bareMs.toSorted((one, other) => one - other);
  const connectedMs = outcomes
    .map((each) => each.connectedMs)
    .toSorted((one, other) => one - other);
  const finished = outcomes.filter(({ kind }) => kind === 'finished');
  const refused = outcomes.filter(({ kind }) => kind === 'refused');
  const refusedMs = refused.map(({ tookMs }) => tookMs).toSorted((one, other) => one - other);
  const codes = [...new Set(refused.map(({ code }) => code))].map(
    (code) => `${refused.filter((each) => each.code === code).length} \`${code}\``,
  );
  const heaps = figures.map(({ memory }) => (memory.heapUsed / 2 ** 20).toFixed(1));
  return [
    `${capacityPerSecond.toFixed(1)}, ${askedPerSecond}`,
    String(outcomes.length),
    String(finished.length),
    codes.join(', ') || '0',
    String(outcomes.length - finished.length - refused.length),
    refusedMs.length === 0 ? 'none' : percentilesOf(refusedMs, 0.5, 0.99, 1),
    `${delays.refusalP99Ms.toFixed(1)} ms`,
    percentilesOf(bareMs, 0.5, 0.99),
    percentilesOf(connectedMs, 0.99),
    `${heaps.join(', ')} MB`,
    `${delays.delayP99Ms.toFixed(1)} ms`,
    `${left.active}, ${left.waiting}`,
    `${report.load.toFixed(1)} on ${availableParallelism()}`,
  ];
}

function holds(report: Report): boolean {
  const { left, exitCode } = report;
  return lostIn(report).size === 0 && left.active === 0 && left.waiting === 0 && exitCode === 0;
}

function lostIn({ outcomes }: Report): Set<string> {
  return new Set(outcomes.filter(({ kind }) => kind === 'lost').map(({ code }) => code));
}

/** By nearest rank. */
function percentilesOf(sorted: readonly number[], ...shares: readonly number[]): string {
  return shares
    .map((share) => `${sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!.toFixed(1)} ms`)
    .join(', ');
}
