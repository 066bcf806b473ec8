import { parseArgs } from 'node:util';

import { type RunResult, simulate } from './runner.ts';

/*
 * npm run simulate -- --seed S --steps N     one run, the same each time
 * npm run simulate -- --minutes M            new seeds for so long, each of 20 000 steps
 * npm run simulate -- --seed S --minutes M   the seeds from S on
 *
 * --only S1,Q1 looks at these promises alone; --json prints the result in a form for programs.
 */

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    steps: { type: 'string' },
    minutes: { type: 'string' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function number(name: string, text: string): number {
  const value = Number(text);
  if (value >= 0 && value < Infinity) return value;
  throw new RangeError(`Expected --${name} to be a number, got ${text}.`);
}

const first = values.seed === undefined ? Date.now() % 2 ** 31 : number('seed', values.seed);
const minutes = values.minutes === undefined ? 0 : number('minutes', values.minutes);
const stepsEach = number('steps', values.steps ?? '20000');

const only = values.only === undefined ? undefined : new Set(values.only.split(','));

const since = performance.now();
const secondsGone = (): number => (performance.now() - since) / 1000;
let seed = first;
let steps = 0;
let result: RunResult;
if (!values.json) say(`Start seed ${first}`);
do {
  result = await simulate(seed++, stepsEach, only);
  steps += result.steps;
} while (result.violation === undefined && secondsGone() < minutes * 60);

const { violation, trace, hash } = result;
const seconds = secondsGone();
if (values.json) {
  say(JSON.stringify({ violation, seed: result.seed, steps, seconds, hash }));
} else if (violation === undefined) {
  const rate = Math.round(steps / seconds);
  say(
    `Seeds ${first} to ${seed - 1}: ${steps} steps in ${seconds.toFixed(1)} s (${rate}/s), nothing found`,
  );
  if (seed - first === 1) say(`Trace hash ${hash}`);
} else {
  for (const line of trace) say(`  ${line}`);
  say(
    `${violation.id} is broken at step ${result.steps} of seed ${result.seed}: ${violation.message}`,
  );
  say(`Replay: npm run simulate -- --seed ${result.seed} --steps ${stepsEach}`);
}
process.exitCode = violation === undefined ? 0 : 1;
