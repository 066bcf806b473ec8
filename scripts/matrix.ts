// npm run matrix [-- --smoke]
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import chromium from '@sparticuz/chromium';
import { build } from 'esbuild';
import { chromium as playwright } from 'playwright-core';

import manifest from '../package.json' with { type: 'json' };
import { pipeToResponse, toHttpError } from '../src/http/index.ts';
import { QueueFullError, TokenStreamer } from '../src/index.ts';

/**
 * The library on every runtime that it is for. Each of them installs what is packed and plays a real use
 * of every part (scripts/matrix/). The versions of Node that `npm test` does not run on have the tests
 * of the library too: not those of the examples, the simulation, the repository, the docs and the
 * package, nor those in a browser, which Chromium here stands for. `--smoke` leaves them out.
 */
const NODES = ['22', '24', '26'];
const TESTED = ['22', '26'];
const OTHERS = { 'bun@1': ['bun'], 'deno@2': ['deno', 'run', '--allow-all'] };
const NOT_OF_THE_LIBRARY = [
  'tests/{examples,bench,simulation,zoo,pages,sweeps}/**',
  'tests/{architecture,docs,errors,guides,hazards,package,peers}.test.ts',
  'tests/http/{event-source,read-events}.test.ts',
];

const root = fileURLToPath(new URL('..', import.meta.url));

/** What it wrote to its standard output; rejects with all that it wrote where it fails. */
async function run(cwd: string, command: string, ...args: string[]): Promise<string> {
  const options = { cwd, maxBuffer: 2 ** 26, timeout: 1_800_000 };
  const { stdout } = await promisify(execFile)(command, args, options).catch(
    ({ message, stdout: out, stderr }: Error & { stdout: string; stderr: string }) => {
      throw new Error(`${message}\n${out}\n${stderr}`);
    },
  );
  return stdout;
}

/** A program of an npm package, which need not be installed. */
function runOf(cwd: string, spec: string, ...args: string[]): Promise<string> {
  return run(cwd, 'npx', '--yes', '--prefer-offline', '--package', spec, '--', ...args);
}

/** An empty project that has installed what is packed, with the programs to play. */
async function consumerIn(folder: string): Promise<string> {
  const consumer = join(folder, 'consumer');
  const packed = await run(root, 'npm', 'pack', '--json', '--pack-destination', folder);
  const [{ filename }] = JSON.parse(packed) as [{ filename: string }];
  cpSync(join(root, 'scripts/matrix'), consumer, { recursive: true });
  writeFileSync(join(consumer, 'package.json'), '{ "private": true, "type": "module" }');
  const parser = `eventsource-parser@${manifest.devDependencies['eventsource-parser']}`;
  const quiet = ['--prefer-offline', '--no-audit', '--no-fund'];
  await run(consumer, 'npm', 'install', ...quiet, join(folder, filename), parser);
  return consumer;
}

/** What the scenario `readEvents` reads from, and a page to read it on. */
async function serve(script: string): Promise<Server> {
  const streamer = new TokenStreamer();
  const server = createServer((request, response) => {
    switch (request.url) {
      case '/answer': {
        void pipeToResponse(streamer.stream(['Hello', ', ', 'wörld']), response);
        break;
      }
      case '/endless': {
        const never = streamer.stream(() => new ReadableStream<string>());
        void pipeToResponse(never, response);
        break;
      }
      case '/full': {
        const full = new QueueFullError({ waiting: 1, maxWaiting: 1, retryAfterMs: 1000 });
        const { status, headers, body } = toHttpError(full)!;
        response.writeHead(status, headers).end(JSON.stringify(body));
        break;
      }
      default: {
        response.setHeader('content-type', 'text/html; charset=utf-8');
        response.end(
          `<!doctype html><title>matrix</title><script type="module">${script}</script>`,
        );
      }
    }
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return server;
}

/** The scenarios as a page runs them, with the outcome where `inChromium` looks for it. */
async function pageScript(consumer: string): Promise<string> {
  const contents = `import { browserSafe, play } from './browser-safe.ts';
    globalThis.played = play(browserSafe(location.origin));`;
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: consumer, loader: 'ts' },
    bundle: true,
    format: 'esm',
    platform: 'browser',
    write: false,
  });
  return outputFiles[0]!.text;
}

async function inChromium(url: string): Promise<string> {
  const browser = await playwright.launch({
    executablePath: await chromium.executablePath(),
    args: chromium.args,
  });
  try {
    const page = await browser.newPage();
    await page.goto(url);
    const names = await page.evaluate(() => (globalThis as unknown as { played: string[] }).played);
    return `${names.length} scenarios (Chromium ${browser.version()})`;
  } finally {
    await browser.close();
  }
}

interface TestReport {
  readonly numPassedTests: number;
  readonly numTotalTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[];
  }[];
}

/** The tests on one version of Node: what the test runner counts. */
async function suite(spec: string, folder: string): Promise<string> {
  const file = join(folder, `${spec}.json`);
  const excluded = NOT_OF_THE_LIBRARY.flatMap((glob) => ['--exclude', glob]);
  const reporter = ['--reporter=json', `--outputFile=${file}`];
  // Promises take several times longer in Node 22, where an AsyncLocalStorage is in use.
  const patience = '--testTimeout=600000';
  const vitest = ['node', 'node_modules/vitest/vitest.mjs', 'run', patience];
  const failure: unknown = await runOf(root, spec, ...vitest, ...reporter, ...excluded).then(
    () => undefined,
    String,
  );
  const report = JSON.parse(readFileSync(file, 'utf8')) as TestReport;
  const counts = `${report.numPassedTests} of ${report.numTotalTests} tests`;
  if (failure === undefined) return counts;
  const failed = report.testResults
    .filter(({ status }) => status !== 'passed')
    .flatMap(({ name, assertionResults }) => [
      name,
      ...assertionResults.filter(({ status }) => status === 'failed').map((it) => it.fullName),
    ]);
  throw new Error([counts, ...failed].join('\n'));
}

const folder = mkdtempSync(join(tmpdir(), 'sluice-matrix-'));
let server: Server | undefined;
try {
  const consumer = await consumerIn(folder);
  server = await serve(await pageScript(consumer));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const smoke = async (spec: string, command: readonly string[]): Promise<string> => {
    const version = await runOf(consumer, spec, command[0]!, '--version');
    const played = await runOf(consumer, spec, ...command, 'core.ts', url);
    const names = JSON.parse(played) as string[];
    return `${names.length} scenarios (${version.split('\n')[0]})`;
  };
  const checks: [string, () => Promise<string>][] = [
    ...NODES.map((version): [string, () => Promise<string>] => {
      const spec = `node@${version}`;
      return [spec, () => smoke(spec, ['node'])];
    }),
    ...Object.entries(OTHERS).map(([spec, command]): [string, () => Promise<string>] => [
      spec,
      () => smoke(spec, command),
    ]),
    ['chromium', () => inChromium(url)],
    ...(process.argv.includes('--smoke') ? [] : TESTED).map(
      (version): [string, () => Promise<string>] => {
        const spec = `node@${version}`;
        return [spec, () => suite(spec, folder)];
      },
    ),
  ];
  for (const [name, check] of checks) {
    try {
      console.log(`${name.padEnd(10)} ${await check()}`);
    } catch (error) {
      console.log(`${name.padEnd(10)} FAILED`);
      console.error(error);
      process.exitCode = 1;
    }
  }
} finally {
  server?.closeAllConnections();
  server?.close();
  rmSync(folder, { recursive: true, force: true });
}
