/**
 * The mutants of some files, a minute or two for each: node scripts/mutants.ts src/semaphore.ts …
 *
 * Stryker begins anew for each mutant, which takes hours. This takes the same mutants from its
 * instrumenter, each behind a switch, and lets tests/support/mutants.ts turn one after the other on while
 * the tests stay loaded. What only runs at import time cannot be switched so and gets a run of its own.
 * See docs/mutation.md.
 */

import { spawn } from 'node:child_process';
import { appendFileSync, cpSync, mkdtempSync, readFileSync } from 'node:fs';
import { rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createInstrumenter, type Instrumenter } from '@stryker-mutator/instrumenter';

import { testsOf } from '../tests/support/tests-of.ts';

interface Mutant {
  readonly id: string;
  readonly mutatorName: string;
  readonly replacement: string;
  readonly location: Record<'start' | 'end', { readonly line: number; readonly column: number }>;
}

/** A mutant that is switched on for so long has stopped the event loop. */
const HANGING_MS = 12_000;
/** One that is on from the start is on for as long as all tests take. */
const HANGING_ALONE_MS = 120_000;
const COPIED = ['src', 'tests', 'package.json', 'tsconfig.json', 'vitest.config.ts'];

const silent = (): void => {};
const isOff = (): boolean => false;
const log = {
  trace: silent,
  debug: silent,
  info: silent,
  warn: silent,
  error: silent,
  fatal: silent,
  isTraceEnabled: isOff,
  isDebugEnabled: isOff,
  isInfoEnabled: isOff,
};

/** Stryker makes its parts by an injector; these are the only parts that its instrumenter needs. */
function instrumenter(): Instrumenter {
  const parts: Record<string, unknown> = {};
  const injector = {
    provideValue(name: string, part: unknown) {
      parts[name] = part;
      return injector;
    },
    injectClass: (Kind: new (...all: unknown[]) => Instrumenter) =>
      new Kind(log, parts['createParser'], parts['print'], parts['transform']),
  };
  return createInstrumenter(injector as never);
}

const lines = (path: string): string[] => {
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean);
  } catch {
    return [];
  }
};

/** Runs the tests in `dir`. One mutant that is on for too long is noted, and ends it. */
async function vitest(
  dir: string,
  env: Record<string, string>,
): Promise<'passed' | 'failed' | 'hanging'> {
  const bin = join(dir, 'node_modules/vitest/vitest.mjs');
  let isHanging = false;
  const alone = env['__STRYKER_ACTIVE_MUTANT__'];
  // What a mutant has left behind may make a later test fail, which says nothing of the others.
  const bail = alone === undefined ? '0' : '1';
  const options = ['-c', 'vitest.mutation.config.ts', '--bail', bail, '--passWithNoTests'];
  // The same Node as this one: an older one fails tests for reasons of its own.
  const child = spawn(process.execPath, [bin, 'run', ...options], {
    cwd: dir,
    detached: true,
    stdio: 'ignore',
    env: { ...process.env, ...env, MUTANTS: dir },
  });
  let since = performance.now();
  let last = '';
  const watch = setInterval(() => {
    const [now = ''] = lines(join(dir, 'current'));
    if (now !== last || (now === '' && alone === undefined)) since = performance.now();
    last = now;
    if (performance.now() - since < (alone === undefined ? HANGING_MS : HANGING_ALONE_MS)) return;
    isHanging = true;
    appendFileSync(join(dir, 'noticed'), `${alone ?? now} hangs\n`);
    process.kill(-child.pid!, 'SIGKILL');
  }, 500);
  const code = await new Promise((resolve) => child.on('exit', resolve));
  clearInterval(watch);
  return isHanging ? 'hanging' : code === 0 ? 'passed' : 'failed';
}

async function tryMutantsOf(file: string): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'mutants-'));
  try {
    for (const name of [...COPIED, 'vitest.mutation.config.ts'])
      cpSync(name, join(dir, name), { recursive: true });
    symlinkSync(join(process.cwd(), 'node_modules'), join(dir, 'node_modules'));
    const source = readFileSync(file, 'utf8');
    const { files, mutants } = await instrumenter().instrument(
      [{ name: join(dir, file), content: source, mutate: true }],
      { ignorers: [], plugins: null, excludedMutations: [], noHeader: false },
    );
    writeFileSync(join(dir, file), files[0]!.content);
    const all = mutants as readonly Mutant[];
    const MUTATION_TESTS = testsOf(file).join(' ');
    const noticed = (): Set<string> =>
      new Set(lines(join(dir, 'noticed')).map((line) => line.split(' ')[0]!));

    while ((await vitest(dir, { MUTATION_TESTS })) === 'hanging') {
      writeFileSync(join(dir, 'current'), '');
    }
    const failed = lines(join(dir, 'failed'));
    if (failed.length > 0) console.log(`Failed without a mutant:\n  ${failed.join('\n  ')}`);
    const reached = new Set(lines(join(dir, 'reached')));
    const imported = new Set(lines(join(dir, 'imported')));
    const soFar = noticed();
    const rest = all.filter(({ id }) => !soFar.has(id) && (!reached.has(id) || imported.has(id)));
    // What fails by itself would notice each of them.
    const alone = { MUTATION_TESTS, __STRYKER_ACTIVE_MUTANT__: 'none' };
    if (rest.length > 0 && (await vitest(dir, alone)) !== 'passed') {
      throw new Error(`The tests of ${file} fail without a mutant.`);
    }
    for (const { id } of rest) {
      const how = await vitest(dir, { MUTATION_TESTS, __STRYKER_ACTIVE_MUTANT__: id });
      if (how === 'failed') appendFileSync(join(dir, 'noticed'), `${id} at import\n`);
    }
    report(file, source.split('\n'), all, noticed());
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const inShort = (code: string): string => code.replaceAll(/\s+/g, ' ').slice(0, 100);

function report(
  file: string,
  source: readonly string[],
  all: readonly Mutant[],
  noticed: ReadonlySet<string>,
): void {
  const left = all.filter(({ id }) => !noticed.has(id));
  for (const { location, mutatorName, replacement } of left) {
    const { start, end } = location;
    const lastLine = source[end.line]!.slice(0, end.column);
    const original = [...source.slice(start.line, end.line), lastLine]
      .join('\n')
      .slice(start.column);
    console.log(`${file}:${start.line + 1}:${start.column + 1} ${mutatorName}`);
    console.log(`  in ${source[start.line]!.trim()}`);
    console.log(`  - ${inShort(original)}`);
    console.log(`  + ${inShort(replacement)}`);
  }
  const share = ((100 * (all.length - left.length)) / all.length).toFixed(1);
  console.log(`${file}: ${all.length} mutants, ${left.length} not noticed, ${share} %`);
}

for (const file of process.argv.slice(2)) await tryMutantsOf(file);
