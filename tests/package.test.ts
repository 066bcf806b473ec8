import { execFile } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { build } from 'esbuild';
import { publint } from 'publint';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import manifest from '../package.json' with { type: 'json' };
import { apiReport, REPORT } from '../scripts/api.ts';
import { sizes } from '../scripts/size.ts';

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('..', import.meta.url));
const modules = join(root, 'node_modules');

/** `sluice`, `sluice/semaphore`, … without the manifest itself. */
const specifiers = Object.keys(manifest.exports)
  .filter((subpath) => subpath !== './package.json')
  .map((subpath) => `sluice${subpath.slice(1)}`);

/** What packing needs: all of it, so that nothing else can get into the package by way of the build. */
const PACKED_FROM = [
  'src',
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'tsup.config.ts',
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
];

/** The subpaths that are not of one primitive. */
const others = ['sluice', 'sluice/http', 'sluice/read-events', 'sluice/testing'];

/** The subpaths of one primitive each, by the name of its class. */
const primitives = new Map(
  specifiers
    .filter((specifier) => !others.includes(specifier))
    .map((specifier) => [className(specifier), specifier]),
);

function className(specifier: string): string {
  const words = specifier.slice('sluice/'.length).split('-');
  return words.map((word) => `${word[0]!.toUpperCase()}${word.slice(1)}`).join('');
}

/** Runs a program and resolves with what it wrote, rejects with all of that when it fails. */
async function run(cwd: string, command: string, ...args: string[]): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(command, args, { cwd, timeout: 110_000 });
    return stdout;
  } catch (error) {
    const { message, stdout, stderr } = error as Error & { stdout: string; stderr: string };
    throw new Error(`${message}\n${stdout}\n${stderr}`, { cause: error });
  }
}

interface Packed {
  readonly filename: string;
  readonly files: readonly { readonly path: string }[];
}

async function pack(cwd: string, ...args: string[]): Promise<Packed> {
  const [report] = JSON.parse(await run(cwd, 'npm', 'pack', '--json', ...args)) as [Packed];
  return report;
}

