import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { readTrace, STANDARD_PACE } from '../trace.ts';
import { chartOf } from './chart.ts';
import { replayOverHttp } from './over-http.ts';
import { figuresOf, isAboveLimit, type Run } from './report.ts';
import { simulate } from './simulated.ts';

const USAGE = `Usage: node bench/replay.ts TRACE.csv (--target URL | --simulate) [options]

  --target URL               the chat of examples/tutoring-chat
  --model URL                the model server behind it, to ask how many calls it had at once
  --simulate                 in virtual time instead, through the primitives that the chat is made of
  --speed X                  the calls come X times as fast as in the trace (1)
  --limit N                  the first N calls
  --seconds S                the calls of the first S seconds of the trace
  --svg FILE                 draw a chart
  --help                     this

A chat takes as long as its model does. For --simulate it is said here:

  --concurrency N            calls at the model at once (5)
  --max-waiting N            calls in line (1000)
  --prefill-ms-per-token X   (${STANDARD_PACE.prefillMsPerToken})
  --decode-ms-per-token X    (${STANDARD_PACE.decodeMsPerToken})`;

const STRING = { type: 'string' } as const;
const BOOLEAN = { type: 'boolean' } as const;

/**
 * Runs the command; the exit code is 1 when the model had more calls at once than it should. Throws
 * an error for whoever called it with what is wrong.
 */
export async function replay(
  args: readonly string[],
  print: (line: string) => void,
): Promise<0 | 1> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      target: STRING,
      model: STRING,
      simulate: BOOLEAN,
      speed: STRING,
      limit: STRING,
      seconds: STRING,
      svg: STRING,
      concurrency: STRING,
      'max-waiting': STRING,
      'prefill-ms-per-token': STRING,
      'decode-ms-per-token': STRING,
      help: BOOLEAN,
    },
  });
  if (values.help === true) {
    print(USAGE);
    return 0;
  }
  const [path] = positionals;
  const { target, simulate: isSimulated = false } = values;
  if (path === undefined || positionals.length > 1 || (target === undefined) !== isSimulated) {
    throw new Error(USAGE);
  }
  const number = (name: keyof typeof values, standard: number, least: number): number =>
    numberOf(name, values[name] as string | undefined, standard, least);

  const speed = number('speed', 1, Number.MIN_VALUE);
  const untilMs = 1000 * number('seconds', Infinity, 0);
  const calls = readTrace(path, number('limit', Infinity, 1)).filter(({ atMs }) => atMs <= untilMs);
  if (calls.length === 0) throw new Error(`No calls are in ${path}.`);

  const run: Run =
    target === undefined
      ? await simulate(calls, {
          speed,
          concurrency: number('concurrency', 5, 1),
          maxWaiting: number('max-waiting', 1000, 0),
          pace: {
            prefillMsPerToken: number('prefill-ms-per-token', STANDARD_PACE.prefillMsPerToken, 0),
            decodeMsPerToken: number('decode-ms-per-token', STANDARD_PACE.decodeMsPerToken, 0),
          },
        })
      : await replayOverHttp(calls, speed, target, values.model);

  for (const [name, figure] of figuresOf(run)) print(`| ${name.padEnd(32)} | ${figure} |`);
  if (values.svg !== undefined) {
    writeFileSync(values.svg, chartOf(run, `${calls.length} calls at ${speed} times their pace`));
  }
  if (!isAboveLimit(run)) return 0;
  print(`The model had ${run.peak} calls at once, and should have had ${run.concurrency} at most.`);
  return 1;
}

function numberOf(name: string, text: string | undefined, standard: number, least: number): number {
  if (text === undefined) return standard;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (value >= least && value < Infinity) return value;
  throw new RangeError(`Expected --${name} to be a number of at least ${least}, got "${text}".`);
}
