// npm run bench
//
// Runs every subject, one after the other, and writes docs/benchmarks.md and its charts. It takes about
// ten minutes; `-- --keep FOLDER` keeps the figures of each subject there, and a run with the same folder measures
// those again that are not there.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import manifest from '../package.json' with { type: 'json' };
import type { Section } from './harness.ts';
import { chartsOf } from './report/charts.ts';
import { pageOf, type Subject } from './report/page.ts';

const { values: given } = parseArgs({
  options: {
    smoke: { type: 'boolean', default: false },
    keep: { type: 'string' },
    /** Where page and charts go. */
    docs: { type: 'string', default: fileURLToPath(new URL('../docs', import.meta.url)) },
  },
});

const folder =
  given.keep === undefined ? mkdtempSync(join(tmpdir(), 'sluice-bench-')) : resolve(given.keep);
mkdirSync(folder, { recursive: true });
const subjects: Subject[] = [];
try {
  for (const name of manifest.config.benches.split(' ')) {
    const out = join(folder, `${name}.json`);
    const script = fileURLToPath(new URL(`${name}.ts`, import.meta.url));
    const args = ['--expose-gc', script, `--out=${out}`, ...(given.smoke ? ['--smoke'] : [])];
    if (!existsSync(out)) execFileSync(process.execPath, args, { stdio: 'inherit' });
    subjects.push({ name, sections: JSON.parse(readFileSync(out, 'utf8')) as Section[] });
  }
} finally {
  if (given.keep === undefined) rmSync(folder, { recursive: true, force: true });
}

const processors = cpus();
const machine = {
  processor: `${processors.length} x ${processors[0]?.model.trim() ?? 'unknown'}`,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  node: process.version,
  platform: `${process.platform} ${process.arch}`,
};
const charts = chartsOf(subjects);
for (const { file, svg } of charts) writeFileSync(join(given.docs, 'images', file), svg);
writeFileSync(join(given.docs, 'benchmarks.md'), pageOf(subjects, machine, charts));
