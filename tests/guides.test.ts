import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { beforeAll, describe, expect, it } from 'vitest';

import manifest from '../package.json' with { type: 'json' };
import { blocksOf, findPages, moduleOf, readPage, runExamples } from './support/doc-examples.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = join(root, 'node_modules/typescript/bin/tsc');

const pages = findPages()
  .map((page) => ({ page, blocks: blocksOf(readPage(page)) }))
  .filter(({ blocks }) => blocks.length > 0);
const inTypeScript = pages.filter(({ blocks }) => blocks.some(({ info }) => /^ts\b/.test(info)));
const run = inTypeScript.filter(({ blocks }) => blocks.some(({ info }) => info === 'ts'));

/** `ts` is checked and run, `ts no-run` is checked, and the others are no code of ours. */
const FENCES = ['ts', 'ts no-run', 'sh', 'json', ''];

/** What is checked and not run, how often on each page: what is for a browser. */
const NOT_RUN: Readonly<Record<string, number>> = { 'docs/http.md': 1 };

/** Whatever the compiler has to say of the examples, with the page and the line of each. */
async function compile(): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-docs-'));
  try {
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
    const files = await Promise.all(
      inTypeScript.map(async ({ page }) => {
        const file = `${page}.mts`;
        mkdirSync(dirname(join(folder, file)), { recursive: true });
        writeFileSync(join(folder, file), await moduleOf(page));
        return file;
      }),
    );
    // An example shows things without using them, and is nobody's module.
    const compilerOptions = {
      noUnusedLocals: false,
      noUnusedParameters: false,
      noPropertyAccessFromIndexSignature: false,
      rewriteRelativeImportExtensions: false,
    };
    const config = { extends: join(root, 'tsconfig.json'), compilerOptions, include: [], files };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
    return await new Promise((resolve) => {
      const args = [tsc, '-p', folder, '--pretty', 'false'];
      execFile(process.execPath, args, { cwd: folder }, (error, out) => {
        const all = out.split('\n').filter((line) => line !== '');
        // What is wrong in a source is the business of `npm run typecheck`.
        const ours = all.filter((line) => !/^[^(]+\.ts\(/.test(line));
        if (error !== null && all.length === 0) ours.push(error.message);
        resolve(ours.map((line) => line.replace('.mts(', '(')));
      });
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe('the examples of the documentation', () => {
  let complaints: readonly string[];

  beforeAll(async () => {
    complaints = await compile();
  }, 60_000);

  it('are all there', () => {
    expect(run.map(({ page }) => page)).toEqual(
      expect.arrayContaining(['README.md', 'docs/README.md', 'src/semaphore.ts']),
    );
  });

  it('compile, with the strictness of the sources', () => {
    expect(complaints).toEqual([]);
  });

  it.each(run)('do what they say: $page', async ({ page }) => {
    await expect(runExamples(page)).resolves.toBeUndefined();
  });

  it.each(pages)('are fenced as what they are: $page', ({ page, blocks }) => {
    const fences = blocks.map(({ info }) => info);
    expect(fences.filter((info) => !FENCES.includes(info))).toEqual([]);
    expect(fences.filter((info) => info === 'ts no-run')).toHaveLength(NOT_RUN[page] ?? 0);
    const data = blocks.filter(({ info }) => info === 'json');
    expect(() => data.map(({ code }) => JSON.parse(code) as unknown)).not.toThrow();
  });
});

describe('the commands of the documentation', () => {
  it.each(pages)('are there: $page', ({ blocks }) => {
    for (const { code } of blocks.filter(({ info }) => info === 'sh')) {
      for (const [, script] of code.matchAll(/\bnpm run (?:--silent )?([\w:]+)/g)) {
        expect(Object.keys(manifest.scripts)).toContain(script);
      }
      for (const [file] of code.matchAll(/\b(?:examples|bench|scripts|tests)\/[\w/.-]+\.ts\b/g)) {
        expect(existsSync(join(root, file)), file).toBe(true);
      }
    }
  });
});
