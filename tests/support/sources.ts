import { readdirSync, readFileSync } from 'node:fs';
import { join, posix, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

/** One import or re-export. `from` is a path within src, or the name of a package or a module. */
export interface Import {
  readonly from: string;
  readonly typeOnly: boolean;
  readonly relative: boolean;
}

export interface SourceFile {
  /** Within src, with forward slashes. */
  readonly path: string;
  /** Without comments. */
  readonly code: string;
  readonly imports: readonly Import[];
}

const COMMENT = /\/\*[\s\S]*?\*\/|(?<=^|[\s;{}(),])\/\/.*$/gm;
const IMPORT = /^(?:import|export)\s+(?:([^'"`;]*?)\s+from\s+)?['"]([^'"]+)['"]/gm;

/** What the file at `path` (within src) says. The formatter sees to the shape that this relies on. */
export function parseSource(path: string, text: string): SourceFile {
  const code = text.replace(COMMENT, '');
  const imports = [...code.matchAll(IMPORT)].map(([, clause = '', specifier = '']): Import => {
    const isRelative = specifier.startsWith('.');
    return {
      from: isRelative ? posix.join(posix.dirname(path), specifier) : specifier,
      typeOnly: isTypeOnly(clause),
      relative: isRelative,
    };
  });
  return { path, code, imports };
}

/** `type X`, `type { X }` and `{ type X, type Y }`: what leaves nothing behind in JavaScript. */
function isTypeOnly(clause: string): boolean {
  if (/^type\b/.test(clause)) return true;
  const named = /^\{([\s\S]*)\}$/.exec(clause)?.[1];
  if (named === undefined) return false;
  const names = named.split(',').map((name) => name.trim());
  return names.every((name) => name === '' || name.startsWith('type '));
}

/** Every TypeScript file of src. */
export function readSources(): SourceFile[] {
  const root = fileURLToPath(new URL('../../src/', import.meta.url));
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => {
      const file = join(entry.parentPath, entry.name);
      return parseSource(relative(root, file).split(sep).join('/'), readFileSync(file, 'utf8'));
    })
    .toSorted((a, b) => (a.path < b.path ? -1 : 1));
}
