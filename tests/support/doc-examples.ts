import { readFile } from 'node:fs/promises';
import { stripTypeScriptTypes } from 'node:module';
import { compileFunction } from 'node:vm';

import * as sluice from 'sluice';
import * as http from 'sluice/http';
import * as readEvents from 'sluice/read-events';
import * as testing from 'sluice/testing';
import { expect } from 'vitest';

const OURS: Readonly<Record<string, object>> = {
  sluice,
  'sluice/http': http,
  'sluice/read-events': readEvents,
  'sluice/testing': testing,
};

interface Example {
  readonly code: string;
  /** Where it begins in the file. */
  readonly line: number;
}

/** The blocks of a Markdown text that are fenced as `ts`, and as nothing more. */
function examplesOf(markdown: string): Example[] {
  return [...markdown.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => ({
    code: match[1]!,
    line: markdown.slice(0, match.index).split('\n').length + 1,
  }));
}

/** `import { a, type B, c as d } from 'x'` as something that a function may have in it. */
function withoutImports(code: string): string {
  return code.replace(/^import \{([^}]*)\} from '([^']+)';$/gm, (_all, names: string, from) => {
    const values = names.split(',').filter((name) => name.trim() !== '' && !/^\s*type /.test(name));
    return `const {${values.join(',').replace(/ as /g, ': ')}} = await loadModule('${from as string}');`;
  });
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
 * Runs the examples of a Markdown file, one after the other, with everything that the library exports
 * and whatever `scope` has under their names. Each one sees what those before it have declared and may
 * declare it again. What follows `// =>` on a line is what must come out there. Blocks that are fenced
 * as anything more than `ts`, such as `ts no-run`, are left out. Resolves to what they have declared.
 *
 * @example
 * ```ts
 * const { server } = await runExamples('docs/session-manager.md', { callModel: async () => 'Hi.' });
 * ```
 */
export async function runExamples(
  path: string,
  scope: Readonly<Record<string, unknown>> = {},
): Promise<Record<string, unknown>> {
  const markdown = await readFile(new URL(`../../${path}`, import.meta.url), 'utf8');
  const examples = examplesOf(markdown);
  if (examples.length === 0) throw new Error(`There is no example in ${path}.`);
  const names = {
    ...sluice,
    ...http,
    ...testing,
    expect,
    loadModule: async (from: string): Promise<object> =>
      OURS[from] ?? ((await import(/* @vite-ignore */ from)) as object),
    ...scope,
  };
  const declared = new Set<string>();
  const body = examples.map(({ code, line }) => {
    const plain = withExpectations(withoutImports(stripTypeScriptTypes(code)));
    for (const [, name] of plain.matchAll(/^(?:const|let|class|(?:async )?function) (\w+)/gm)) {
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
      throw new Error('The example at ${path}:' + at + ' failed: ' + error, { cause: error });
    }
  })();`;
  const run = compileFunction(source, Object.keys(names)) as (
    ...values: unknown[]
  ) => Promise<Record<string, unknown>>;
  return run(...Object.values(names));
}
