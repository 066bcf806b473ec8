import { configDefaults, defineConfig } from 'vitest/config';

import base from './vitest.config.ts';

const named = process.env['MUTATION_TESTS']?.split(' ').filter(Boolean) ?? [];

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
    testTimeout: 2_500,
  },
});
