import { readdirSync, readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileFunction } from 'node:vm';

import * as sluice from 'sluice';
import * as http from 'sluice/http';
import * as readEvents from 'sluice/read-events';
import * as testing from 'sluice/testing';
import { expect } from 'vitest';

/** What an import by a name that is computed would load once more, as other classes. */
const OURS: Readonly<Record<string, object>> = {
  sluice,
  'sluice/http': http,
  'sluice/read-events': readEvents,
  'sluice/testing': testing,
};

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A fenced block of a Markdown file. */
export interface Block {
  readonly code: string;
  /** All that stands behind the fence: `ts`, `ts no-run`, `sh`, … */
  readonly info: string;
  /** The line of the file on which the code begins. */
  readonly line: number;
}

/**
 * What `tests/pages/<page>.ts` may export as `page`. Everything else that it exports is in the scope of
 * the examples of that page, which need not say what it is.
 */
export interface Page {
  /** Makes ready what the examples need. */
  readonly open?: () => unknown;
  /** Looks at what the examples have declared, after the last of them. */
  readonly check?: (declared: Readonly<Record<string, unknown>>) => unknown;
  /** Lets go of what they were given, however they ended. */
  readonly close?: () => unknown;
}

/** All that tells how to use the project, from its root: Markdown, and the comments of the sources. */
export function findPages(): string[] {
  const inside = ['docs', 'examples', 'bench', 'src'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map(
      (name) => `${folder}/${name}`,
    ),
  );
  return [...readdirSync(root), ...inside]
    .filter((name) => name.endsWith('.md') || (name.startsWith('src/') && name.endsWith('.ts')))
    .toSorted();
}

/** The text of a page. Of a source, what its comments say, on the lines on which they say it. */
export function readPage(page: string): string {
  const text = readFileSync(join(root, page), 'utf8');
  if (page.endsWith('.md')) return text;
  const lines = text.split('\n').map((line) => /^ *\* ?(?!\/)(.*)$/.exec(line)?.[1] ?? '');
  return lines.join('\n');
}

export function blocksOf(markdown: string): Block[] {
  return [...markdown.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(
    ({ 1: info, 2: code, index }) => ({
      code: code!,
      info: info!,
      line: markdown.slice(0, index).split('\n').length + 1,
    }),
  );
}

const IMPORT =
  /^import ((?:type )?)(?:(\w+)|\* as (\w+))?(?:, )?(?:\{([^}]*)\})? ?(?:from )?'([^']+)';$/gm;

/** The modules that a page imports from its own folder are where the page is. */
function pathOf(specifier: string, page: string): string {
  return specifier.startsWith('.') ? join(root, dirname(page), specifier) : specifier;
}

const scopes = readdirSync(join(root, 'tests/pages'), { recursive: true, encoding: 'utf8' }).map(
  (name) => join(root, 'tests/pages', name),
);

/** What `tests/pages` has for a page: its names are in the scope of all its examples. */
async function scopeOf(page: string): Promise<{ path: string; scope: Record<string, unknown> }> {
  const own = page.startsWith('src/') ? 'src.ts' : page.replace(/\.md$/, '.ts');
  const path = join(root, 'tests/pages', own);
  const module: unknown = scopes.includes(path) ? await import(/* @vite-ignore */ path) : {};
  return { path, scope: module as Record<string, unknown> };
}

/**
 * The examples of a page as one module for the compiler, in which each sees what those before it have
 * declared and may declare it again. Every line is where it is on the page.
 */
