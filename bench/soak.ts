// node bench/soak.ts --minutes M: the tutoring chat, with a model and students who misbehave all the
// time. --help tells the rest.
import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { type Child, type Figures, startChild } from '../examples/support/child.ts';
import { Random } from './soak/random.ts';
import { attend, type Outcome } from './soak/students.ts';
import { Upstream } from './soak/upstream.ts';

const USAGE = `Usage: npm run soak -- [options]

  --minutes M     how long students ask (1)
  --students N    how many (40)
  --seed S        of what goes wrong, and when (1)

Starts the tutoring chat in front of a model that hangs, resets, fails, talks garbage, breaks off and is
restarted, and lets students ask who read, read slowly, vanish and take their questions back. Exit code 1
if an answer was lost, or if anything is left over afterwards.`;

const CHAT = new URL('../examples/tutoring-chat/start.ts', import.meta.url);

/** So that the line is full now and then, and that who hangs is given up soon. */
const SETTINGS = { CHAT_MAX_WAITING: '25', CHAT_ANSWER_TIMEOUT_MS: '3000' };

/** How often the memory is looked at, … */
const EVERY_MS = 10_000;
/** … what of the time does not count for its slope: nothing has its size from the beginning, … */
const WARM_UP = 1 / 3;
/** … and how long the connections that are kept open may stay so when nobody asks any more. */
const CLOSING_MS = 30_000;

interface Sample {
  readonly minutes: number;
  readonly heapBytes: number;
}

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    students: { type: 'string', default: '40' },
    seed: { type: 'string', default: '1' },
    help: { type: 'boolean', default: false },
  },
});
const plan = {
  minutes: Number(values.minutes),
  students: Number(values.students),
  seed: Number(values.seed),
};
if (values.help) {
  console.log(USAGE);
} else if (plan.minutes > 0 && plan.students > 0 && Object.values(plan).every(Number.isFinite)) {
  process.exitCode = (await soak(plan)) ? 0 : 1;
} else {
  console.error(USAGE);
  process.exitCode = 2;
}

/** Resolves to whether nothing was lost and nothing is left. */
async function soak({ minutes, students, seed }: typeof plan): Promise<boolean> {
  console.log(`${students} students for ${minutes} min, seed ${seed}`);
  const upstream = await Upstream.start(new Random(seed));
  const env = { ...SETTINGS, OPENAI_BASE_URL: `${upstream.url}/v1` };
  const args = ['--port', '0'];
  // It says of each fault that there was one.
  const chat = await startChild(CHAT, { names: ['Chat'], args, env, stderr: 'ignore' });
  const agent = new Agent({ keepAlive: true });
  const outcomes: Outcome[] = [];
  const before = await chat.figures();
  chat.reset();

  const ended = AbortSignal.timeout(minutes * 60_000);
  const own = {
    url: chat.urls['Chat']!,
    agent,
    random: new Random(seed + 1),
    onOutcome: (outcome: Outcome) => void outcomes.push(outcome),
  };
  const everybody = Array.from({ length: students }, (_, number) => attend(number, own, ended));
  const [samples] = await Promise.all([
    watch(chat, ended),
    upstream.restart(new Random(seed + 2), ended),
    ...everybody,
  ]);
  const after = await chat.figures();
  agent.destroy();

  const left = await leftOver(chat, upstream, before);
  const { code, tookMs } = await chat.end();
  const { peak } = upstream;
  await upstream.close();

  const lost = outcomes.filter(({ kind }) => kind === 'lost');
  const told = outcomes.filter(({ kind }) => kind === 'told');
  tell('questions', `${outcomes.length}: ${countsOf(outcomes.map(({ kind }) => kind))}`);
  tell('students', countsOf(outcomes.map(({ manner }) => manner)));
  tell('faults', [...upstream.faults].map(([fault, count]) => `${fault} ${count}`).join(', '));
  tell('told', countsOf(told.map(({ why }) => why)));
  tell('lost', String(lost.length));
  tell('at the model', `${peak} at once at most, of 5`);
  tell('heap', heapOf(samples));
  tell('event loop', `${after.delayP99Ms.toFixed(1)} ms late at p99`);
  tell('left over', left.join(', ') || 'nothing: nobody active or waiting, no sockets, no timers');
  tell('end', `with code ${code}, ${Math.round(tookMs)} ms after the signal`);
  for (const why of new Set(lost.map((outcome) => outcome.why))) console.error(why);
  return lost.length === 0 && left.length === 0 && code === 0 && peak <= 5;
}