describe('the package', () => {
  let work: string;
  /** An empty project that has installed the tarball. */
  let consumer: string;
  let packed: string[];
  /** What was packed, and from where. */
  let copy: string;
  let tarball: string;
  /** What could not be imported before the optional peer was there, with the errors. */
  let unusable: string;

  const inConsumer = (name: string, source: string): void => {
    writeFileSync(join(consumer, name), source);
  };

  beforeAll(async () => {
    work = mkdtempSync(join(tmpdir(), 'sluice-package-'));
    consumer = join(work, 'consumer');
    // In a copy, since packing builds: whatever uses `dist` meanwhile is not disturbed.
    copy = join(work, 'sluice');
    for (const name of PACKED_FROM) cpSync(join(root, name), join(copy, name), { recursive: true });
    symlinkSync(modules, join(copy, 'node_modules'));
    const { filename, files } = await pack(copy, '--pack-destination', work);
    packed = files.map(({ path }) => path);
    tarball = join(work, filename);

    cpSync(join(root, 'LICENSE'), join(consumer, 'LICENSE'));
    inConsumer('package.json', '{ "private": true, "type": "module" }');
    const quiet = ['--prefer-offline', '--no-audit', '--no-fund'];
    await run(consumer, 'npm', 'install', ...quiet, tarball);
    inConsumer(
      'without-peer.mjs',
      `for (const specifier of ${JSON.stringify(specifiers)}) {
        await import(specifier).catch(({ message }) => console.log(specifier, message));
      }`,
    );
    unusable = await run(consumer, process.execPath, 'without-peer.mjs');
    const peer = 'eventsource-parser';
    symlinkSync(join(modules, peer), join(consumer, 'node_modules', peer));
  }, 120_000);

  afterAll(() => {
    rmSync(work, { recursive: true, force: true });
  });

  it('holds what is built and four files about it, and nothing else (H352, H362, H363)', async () => {
    const about = ['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json'];
    const built = packed.filter((path) => /^dist\/[\w/-]+\.(?:js|d\.ts)$/.test(path));
    expect(packed.filter((path) => !built.includes(path)).toSorted()).toEqual(about);
    // Nor would anything else of the whole repository.
    const whole = await pack(root, '--dry-run', '--ignore-scripts');
    const rest = whole.files.map(({ path }) => path).filter((path) => !path.startsWith('dist/'));
    expect(rest.toSorted()).toEqual(about);
    const promised = Object.values(manifest.exports).map((target) => target.slice(2));
    expect(packed).toEqual(expect.arrayContaining(promised));
    const declared = promised.map((path) => path.replace(/\.js$/, '.d.ts'));
    expect(packed).toEqual(expect.arrayContaining(declared));
  });

  it('brings two dependencies and runs nothing when it is installed (H350, H351)', () => {
    const lock = JSON.parse(
      readFileSync(join(consumer, 'node_modules/.package-lock.json'), 'utf8'),
    ) as { packages: Record<string, { hasInstallScript?: boolean }> };
    expect(Object.keys(lock.packages).toSorted()).toEqual([
      'node_modules/eventemitter3',
      'node_modules/nanoid',
      'node_modules/sluice',
    ]);
    expect(Object.values(lock.packages).some((each) => each.hasInstallScript)).toBe(false);
    expect(manifest).toMatchObject({ type: 'module', sideEffects: false });
  });

  it('is the same byte by byte when it is packed again, whenever that is (H353)', async () => {
    const later = new Date(Date.now() + 86_400_000);
    for (const path of packed) utimesSync(join(copy, path), later, later);
    const again = join(work, 'again');
    mkdirSync(again);
    const { filename } = await pack(copy, '--ignore-scripts', '--pack-destination', again);
    expect(readFileSync(join(again, filename)).equals(readFileSync(tarball))).toBe(true);
  }, 120_000);

  it('resolves with its types wherever it may be imported: publint and attw (H357)', async () => {
    const bytes = readFileSync(tarball);
    const { messages } = await publint({
      pack: { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) },
      strict: true,
    });
    expect(messages).toEqual([]);
    // Fails, and with it the test, where it finds anything.
    const attw = join(modules, '.bin/attw');
    const told = await run(work, attw, tarball, '--profile', 'esm-only', '--format', 'json');
    expect(JSON.parse(told)).not.toHaveProperty('error');
  }, 120_000);

  it('needs its optional peer for one subpath only', () => {
    expect(unusable).toMatch(/^sluice\/read-events .*'eventsource-parser'.*\n$/);
  });

  it('is imported and required by every subpath, and is the same thing each way (H143)', async () => {
    inConsumer(
      'every.mjs',
      `import { createRequire } from 'node:module';
      const require = createRequire(import.meta.url);
      const seen = {};
      for (const specifier of ${JSON.stringify(specifiers)}) {
        const imported = await import(specifier);
        if (require(specifier) !== imported) throw new Error(specifier);
        seen[specifier] = Object.keys(imported);
      }
      if (require('sluice/package.json').name !== 'sluice') throw new Error('package.json');
      const everything = await import('sluice');
      for (const [name, specifier] of ${JSON.stringify([...primitives])}) {
        const alone = await import(specifier);
        if (alone[name] !== everything[name]) throw new Error(name + ' has two identities');
      }
      console.log(JSON.stringify(seen));`,
    );
    const seen = JSON.parse(await run(consumer, process.execPath, 'every.mjs')) as object;
    expect(Object.keys(seen)).toEqual(specifiers);
    expect(seen).toMatchObject({
      sluice: expect.arrayContaining(['compose', 'wrap', 'systemClock', ...primitives.keys()]),
      'sluice/read-events': ['ReadError', 'readEvents'],
      'sluice/testing': ['ManualClock', 'settle'],
    });
    for (const [name, specifier] of primitives) {
      expect(seen).toHaveProperty([specifier], expect.arrayContaining([name]));
    }
  });

  it('cannot be reached into', async () => {
    inConsumer('inside.mjs', "import 'sluice/dist/index.js';");
    await expect(run(consumer, process.execPath, 'inside.mjs')).rejects.toThrow(
      'ERR_PACKAGE_PATH_NOT_EXPORTED',
    );
  });

  it('does nothing when it is imported, and keeps no process alive (H131, H132)', async () => {
    const imports = specifiers.map((specifier) => `await import('${specifier}');`).join('\n');
    inConsumer(
      'idle.mjs',
      `const look = () => JSON.stringify({
        globals: Reflect.ownKeys(globalThis).map(String),
        prototypes: [Object, Array, Promise, Error, EventTarget, AbortSignal].map((each) =>
          Reflect.ownKeys(each.prototype).map(String),
        ),
        listeners: process.eventNames().map(String),
        resources: process.getActiveResourcesInfo(),
      });
      const before = look();
      ${imports}
      if (look() !== before) throw new Error(before + ' became ' + look());`,
    );
    const strict = ['--disallow-code-generation-from-strings', '--unhandled-rejections=strict'];
    expect(await run(consumer, process.execPath, ...strict, 'idle.mjs')).toBe('');
  });

  describe('when it is bundled', () => {
    const bundle = async (
      source: string,
      platform: 'node' | 'browser' = 'node',
    ): Promise<string> => {
      const { outputFiles } = await build({
        stdin: { contents: source, resolveDir: consumer },
        bundle: true,
        format: 'esm',
        platform,
        write: false,
        logLevel: 'silent',
      });
      return outputFiles[0]!.text;
    };

    it.each([...primitives])(
      'brings with %s nothing of the other primitives',
      async (name, alone) => {
        for (const from of [alone, 'sluice']) {
          const code = await bundle(`export { ${name} } from '${from}';`);
          const inside = [...primitives.keys()].filter((each) =>
            new RegExp(String.raw`\b${each} = class\b|\bclass ${each}\b`).test(code),
          );
          expect(inside, from).toEqual([name]);
        }
      },
    );

    it('brings to a browser a reader of events that needs nothing of Node', async () => {
      const code = await bundle("export { readEvents } from 'sluice/read-events';", 'browser');
      expect(code).toContain('event-stream');
      expect(code).not.toMatch(/\bnode:|\bprocess\b|\bBuffer\b/);
    });

    it('adds no more than its budget by any way in', async () => {
      const all = await sizes(consumer);
      expect(all.map(({ specifier }) => specifier)).toEqual(specifiers);
      const over = all.filter(({ bytes, budget }) => bytes > budget);
      expect(over.map(({ specifier, bytes }) => [specifier, bytes])).toEqual([]);
    });

    it('brings nothing for an import that nobody uses', async () => {
      expect(
        await bundle("import { Semaphore } from 'sluice'; export const one = 1;"),
      ).not.toContain('class');
    });
  });

  describe('for those who write TypeScript', () => {
    it('promises what the report of its API says', () => {
      const promised = apiReport(join(consumer, 'node_modules/sluice/dist'));
      expect(promised, 'npm run api -- --write').toBe(readFileSync(REPORT, 'utf8'));
    });

    const compilers = {
      7: join(modules, 'typescript/bin/tsc'),
      6: require.resolve('@typescript/typescript6/bin/tsc6'),
      5.9: require.resolve('typescript5/bin/tsc'),
    };

    it.each([
      [7, 'nodenext'],
      [7, 'bundler'],
      [6, 'nodenext'],
      [5.9, 'nodenext'],
    ] as const)(
      'has types that hold with TypeScript %s and %s (H358)',
      async (version, resolution) => {
        const imports = specifiers.map((from, i) => `import * as m${i} from '${from}';`).join('\n');
        inConsumer(
          'consumer.ts',
          `${imports}
        import { compose, fromCallback, type Gate, RateLimiter, type TaskContext, wrap } from 'sluice';
        import { type Permit, Semaphore } from 'sluice/semaphore';
        import { ManualClock } from 'sluice/testing';

        export const modules: object[] = [${specifiers.map((_, i) => `m${i}`).join(', ')}];
        export const semaphore = new Semaphore({ capacity: 2, clock: new ManualClock() });
        export const gate: Gate = semaphore;
        export const held: Promise<number> = compose(semaphore).run(({ permit, signal }) => {
          const typed: [Permit, TaskContext['signal']] = [permit, signal];
          return typed.length;
        });
        semaphore.on('acquired', ({ waitedMs }) => waitedMs.toFixed());
        // Declarations of what is inferred name nothing that is not exported.
        export const limiter = new RateLimiter({ limits: { requests: { limit: 1 } } });
        export const length = wrap(compose(semaphore, limiter), (text: string) => text.length);
        export const source = fromCallback<string>(({ push }) => push('token'));
        // @ts-expect-error -- resolved to any, none of these would be an error
        new Semaphore('two');
        // @ts-expect-error
        semaphore.on('acquired', ({ waitedms }) => waitedms);
        // @ts-expect-error
        semaphore.run(() => 1, { wait: 1 });
        // @ts-expect-error
        limiter.tryAcquire({ tokens: 1 });
        // @ts-expect-error
        new RateLimiter({ limit: 1 }).tryAcquire({ requests: 1 });
        // @ts-expect-error
        import type { Emitter } from 'sluice/internal/emitter';
        `,
        );
        inConsumer(
          'tsconfig.json',
          JSON.stringify({
            compilerOptions: {
              module: resolution === 'bundler' ? 'preserve' : resolution,
              moduleResolution: resolution,
              target: 'es2023',
              // A program for Node has no `dom`.
              lib: resolution === 'bundler' ? ['es2023', 'dom', 'dom.iterable'] : ['es2023'],
              types: ['node'],
              typeRoots: [join(modules, '@types')],
              strict: true,
              exactOptionalPropertyTypes: true,
              skipLibCheck: false,
              declaration: true,
              emitDeclarationOnly: true,
              outDir: 'declared',
            },
            files: ['consumer.ts'],
          }),
        );
        expect(await run(consumer, process.execPath, compilers[version], '-p', '.')).toBe('');
      },
      120_000,
    );
  });
});
