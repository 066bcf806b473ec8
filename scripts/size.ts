// npm run size [-- --modules]
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import { build } from 'esbuild';

/**
 * What each way into the library adds to a bundle at most, in bytes: everything that it exports, with
 * its dependencies, minified and gzipped. What is built into the platform (`node:…`) is not in it.
 * They are what it was with a fiftieth more: whoever needs more says so here, in the commit that
 * needs it.
 */
const BUDGETS: Readonly<Record<string, number>> = {
  sluice: 33_700,
  'sluice/admission-queue': 10_950,
  'sluice/semaphore': 7_300,
  'sluice/rate-limiter': 11_700,
  'sluice/keyed': 1_970,
  'sluice/session-manager': 9_450,
  'sluice/shared-resource': 8_100,
  'sluice/token-streamer': 9_200,
  'sluice/http': 13_400,
  'sluice/read-events': 3_800,
  'sluice/testing': 650,
};

export interface Size {
  readonly specifier: string;
  /** Minified and gzipped. */
  readonly bytes: number;
  readonly budget: number;
  /** What the minified code is made of: bytes by file, most first. */
  readonly modules: readonly (readonly [file: string, bytes: number])[];
}

/** The sizes of all ways in, of the library as a file in `from` would import it. */
export function sizes(from: string): Promise<Size[]> {
  return Promise.all(
    Object.entries(BUDGETS).map(async ([specifier, budget]) => {
      const { outputFiles, metafile } = await build({
        stdin: { contents: `export * from '${specifier}';`, resolveDir: from },
        absWorkingDir: from,
        bundle: true,
        minify: true,
        format: 'esm',
        platform: 'neutral',
        mainFields: ['module', 'main'],
        target: 'es2023',
        external: ['node:*'],
        metafile: true,
        write: false,
        logLevel: 'silent',
      });
      const [output] = Object.values(metafile.outputs);
      const modules = Object.entries(output!.inputs)
        .map(([file, { bytesInOutput }]) => [file, bytesInOutput] as const)
        .filter(([, bytes]) => bytes > 0)
        .toSorted(([, a], [, b]) => b - a);
      const bytes = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
      return { specifier, bytes, budget, modules };
    }),
  );
}

function row(name: string, bytes: number, rest = ''): string {
  return `${name.padEnd(40)} ${bytes.toLocaleString('en').padStart(8)}${rest}`;
}

if (import.meta.main) {
  const all = await sizes(fileURLToPath(new URL('..', import.meta.url)));
  for (const { specifier, bytes, budget, modules } of all) {
    const over = bytes > budget ? '  over' : '';
    console.log(row(specifier, bytes, ` of ${budget.toLocaleString('en').padStart(8)}${over}`));
    if (process.argv.includes('--modules')) {
      for (const [file, minified] of modules) console.log(row(`    ${file}`, minified));
    }
  }
  process.exitCode = all.some(({ bytes, budget }) => bytes > budget) ? 1 : 0;
}
