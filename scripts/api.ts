// npm run api [-- --write]
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import ts from '@typescript/typescript6';

import manifest from '../package.json' with { type: 'json' };

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = join(root, 'dist');

/** Where the report is kept: a change of it is a change of what users see, and is reviewed as one. */
export const REPORT: string = join(root, 'etc/sluice.api.md');

/** The declarations in a folder as `/path/in/it`, without comments: words are not what is compared. */
function declarations(folder: string): Map<string, string> {
  const printer = ts.createPrinter({ removeComments: true });
  return new Map(
    globSync('**/*.d.ts', { cwd: folder }).map((path) => {
      const source = readFileSync(join(folder, path), 'utf8');
      const parsed = ts.createSourceFile(path, source, ts.ScriptTarget.ES2023);
      return [`/${path}`, printer.printFile(parsed)];
    }),
  );
}

/** A program of these files and nothing else, which knows what each name refers to. */
function programOf(files: ReadonlyMap<string, string>): ts.Program {
  const options: ts.CompilerOptions = {
    noLib: true,
    types: [],
    module: ts.ModuleKind.NodeNext,
    allowImportingTsExtensions: true,
    noEmit: true,
  };
  const host = ts.createCompilerHost(options);
  host.fileExists = (path) => files.has(path) || path === '/package.json';
  host.readFile = (path) => files.get(path) ?? '{ "type": "module" }';
  host.directoryExists = () => true;
  host.getCurrentDirectory = () => '/';
  host.getSourceFile = (path, target) => {
    const text = files.get(path);
    return text === undefined ? undefined : ts.createSourceFile(path, text, target, true);
  };
  return ts.createProgram([...files.keys()], options, host);
}

/** What is at the end of imports and re-exports. */
function origin(checker: ts.TypeChecker, symbol: ts.Symbol): ts.Symbol {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
}

/** The whole statement that declares it: of a variable, that is more than the declaration. */
function statementOf(declaration: ts.Node): ts.Node {
  let node = declaration;
  while (!ts.isSourceFile(node.parent)) node = node.parent;
  return node;
}

/**
 * What the declarations in `folder` promise to compilers: the names that each way in exports, then
 * each declaration that they lead to, by file. A name that is exported nowhere but part of a signature
 * is among these.
 */
export function apiReport(folder: string): string {
  const program = programOf(declarations(folder));
  const checker = program.getTypeChecker();
  const statements = new Set<ts.Node>();

  function collect(symbol: ts.Symbol): void {
    for (const declaration of origin(checker, symbol).declarations ?? []) {
      if (ts.isSourceFile(declaration) || ts.isTypeParameterDeclaration(declaration)) continue;
      const statement = statementOf(declaration);
      if (statements.has(statement)) continue;
      statements.add(statement);
      visit(statement);
    }
  }
  function visit(node: ts.Node): void {
    const symbol = ts.isIdentifier(node) ? checker.getSymbolAtLocation(node) : undefined;
    if (symbol !== undefined) collect(symbol);
    ts.forEachChild(node, visit);
  }

  const lines = [
    '# API report',
    '',
    'Every export, and every declaration that it leads to. Written by `npm run api -- --write`; a test',
    'compares it with what is published.',
  ];
  for (const [subpath, target] of Object.entries(manifest.exports)) {
    if (!target.endsWith('.js')) continue;
    const path = target.replace('./dist/', '/').replace(/\.js$/, '.d.ts');
    const module = checker.getSymbolAtLocation(program.getSourceFile(path)!)!;
    const exported = checker.getExportsOfModule(module);
    for (const symbol of exported) collect(symbol);
    const names = exported.map((symbol) => {
      const isValue = origin(checker, symbol).flags & ts.SymbolFlags.Value;
      return isValue ? symbol.name : `type ${symbol.name}`;
    });
    lines.push('', `## sluice${subpath.slice(1)}`, '', '```ts', ...names.toSorted(), '```');
  }

  for (const file of program
    .getSourceFiles()
    .toSorted((a, b) => (a.fileName < b.fileName ? -1 : 1))) {
    const here = file.statements.filter((statement) => statements.has(statement));
    if (here.length === 0) continue;
    const texts = here.map((statement) => statement.getText(file));
    lines.push('', `## ${file.fileName.slice(1)}`, '', '```ts', ...texts, '```');
  }
  return `${lines.join('\n')}\n`;
}

if (import.meta.main) {
  if (process.argv.includes('--write')) {
    writeFileSync(REPORT, apiReport(dist));
  } else {
    const diff = ['diff', '--no-index', '--', REPORT, '-'];
    const { status } = spawnSync('git', diff, {
      input: apiReport(dist),
      stdio: ['pipe', 'inherit', 'inherit'],
    });
    process.exitCode = status ?? 1;
  }
}