async function watch(chat: Child, ended: AbortSignal): Promise<Sample[]> {
  const samples: Sample[] = [];
  const begun = performance.now();
  while (!ended.aborted) {
    const { memory } = await chat.figures();
    samples.push({ minutes: (performance.now() - begun) / 60_000, heapBytes: memory.heapUsed });
    await sleep(EVERY_MS, undefined, { signal: ended }).catch(() => {});
  }
  return samples;
}

/** What is there that was not there before anybody had asked, once there was time for it to go. */
async function leftOver(chat: Child, upstream: Upstream, before: Figures): Promise<string[]> {
  const deadline = performance.now() + CLOSING_MS;
  for (;;) {
    const response = await fetch(`${chat.urls['Chat']}/health`, {
      headers: { connection: 'close' },
    });
    const { active, waiting } = (await response.json()) as { active: number; waiting: number };
    const resources = [...(await chat.figures()).resources];
    for (const name of before.resources) {
      if (resources.includes(name)) resources.splice(resources.indexOf(name), 1);
    }
    const left = [
      ...(active === 0 ? [] : [`${active} active`]),
      ...(waiting === 0 ? [] : [`${waiting} waiting`]),
      ...(upstream.open === 0 ? [] : [`${upstream.open} at the model`]),
      ...(resources.length === 0 ? [] : [countsOf(resources)]),
    ];
    if (left.length === 0 || performance.now() > deadline) return left;
    await sleep(250);
  }
}

/** How the heap grows when the garbage is collected: by least squares, with its standard error. */
function heapOf(samples: readonly Sample[]): string {
  const from = samples.at(-1)!.minutes * WARM_UP;
  const counted = samples.filter((sample) => sample.minutes >= from);
  const meanMinutes = meanOf(counted.map(({ minutes }) => minutes));
  const meanBytes = meanOf(counted.map(({ heapBytes }) => heapBytes));
  const spread = meanOf(counted.map(({ minutes }) => (minutes - meanMinutes) ** 2));
  const together = counted.map(
    ({ minutes, heapBytes }) => (minutes - meanMinutes) * (heapBytes - meanBytes),
  );
  const slope = meanOf(together) / spread;
  const residues = counted.map(
    ({ minutes, heapBytes }) => (heapBytes - meanBytes - slope * (minutes - meanMinutes)) ** 2,
  );
  const error = Math.sqrt(meanOf(residues) / spread / (counted.length - 2));
  const [first, warm, last] = [samples[0]!, counted[0]!, samples.at(-1)!].map(({ heapBytes }) =>
    (heapBytes / 2 ** 20).toFixed(1),
  );
  const perMinute =
    counted.length < 3
      ? 'too short to tell'
      : `${(slope / 1024).toFixed(0)} ± ${(error / 1024).toFixed(0)} kB a minute`;
  return `${first} MB, ${warm} when warm, ${last} at the end; from there ${perMinute}`;
}

function meanOf(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

function countsOf(names: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  const sorted = [...counts].toSorted(([, one], [, other]) => other - one);
  return sorted.map(([name, count]) => `${name} ${count}`).join(', ');
}

function tell(name: string, figure: string): void {
  console.log(`${name.padEnd(14)}${figure}`);
}
