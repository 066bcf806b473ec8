import { stripTypeScriptTypes } from 'node:module';

import { describe, expect, it } from 'vitest';

import { type Import, parseSource, readSources, type SourceFile } from './support/sources.ts';

/**
 * 0: what everything stands on. 1: the primitives, the gate and what is beside them at the top of
 * src. 2: the folders that connect them to something, such as `http/`. 3: the way in.
 */
function layerOf(path: string): 0 | 1 | 2 | 3 {
  if (/^internal\/|^(errors|clock)\.ts$/.test(path)) return 0;
  if (/^(index|testing)\.ts$/.test(path)) return 3;
  return path.includes('/') ? 2 : 1;
}

function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/') + 1);
}

/** Whether a file may have this import from another file of src. */
function allowsFile(importer: string, { from, typeOnly }: Import): boolean {
  if (layerOf(from) === 3) return false;
  if (layerOf(from) === 0) return true;
  switch (layerOf(importer)) {
    case 0:
    case 1: {
      return from === 'gate.ts' && typeOnly;
    }
    case 2: {
      if (from === 'http/read-events.ts') return false;
      return layerOf(from) === 1 ? typeOnly : folderOf(from) === folderOf(importer);
    }
    default: {
      return layerOf(from) === 1;
    }
  }
}

/** Where each thing from outside may be imported. */
function allowsPackage(importer: string, { from, typeOnly }: Import): boolean {
  switch (from) {
    case 'eventemitter3': {
      return importer === 'internal/emitter.ts';
    }
    case 'nanoid': {
      // Where ids are made: in a primitive.
      return layerOf(importer) === 1 && importer !== 'gate.ts';
    }
    case 'eventsource-parser': {
      // An optional peer: nothing that works without it may lead to it.
      return importer === 'http/read-events.ts';
    }
    case 'node:async_hooks': {
      return importer === 'internal/context.ts';
    }
    default: {
      // What a server hands to a handler has a type, and no other name.
      return /^node:http2?$/.test(from) && typeOnly && importer.startsWith('http/');
    }
  }
}