export async function moduleOf(page: string): Promise<string> {
  const markdown = readPage(page);
  const lines = markdown.split('\n').map(() => '');
  const imports = new Map<string, string>();
  let open = 0;
  for (const { code, info, line } of blocksOf(markdown)) {
    if (!/^ts( no-run)?$/.test(info)) continue;
    for (const [, type, whole, all, names = '', from] of code.matchAll(IMPORT)) {
      const clauses = names.split(',').map((name) => name.trim());
      const named = clauses.filter((name) => name !== '').map((name) => `{ ${name} }`);
      if (whole !== undefined) named.push(whole);
      if (all !== undefined) named.push(`* as ${all}`);
      for (const clause of named) {
        const [name] = /\w+(?= \}$|$)/.exec(clause)!;
        // A type of one example may be a value of the next.
        if (imports.get(name)?.includes('type ') !== false) {
          imports.set(name, `import ${type}${clause} from ${JSON.stringify(pathOf(from!, page))};`);
        }
      }
    }
    const own = code
      .replace(IMPORT, (statement) => statement.replaceAll(/[^\n]/g, ''))
      .replace(/^export (?!type \{|\{)/gm, '');
    own.split('\n').forEach((text, index) => {
      lines[line - 1 + index] = text;
    });
    lines[line - 2] = '{';
    open++;
  }
  const { path, scope } = await scopeOf(page);
  const given = Object.keys(scope).filter((name) => name !== 'page' && !imports.has(name));
  if (given.length > 0) {
    imports.set('', `import { ${given.join(', ')} } from ${JSON.stringify(path)};`);
  }
  lines[0] = [...imports.values(), 'export {};'].join(' ');
  return `${lines.join('\n')}${'}'.repeat(open)}\n`;
}

/** `import a, { b, type C, d as e } from 'x'` as something that a function may have in it. */
function withoutImports(code: string, page: string): string {
  return code.replace(
    IMPORT,
    (_all, _type, whole?: string, all?: string, names = '', from = '') => {
      const module = `await loadModule(${JSON.stringify(pathOf(from as string, page))})`;
      if (all !== undefined) return `const ${all} = ${module};`;
      const values = (names as string)
        .split(',')
        .filter((name) => name.trim() !== '' && !/^\s*type /.test(name))
        .map((name) => name.replace(' as ', ': '));
      if (whole !== undefined) values.unshift(`default: ${whole}`);
      return `const {${values.join(',')}} = ${module};`;
    },
  );
}

/** `x; // => y` and `const x = …; // => y` say what comes out: so that is what is expected. */
function withExpectations(code: string): string {
  return code
    .replace(
      /^( *)(const|let) (\w+) = (.+); \/\/ => (.+)$/gm,
      '$1$2 $3 = $4; $1expect($3).toEqual($5);',
    )
    .replace(/^( *)(?!.*expect\()(\S.*?);? \/\/ => (.+)$/gm, '$1expect($2).toEqual($3);');
}

/**
 * Runs the examples of a page, one after the other, with what `tests/pages` has for it. Each one sees
 * what those before it have declared and may declare it again. What follows `// =>` on a line is what
 * must come out there. Blocks that are fenced as anything more than `ts`, such as `ts no-run`, are left
 * out.
 */
export async function runExamples(page: string): Promise<void> {
  const examples = blocksOf(readPage(page)).filter(({ info }) => info === 'ts');
  const module = (await scopeOf(page)).scope;
  const { open, check, close } = (module['page'] ?? {}) as Page;
  const declared = new Set<string>();
  const body = examples.map(({ code, line }) => {
    const bare = code.replace(/^export (?!type \{|\{)/gm, '');
    const plain = withExpectations(withoutImports(stripTypeScriptTypes(bare), page));
    for (const [, name] of plain.matchAll(/^(?:const|let|class|(?:async )?function\*?) (\w+)/gm)) {
      declared.add(name!);
    }
    return `{ at = ${line};\n${plain}`;
  });
  const source = `return (async () => {
    let at = 0;
    try {
      ${body.join('\n')}
      return { ${[...declared].join(', ')} };
      ${'}'.repeat(body.length)}
    } catch (error) {
      throw new Error('The example at ${page}:' + at + ' failed: ' + error, { cause: error });
    }
  })();`;
  try {
    await open?.();
    const given = {
      ...module,
      expect,
      loadModule: async (from: string): Promise<object> =>
        OURS[from] ?? ((await import(/* @vite-ignore */ from)) as object),
    };
    const run = compileFunction(source, Object.keys(given)) as (
      ...values: unknown[]
    ) => Promise<Record<string, unknown>>;
    await check?.(await run(...Object.values(given)));
  } finally {
    await close?.();
  }
}
