import { testsOf } from './tests/support/tests-of.ts';

const at = process.argv.findIndex((word) => word === '-m' || word === '--mutate');
const mutated = at === -1 ? [] : process.argv[at + 1].split(',');

// For vitest.mutation.config.ts. With Stryker's own `testFiles`, 10.1 switches a mutant on when the
// code that runs at import time has run.
process.env.MUTATION_TESTS = mutated.flatMap(testsOf).join(' ');

export default {
  testRunner: 'vitest',
  vitest: { configFile: 'vitest.mutation.config.ts', related: false },
  mutate: ['src/**/*.ts', '!src/index.ts', '!src/http/index.ts', '!src/internal/options.ts'],
  coverageAnalysis: 'perTest',
  incremental: true,
  incrementalFile: 'reports/mutation/incremental.json',
  reporters: ['clear-text', 'json'],
  clearTextReporter: { allowColor: false, logTests: false, reportTests: false },
  allowConsoleColors: false,
  // Stryker would rewrite it with the API of TypeScript, which TypeScript 7 has not; no test needs it.
  tsconfigFile: 'none',
  concurrency: 1,
  timeoutMS: 2000,
  timeoutFactor: 1.5,
  ignorePatterns: ['bench', 'dist', 'docs', 'examples'],
  thresholds: { high: 98, low: 95, break: 95 },
};