const FORBIDDEN: readonly { readonly what: RegExp; readonly but?: readonly string[] }[] = [
  { what: /\bDate\.now\b|\bnew Date\b/ },
  { what: /\bMath\.random\b/ },
  { what: /\bAbortSignal\.(?:any|timeout)\b/ },
  { what: /\bPromise\.race\b/ },
  // Nothing hangs on when, or whether, garbage is collected.
  { what: /\bFinalizationRegistry\b|\bWeakRef\b/ },
  { what: /\beval\(|\bnew Function\b|\bimport\(|\brequire\(/ },
  { what: /\bprocess\b|\bconsole\b|\bglobalThis\b/ },
  // Everything else asks its clock.
  {
    what: /(?<![.\w#])(?:setTimeout|setInterval)\(|\bperformance\b/,
    but: ['clock.ts', 'testing.ts', 'internal/tick.ts'],
  },
];

/**
 * What still is one readable file, in lines of JavaScript: types and comments are for reading. A
 * primitive has its whole public face in its file.
 */
const MAX_LINES = 450;
const MAX_LINES_OF_A_PRIMITIVE = 700;

function tooLong(path: string, code: string): string | undefined {
  const lines = stripTypeScriptTypes(code)
    .split('\n')
    .filter((line) => /[^\s;]/.test(line)).length;
  const most = layerOf(path) === 1 ? MAX_LINES_OF_A_PRIMITIVE : MAX_LINES;
  return lines > most ? `${path} has ${lines} lines, more than ${most}` : undefined;
}

function violations(files: readonly SourceFile[]): string[] {
  const found: string[] = [];
  for (const { path, code, imports } of files) {
    for (const each of imports) {
      const allowed = each.relative ? allowsFile(path, each) : allowsPackage(path, each);
      if (!allowed) found.push(`${path} imports ${each.typeOnly ? 'type ' : ''}${each.from}`);
      if (each.relative && !each.from.endsWith('.ts')) found.push(`${path}: no extension`);
    }
    for (const { what, but = [] } of FORBIDDEN) {
      const match = what.exec(code);
      if (match !== null && !but.includes(path)) found.push(`${path} uses ${match[0]}`);
    }
    const long = tooLong(path, code);
    if (long !== undefined) found.push(long);
    if (
      path === 'index.ts' &&
      code.replace(/^export\s[^'"`;]*?from '[^']+';$/gm, '').trim() !== ''
    ) {
      found.push('index.ts does more than re-export');
    }
  }
  return found;
}

describe('the sources', () => {
  const files = readSources();

  it('are found', () => {
    expect(files.map(({ path }) => path)).toEqual(
      expect.arrayContaining(['errors.ts', 'gate.ts', 'index.ts', 'internal/emitter.ts']),
    );
    expect(files.find(({ path }) => path === 'gate.ts')?.imports).toContainEqual({
      from: 'internal/assert.ts',
      typeOnly: false,
      relative: true,
    });
  });

  it('keep to the layers and to what may be used where (H062, H076, H121, H125, H342, H359)', () => {
    expect(violations(files)).toEqual([]);
  });
});

describe('the check of the sources', () => {
  const check = (path: string, text: string): string[] => violations([parseSource(path, text)]);

  it.each<[string, string]>([
    ['internal/time.ts', "import { Semaphore } from '../semaphore.ts';"],
    ['internal/time.ts', "import { compose } from '../gate.ts';"],
    ['internal/time.ts', "import type { StreamEvent } from '../token-streamer.ts';"],
    ['errors.ts', "import type { Semaphore } from './semaphore.ts';"],
    ['clock.ts', "export * from './http/index.ts';"],
    ['admission-queue.ts', "import { Semaphore } from './semaphore.ts';"],
    ['admission-queue.ts', "import type { Semaphore } from './semaphore.ts';"],
    ['admission-queue.ts', "import { compose, type Gate } from './gate.ts';"],
    ['admission-queue.ts', "import { toHttpError } from './http/index.ts';"],
    ['a-new-primitive.ts', "export { Semaphore } from './semaphore.ts';"],
    ['a-new-primitive.ts', "import './semaphore.ts';"],
    ['gate.ts', "import type { Semaphore } from './semaphore.ts';"],
    ['http/index.ts', "import { TokenStreamer, type TokenStream } from '../token-streamer.ts';"],
    ['http/index.ts', "import type { Other } from '../redis/index.ts';"],
    ['redis/store.ts', "import { events } from '../http/events.ts';"],
    ['semaphore.ts', "import { ClosedError } from './index.ts';"],
    ['http/index.ts', "import type { Gate } from '../index.ts';"],
    ['semaphore.ts', "import { settle } from './testing.ts';"],
    ['testing.ts', "import * as everything from './index.ts';"],
    ['semaphore.ts', "import { EventEmitter } from 'eventemitter3';"],
    ['gate.ts', "import { nanoid } from 'nanoid';"],
    ['session-manager.ts', "import { AsyncLocalStorage } from 'node:async_hooks';"],
    ['internal/time.ts', "import { EventEmitter } from 'node:events';"],
    ['http/index.ts', "import { ServerResponse } from 'node:http';"],
    ['token-streamer.ts', "import type { ServerResponse } from 'node:http';"],
    ['semaphore.ts', "import {\n  a,\n} from 'lodash';"],
    ['semaphore.ts', "import { quote } from './internal/quote';"],
    ['semaphore.ts', 'const now = Date.now();'],
    ['semaphore.ts', 'const now = Date.now;'],
    ['semaphore.ts', 'const id = Math.random();'],
    ['semaphore.ts', 'const both = AbortSignal.any([a, b]);'],
    ['semaphore.ts', 'await Promise.race([a, b]);'],
    ['semaphore.ts', 'const lost = new FinalizationRegistry(tell);'],
    ['semaphore.ts', 'const { x } = await import(name);'],
    ['semaphore.ts', "process.on('SIGTERM', close);"],
    ['semaphore.ts', "console.log('here');"],
    ['semaphore.ts', 'setTimeout(() => this.#expire(), 10);'],
    ['semaphore.ts', 'const now = performance.now();'],
    ['index.ts', "export * from './errors.ts';\nexport const version = 1;"],
    ['index.ts', "import './errors.ts';"],
  ])('refuses, in %s: %s', (path, text) => {
    expect(check(path, text)).toHaveLength(1);
  });

  it('counts lines of JavaScript, not of types and comments', () => {
    const lines = (count: number): string =>
      'x();\n// why\n\ninterface A {\n  b: 1;\n}\n'.repeat(count);
    expect(check('internal/time.ts', lines(450))).toEqual([]);
    expect(check('internal/time.ts', lines(451))).toEqual([
      'internal/time.ts has 451 lines, more than 450',
    ]);
    expect(check('semaphore.ts', lines(700))).toEqual([]);
    expect(check('semaphore.ts', lines(701))).toHaveLength(1);
  });

  it.each<[string, string]>([
    ['internal/session.ts', "import type { TaskContext } from '../gate.ts';"],
    ['internal/time.ts', "import { systemClock, type Clock } from '../clock.ts';"],
    ['internal/context.ts', "import { AsyncLocalStorage } from 'node:async_hooks';"],
    ['internal/emitter.ts', "import { EventEmitter } from 'eventemitter3';"],
    ['a-new-primitive.ts', "import { type Gate, type TaskContext } from './gate.ts';"],
    ['a-new-primitive.ts', "import { nanoid } from 'nanoid';"],
    ['redis/store.ts', "import { script } from './scripts.ts';\nimport type { A } from '../a.ts';"],
    ['http/pipe.ts', "import type { ServerResponse } from 'node:http';"],
    ['http/read-events.ts', "import { createParser } from 'eventsource-parser';"],
    [
      'index.ts',
      "export {\n  compose,\n  type Gate,\n} from './gate.ts';\nexport * from './a.ts';",
    ],
    ['semaphore.ts', '// Not Date.now(), as elsewhere.\n/** import { a } from "lodash" */'],
    ['semaphore.ts', 'this.#time.clock.setTimeout(() => this.#fire(), 5);'],
  ])('accepts, in %s: %s', (path, text) => {
    expect(check(path, text)).toEqual([]);
  });
});
