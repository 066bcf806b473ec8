import { statSync } from 'node:fs';

import { configDefaults, defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

import base from './vitest.config.ts';

const named = process.env['MUTATION_TESTS']?.split(' ').filter(Boolean) ?? [];

/** Most mutants die of plain tests, and of short files as well as of long ones. */
class QuickestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return files.toSorted((a, b) => costOf(a) - costOf(b));
  }
}

function costOf({ moduleId }: TestSpecification): number {
  return statSync(moduleId).size * (moduleId.includes('.prop.') ? 1000 : 1);
}

/** What a mutant of `src` is tried on: no test that needs a build, a browser, a process or seconds. */
export default defineConfig({
  ...base,
  test: {
    ...base.test,
    include: named.length > 0 ? named : ['tests/**/*.test.ts'],
    exclude: [
      ...configDefaults.exclude,
      'tests/{bench,examples,hazards,pages,simulation,sweeps,zoo}/**',
      'tests/{architecture,docs,guides,hazards,package,peers}.test.ts',
      'tests/http/{clients,compression,context,disconnects,event-source}.test.ts',
      'tests/session-manager.orders.test.ts',
      'tests/*.heap.test.ts',
    ],
    setupFiles: ['tests/support/mutation.ts'],
    testTimeout: 5_000,
    sequence: { sequencer: QuickestFirst },
    ...(process.env['MUTANTS'] !== undefined && {
      runner: './tests/support/mutants.ts',
      fileParallelism: false,
      // One that is on from the start is no reason to run a test often.
      ...(process.env['__STRYKER_ACTIVE_MUTANT__'] === undefined && { testTimeout: 900_000 }),
    }),
  },
});
