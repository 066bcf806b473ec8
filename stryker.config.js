/**
 * Internal files that are tested through the primitives that are made of them. All others have tests
 * of their own, and a mutant is tried on those alone: it should die where its file is tested.
 */
const TESTED_THROUGH = {
  buckets: ['rate-limiter'],
  context: ['token-streamer', 'shared-resource'],
  entry: ['admission-queue'],
  feed: ['token-streamer', 'token-sources'],
  loader: ['shared-resource'],
  lobby: ['rate-limiter'],
  outlet: ['token-streamer'],
  positions: ['admission-queue'],
  replay: ['token-streamer'],
  runs: ['semaphore'],
  session: ['session-manager'],
  'stream-handle': ['token-streamer'],
};

export function testsOf(file) {
  const path = file.replace(/^src\//, '').replace(/\.ts(:.*)?$/, '');
  if (path.startsWith('http/')) return ['tests/http/*.test.ts'];
  const own = [`tests/${path}{,.*}.test.ts`, `tests/regressions/${path}.test.ts`];
  const primitives = path.startsWith('internal/') ? TESTED_THROUGH[path.slice(9)] : undefined;
  return [...own, ...(primitives ?? []).map((name) => `tests/${name}.test.ts`)];
}

const at = process.argv.findIndex((word) => word === '-m' || word === '--mutate');
const mutated = at === -1 ? [] : process.argv[at + 1].split(',');

// For vitest.mutation.config.ts. With Stryker's own `testFiles`, 10.1 switches a mutant on when the
// code that runs at import time has run.
process.env.MUTATION_TESTS = mutated.flatMap(testsOf).join(' ');

/** @type {import('@stryker-mutator/api/core').PartialStrykerOptions} */
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
