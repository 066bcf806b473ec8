import { defineConfig } from 'tsup';

import manifest from './package.json' with { type: 'json' };

/** What `exports` promises is what is built: `./dist/x.js` from `src/x.ts`. */
const entry = Object.values(manifest.exports)
  .filter((target) => target.endsWith('.js'))
  .map((target) => target.replace('./dist/', 'src/').replace(/\.js$/, '.ts'));

/**
 * What several primitives are made of goes into one chunk: as a chunk for each set of them that share
 * something, importing one takes half as long again (bench/import.ts).
 */
const together = ['abort', 'assert', 'awaiters', 'deadlines', 'execution', 'line']
  .concat('options', 'priority-line', 'runs', 'tally')
  .map((name) => `src/internal/${name}.ts`);

export default defineConfig({
  entry,
  format: 'esm',
  target: 'es2023',
  platform: 'neutral',
  // `node:async_hooks` stays what it is: not every runtime knows it by the short name.
  removeNodeProtocol: false,
  external: [/^node:/],
  // One class, one identity across the subpaths: shared code goes into chunks.
  splitting: true,
  esbuildOptions: (options) => {
    // Every entry is built as if it needed them; esbuild would leave out what has no side effects.
    options.inject = together;
    options.ignoreAnnotations = true;
  },
  // Declarations come from `tsc -p tsconfig.build.json`.
  dts: false,
  clean: true,
  silent: true,
});
