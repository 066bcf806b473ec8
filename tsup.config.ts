import { defineConfig } from 'tsup';

import manifest from './package.json' with { type: 'json' };

/** What `exports` promises is what is built: `./dist/x.js` from `src/x.ts`. */
const entry = Object.values(manifest.exports)
  .filter((target) => target.endsWith('.js'))
  .map((target) => target.replace('./dist/', 'src/').replace(/\.js$/, '.ts'));

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
  // Declarations come from `tsc -p tsconfig.build.json`.
  dts: false,
  clean: true,
  silent: true,
});
