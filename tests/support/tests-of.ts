/**
 * Internal files that are tested through the primitives that are made of them. All others have tests
 * of their own, and a mutant is tried on those alone: it should die where its file is tested.
 */
const TESTED_THROUGH: Readonly<Record<string, readonly string[]>> = {
  buckets: ['rate-limiter'],
  context: ['token-streamer', 'shared-resource'],
  entry: ['admission-queue'],
  feed: ['token-streamer', 'token-sources'],
  loader: ['shared-resource'],
  limits: ['rate-limiter'],
  lobby: ['rate-limiter'],
  ours: ['errors', 'http/http-error'],
  outlet: ['token-streamer'],
  positions: ['admission-queue'],
  pushed: ['token-sources'],
  replay: ['token-streamer'],
  runs: ['semaphore'],
  session: ['session-manager'],
  source: ['token-sources'],
  'stream-handle': ['token-streamer', 'http/encode-events'],
};

/** The same for the parts of `sluice/http`. Tests over sockets take part where nothing else does. */
const HTTP_TESTED_THROUGH: Readonly<Record<string, readonly string[]>> = {
  'ai-ui': ['formats'],
  disconnect: ['to-response', 'pipe-to-response'],
  encoder: ['formats'],
  events: ['formats'],
  frames: ['encode-events', 'formats', 'to-response', 'pipe-to-response'],
  'header-values': ['retry-after', 'rate-limit-headers'],
  ndjson: ['formats'],
  openai: ['formats'],
  options: ['encode-events', 'formats', 'to-response', 'pipe-to-response'],
  pieces: ['formats'],
  refusal: ['to-response', 'pipe-to-response'],
  text: ['formats'],
};

/** The tests on which the mutants of a file are tried, as globs. */
export function testsOf(file: string): string[] {
  const path = file.replace(/^src\//, '').replace(/\.ts(:.*)?$/, '');
  if (path.startsWith('http/')) {
    const name = path.slice(5);
    return [name, ...(HTTP_TESTED_THROUGH[name] ?? [])].map(
      (of) => `tests/http/${of}{,.*}.test.ts`,
    );
  }
  const own = [`tests/${path}{,.*}.test.ts`, `tests/regressions/${path}.test.ts`];
  const primitives = path.startsWith('internal/') ? TESTED_THROUGH[path.slice(9)] : undefined;
  return [
    ...own,
    ...(primitives ?? []).map((name) => `tests/${name}{,.events,.options,.tickets}.test.ts`),
  ];
}
