import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { type RunnerTestCase, type RunnerTestSuite, TestRunner, vi } from 'vitest';

/** What Stryker's instrumenter has put into the sources looks here which mutant is on. */
interface Switches {
  activeMutant?: string | undefined;
  hitCount?: number | undefined;
  hitLimit?: number;
  currentTestId?: string | undefined;
  mutantCoverage?: {
    static: Record<string, number>;
    perTest: Record<string, Record<string, number>>;
  };
}

const dir = process.env['MUTANTS']!;
const isSwitchedOutside = process.env['__STRYKER_ACTIVE_MUTANT__'] !== undefined;
const scope = globalThis as Record<string, unknown>;
const switches = (scope['__stryker__'] ??= {}) as Switches;
const { setTimeout, clearTimeout } = globalThis;

const noticedSoFar = (): Set<string> => {
  try {
    const lines = readFileSync(join(dir, 'noticed'), 'utf8').split('\n');
    return new Set(lines.map((line) => line.split(' ')[0]!));
  } catch {
    return new Set();
  }
};

function noteAll(file: string, hits: Readonly<Record<string, number>>): void {
  const lines = Object.keys(hits).map((id) => `${id}\n`);
  appendFileSync(join(dir, file), lines.join(''));
}

/** A test that waits for something that a mutant before it has taken away would wait for ever. */
function tooLong(): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error('Too long.')), 20_000).unref();
  });
}

type Hook = (context: unknown, suite?: unknown) => unknown;

/** Takes what `onTestFinished` was given. */
function putOff(test: RunnerTestCase & { onFinished?: Hook[] }): Hook[] {
  return (test.onFinished ?? []).splice(0);
}

/** The suites that a test is in, from the file on. */
function suitesOf(test: RunnerTestCase): RunnerTestSuite[] {
  const suites: RunnerTestSuite[] = [];
  for (let { suite } = test; suite !== undefined; { suite } = suite) suites.unshift(suite);
  return suites.includes(test.file) ? suites : [test.file, ...suites];
}

async function before(test: RunnerTestCase): Promise<void> {
  for (const suite of suitesOf(test)) {
    const hooks = TestRunner.getSuiteHooks(suite).beforeEach as Hook[];
    for (const hook of hooks) await hook(test.context, suite);
  }
}

async function after(test: RunnerTestCase): Promise<void> {
  for (const suite of suitesOf(test).toReversed()) {
    const hooks = TestRunner.getSuiteHooks(suite).afterEach as Hook[];
    for (const hook of hooks.toReversed()) await hook(test.context, suite);
  }
  for (const hook of putOff(test).toReversed()) await hook(test.context);
}

/**
 * Runs each test once as it is, and sees which mutants it reaches; then once with each of these on,
 * but for those that have been noticed by now. For scripts/mutants.ts.
 */
export default class MutantRunner extends TestRunner {
  /** Whether what runs at import time, of the file and of its tests, has been noted. */
  #hasImported = false;

  async runTask(test: RunnerTestCase): Promise<void> {
    const run = TestRunner.getTestFn(test) as () => Promise<void>;
    if (isSwitchedOutside) {
      await run();
      return;
    }
    const whole = async (): Promise<void> => {
      try {
        await before(test);
        await run();
      } finally {
        await after(test);
      }
    };
    await after(test);
    test.promises = [];
    const coverage = (switches.mutantCoverage ??= { static: {}, perTest: {} });
    if (!this.#hasImported) noteAll('imported', coverage.static);
    this.#hasImported = true;
    switches.currentTestId = test.id;
    const startedAt = performance.now();
    try {
      await Promise.race([whole(), tooLong()]);
    } catch (error) {
      appendFileSync(join(dir, 'failed'), `${test.name}\n`);
      throw error;
    }
    const tookMs = performance.now() - startedAt;
    switches.currentTestId = undefined;
    const hits = coverage.perTest[test.id] ?? {};
    coverage.perTest = {};
    noteAll('reached', hits);

    const noticed = noticedSoFar();
    for (const [id, count] of Object.entries(hits)) {
      if (noticed.has(id)) continue;
      writeFileSync(join(dir, 'current'), id);
      const how = await this.#runWith(id, count, whole, tookMs);
      if (how !== undefined) appendFileSync(join(dir, 'noticed'), `${id} ${how} ${test.name}\n`);
      // What the last run awaits for ever is not this one's, nor is what it has put off.
      test.promises = [];
      putOff(test);
      vi.restoreAllMocks();
      vi.unstubAllGlobals();
      vi.useRealTimers();
    }
    writeFileSync(join(dir, 'current'), '');
    await before(test);
  }

  /** How the test notices that mutant, if it does. */
  async #runWith(
    id: string,
    count: number,
    run: () => Promise<void>,
    tookMs: number,
  ): Promise<string | undefined> {
    switches.activeMutant = id;
    switches.hitCount = 0;
    switches.hitLimit = 1000 + 100 * count;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve('waits'), 700 + 4 * tookMs);
    });
    try {
      return await Promise.race([run().then(() => undefined), late]);
    } catch (error) {
      // A property that was interrupted before its first run has said nothing.
      return String(error).includes('interrupted after 0 tests') ? undefined : 'fails';
    } finally {
      clearTimeout(timer);
      switches.activeMutant = undefined;
      switches.hitCount = undefined;
    }
  }
}
