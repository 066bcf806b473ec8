/**
 * Compares docs/hazards.md with the titles of the tests: `npm run hazards` tells what is amiss, and
 * `npm run hazards -- --write` writes the files of the tests into the table first.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import ts from '@typescript/typescript6';

const PAGE = 'docs/hazards.md';

const root = fileURLToPath(new URL('..', import.meta.url));
const NOT_APPLICABLE = 'not applicable:';

interface Row {
  readonly number: string;
  /** What the page says: the files of the tests, or why there is none. */
  readonly proof: string;
}

/** The files whose titles carry a number, by number. */
type Titles = ReadonlyMap<string, ReadonlySet<string>>;

/** `| H017 | what is promised | tests |` */
const ROW = /^\| (H\d{3}) \| (.*) \| (.*?) ?\|$/gm;

/** The rows of the page, in their order. */
function readRows(markdown: string): Row[] {
  return [...markdown.matchAll(ROW)].map(([, number, , proof]) => ({
    number: number!,
    proof: proof!,
  }));
}

/** `it` of `it('…')`, `it.each(table)('…')` and ``it.for`…`('…')``. */
function rootOf(callee: ts.Expression): string | undefined {
  if (ts.isIdentifier(callee)) return callee.text;
  if (ts.isPropertyAccessExpression(callee) || ts.isCallExpression(callee)) {
    return rootOf(callee.expression);
  }
  return ts.isTaggedTemplateExpression(callee) ? rootOf(callee.tag) : undefined;
}

/** The titles of all tests and groups of tests in a source. */
export function titlesOf(source: string): string[] {
  const titles: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && /^(?:describe|it|test)$/.test(rootOf(node.expression) ?? '')) {
      const [title] = node.arguments;
      if (
        title !== undefined &&
        (ts.isStringLiteralLike(title) || ts.isTemplateExpression(title))
      ) {
        titles.push(title.getText());
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile('test.ts', source, ts.ScriptTarget.Latest, true));
  return titles;
}

/** The numbers in the titles of all tests. */
export function readTitles(): Titles {
  const files = new Map<string, Set<string>>();
  const paths = readdirSync(join(root, 'tests'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.ts'))
    .map((path) => `tests/${path.replaceAll('\\', '/')}`);
  for (const path of paths.toSorted()) {
    const source = readFileSync(join(root, path), 'utf8');
    if (!/\bH\d{3}\b/.test(source)) continue;
    for (const title of titlesOf(source)) {
      for (const [number] of title.matchAll(/\bH\d{3}\b/g)) {
        files.set(number, (files.get(number) ?? new Set()).add(path));
      }
    }
  }
  return files;
}

export function readPage(): string {
  return readFileSync(join(root, PAGE), 'utf8');
}

function proofOf({ number, proof }: Row, titles: Titles): string {
  if (proof.startsWith(NOT_APPLICABLE)) return proof;
  return [...(titles.get(number) ?? [])].map((path) => `\`${path}\``).join(', ');
}

/** The page with the files of the tests as they are. */
export function refresh(markdown: string, titles: Titles): string {
  return markdown.replace(
    ROW,
    (_row, number: string, promise: string, proof: string) =>
      `| ${number} | ${promise} | ${proofOf({ number, proof }, titles)} |`,
  );
}

/** What is amiss between the page and the tests, a line each. */
export function problems(markdown: string, titles: Titles): string[] {
  const found: string[] = [];
  const known = new Set<string>();
  let last = '';
  for (const row of readRows(markdown)) {
    const { number, proof } = row;
    if (number <= last) found.push(`${number} comes after ${last}`);
    last = number;
    known.add(number);
    const tests = titles.get(number);
    if (proof.startsWith(NOT_APPLICABLE)) {
      if (tests !== undefined) found.push(`${number} is not applicable, and has tests`);
      if (proof === NOT_APPLICABLE) found.push(`${number} is not applicable for no reason`);
    } else if (tests === undefined) {
      found.push(`${number} has no test`);
    } else if (proof !== proofOf(row, titles)) {
      found.push(`${number} names other tests than there are: npm run hazards -- --write`);
    }
  }
  for (const [number, files] of titles) {
    if (!known.has(number)) found.push(`${number} is unknown, in ${[...files].join(', ')}`);
  }
  return found;
}

if (import.meta.main) {
  const titles = readTitles();
  if (process.argv.includes('--write')) {
    writeFileSync(join(root, PAGE), refresh(readPage(), titles));
  }
  const found = problems(readPage(), titles);
  const rows = readRows(readPage());
  const without = rows.filter(({ proof }) => proof.startsWith(NOT_APPLICABLE)).length;
  console.log(
    [
      ...found,
      `${rows.length} hazards: ${rows.length - without} with tests to have, ${without} not applicable, ${found.length} problems`,
    ].join('\n'),
  );
  process.exitCode = found.length === 0 ? 0 : 1;
}
