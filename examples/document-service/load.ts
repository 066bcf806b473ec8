import { readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

import { startModelServer } from '../model-server/server.ts';
import { fail } from '../support/command.ts';
import { httpURLIn } from '../support/environment.ts';
import { chartOf } from './chart.ts';
import { startDocumentServer } from './server.ts';
import { readSettings } from './settings.ts';
import type { Summary } from './summary.ts';
import { sendTraffic, type TrafficReport } from './traffic.ts';

const USAGE = `Usage: node examples/document-service/load.ts [options]

  --requests N       how many documents (200)
  --concurrency N    how many at a time (60)
  --url URL          where the service is; otherwise one is started, with a model server behind it
  --out PATH         results go to PATH.json and PATH.svg (load-results)
  --help             this`;

const DECODE_MS_PER_TOKEN = 5;
const TEXT = new URL('../../README.md', import.meta.url);

try {
  await main(process.argv.slice(2), process.env);
} catch (error) {
  fail(error);
}

async function main(args: string[], env: NodeJS.ProcessEnv): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      requests: { type: 'string', default: '200' },
      concurrency: { type: 'string', default: '60' },
      url: { type: 'string' },
      out: { type: 'string', default: 'load-results' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const requests = countOf('--requests', values.requests, 1_000_000);
  const concurrency = countOf('--concurrency', values.concurrency, 10_000);
  const elsewhere = httpURLIn({ '--url': values.url }, '--url');
  const traffic = { requests, concurrency, text: await readFile(TEXT, 'utf8') };
  const report =
    elsewhere === undefined
      ? await withService(env, (url) => sendTraffic(url, traffic))
      : await sendTraffic(elsewhere.replace(/\/$/, ''), traffic);
  console.log(tableOf(report));
  await writeFile(`${values.out}.json`, `${JSON.stringify(report, undefined, 2)}\n`);
  await writeFile(`${values.out}.svg`, chartOf(report));
  console.log(`\nWritten to ${values.out}.json and ${values.out}.svg.`);
}

/** A service of its own for the time of `use`, with a model that has as many places as it calls. */
async function withService<T>(
  env: NodeJS.ProcessEnv,
  use: (url: string) => Promise<T>,
): Promise<T> {
  const { modelCalls: parallel } = readSettings(env, '');
  const options = { port: 0, parallel, decodeMsPerToken: DECODE_MS_PER_TOKEN };
  const model = await startModelServer(options);
  try {
    const settings = readSettings({ ...env, DOCUMENT_PORT: '0' }, `${model.url}/v1`);
    const service = await startDocumentServer(settings);
    try {
      return await use(service.url);
    } finally {
      await service.close();
    }
  } finally {
    await model.close();
  }
}

function tableOf(report: TrafficReport): string {
  const { requests, concurrency, elapsedMs, statuses, successRate } = report;
  const answers = Object.entries(statuses).map(
    ([status, count]) => `${count} x ${status === '0' ? 'no answer' : status}`,
  );
  return [
    `${requests} documents, ${concurrency} at a time, in ${seconds(elapsedMs)}`,
    `success      ${(successRate * 100).toFixed(1)} % (${answers.join(', ')})`,
    `throughput   ${report.throughputPerSecond.toFixed(1)} documents a second`,
    ...rowsOf('answered', report.latencyMs),
    ...rowsOf('refused', report.refusalMs),
    `in line      ${Math.max(...report.depths.map(({ waiting }) => waiting), 0)} at most`,
    `calls        ${Math.max(...report.depths.map(({ calls }) => calls), 0)} at most`,
  ].join('\n');
}

function rowsOf(name: string, summary: Summary | undefined): string[] {
  if (summary === undefined) return [];
  const figures = Object.entries(summary).map(
    ([key, value]) => `${key} ${seconds(value as number)}`,
  );
  return [`${name.padEnd(12)} ${figures.join(', ')}`];
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

function countOf(name: string, text: string, max: number): number {
  const count = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isSafeInteger(count) && count >= 1 && count <= max) return count;
  const got = JSON.stringify(text.slice(0, 64));
  throw new RangeError(`Expected ${name} to be an integer from 1 to ${max}, got ${got}.`);
}
