import { spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { type Mutant, MUTANTS } from './mutants.ts';

/*
 * npm run zoo                  lets the simulation look for every mutant, and prints what found it
 * npm run zoo -- --name WORD   only for those with that in their names
 *
 * Each is applied to a copy of the sources. A second run looks at the headline alone, never more
 * than N at once, to see how far one gets with that. Exits with 1 if one is not found.
 */

interface Finding {
  readonly violation?: { readonly id: string; readonly message: string };
  readonly seed: number;
  readonly steps: number;
  readonly seconds: number;
}

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const FOR_SECONDS = 30;
const HEADLINE = 'S1,Q1';
const HEADLINE_FOR_SECONDS = 3;
/** Of the first run: the same each time. */
const SEED = 1;
/** Short runs show more worlds of different kinds than one long one. */
const STEPS_EACH = 3000;

const { values } = parseArgs({ options: { name: { type: 'string', default: '' } } });

/** A copy of what the simulation needs, with the mutant in it. */
async function withMutant<T>(mutant: Mutant, use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'zoo-'));
  try {
    await cp(join(ROOT, 'src'), join(folder, 'src'), { recursive: true });
    await mkdir(join(folder, 'tests'));
    await cp(join(ROOT, 'tests/simulation'), join(folder, 'tests/simulation'), { recursive: true });
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'), 'junction');
    await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
    const file = join(folder, 'src', mutant.file);
    const source = await readFile(file, 'utf8');
    const parts = source.split(mutant.find);
    if (parts.length !== 2) throw new Error(`${mutant.file} does not have it once: ${mutant.name}`);
    await writeFile(file, parts.join(mutant.replace));
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Lets the simulation look for so long. */
function search(folder: string, seconds: number, only?: string): Promise<Finding | undefined> {
  const options = ['--json', '--seed', `${SEED}`, '--steps', `${STEPS_EACH}`];
  const looking = spawn(
    process.execPath,
    [
      join(folder, 'tests/simulation/main.ts'),
      ...options,
      '--minutes',
      `${seconds / 60}`,
      ...(only === undefined ? [] : ['--only', only]),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let output = '';
  looking.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  // It looks at the time between runs: one that hangs is stopped.
  const stop = setTimeout(() => looking.kill('SIGKILL'), (seconds + 5) * 1000);
  return new Promise((resolve) => {
    looking.on('close', () => {
      clearTimeout(stop);
      const line = output.trim();
      resolve(line.startsWith('{') ? (JSON.parse(line) as Finding) : undefined);
    });
  });
}

function row(...cells: readonly (string | number)[]): void {
  process.stdout.write(`| ${cells.join(' | ')} |\n`);
}

interface Result {
  readonly mutant: Mutant;
  readonly found: Finding | undefined;
  readonly headline: Finding | undefined;
}

const mutants = MUTANTS.filter(({ name }) => name.includes(values.name));
const results: Result[] = [];
/** Each takes the next one, as long as there is one: one for each processor. */
async function work(left: IterableIterator<Mutant>): Promise<void> {
  for (const mutant of left) {
    const result = await withMutant(mutant, async (folder) => ({
      mutant,
      found: await search(folder, FOR_SECONDS),
      headline: await search(folder, HEADLINE_FOR_SECONDS, HEADLINE),
    }));
    results.push(result);
    const { violation, steps } = result.found ?? {};
    const by = violation === undefined ? 'not found' : `${violation.id} after ${steps} steps`;
    process.stderr.write(`${results.length} of ${mutants.length}: ${mutant.name}: ${by}\n`);
  }
}

const left = mutants.values();
await Promise.all(Array.from({ length: availableParallelism() }, () => work(left)));

let missed = 0;
let byHeadline = 0;
row('what is broken', 'like', 'breaks', 'found by', 'steps', 'seconds');
row('---', '---', '---', '---', '--:', '--:');
for (const { mutant, found, headline } of results.toSorted(
  (a, b) => mutants.indexOf(a.mutant) - mutants.indexOf(b.mutant),
)) {
  if (headline?.violation !== undefined) byHeadline++;
  const { name, like, breaks } = mutant;
  if (found?.violation === undefined) {
    missed++;
    row(name, like, breaks, '**nothing**', found?.steps ?? '?', '');
  } else {
    row(name, like, breaks, found.violation.id, found.steps, found.seconds.toFixed(1));
  }
}
const total = mutants.length;
process.stdout.write(
  `\n${total - missed} of ${total} are found within ${FOR_SECONDS} s each; by "never more than N ` +
    `at once" (${HEADLINE}) alone, ${byHeadline} of ${total} within ${HEADLINE_FOR_SECONDS} s.\n`,
);
process.exitCode = missed === 0 ? 0 : 1;
