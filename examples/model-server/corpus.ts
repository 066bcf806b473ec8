import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url));

/** Shorter ones are labels, not sentences. */
const MIN_WORDS = 5;

const NOT_PROSE = /```[\s\S]*?(?:```|$)|~~~[\s\S]*?(?:~~~|$)|<!--[\s\S]*?-->/g;
const HEADING_TABLE_OR_RULE = /^\s*(?:#{1,6}\s|\||(?:[-*_]\s*){3,}$|\[[^\]]+\]:)/;
const BULLET_OR_QUOTE = /^\s*(?:[-*+]|\d+[.)]|>)\s+/;

/** The paragraphs of every Markdown file and of the LICENSE below `root`, in order of path. */
export async function readCorpus(root: string = REPOSITORY): Promise<string[]> {
  const paths = await textFiles(root);
  const texts = await Promise.all(paths.toSorted().map((path) => readFile(path, 'utf8')));
  return texts.flatMap(paragraphsOf);
}

/**
 * The running text of a Markdown document, one string a paragraph or list item. Code blocks,
 * headings, tables, markup and asides in brackets are left out; code spans keep their backticks.
 */
export function paragraphsOf(markdown: string): string[] {
  const paragraphs: string[] = [];
  let lines: string[] = [];
  const finish = (): void => {
    const text = plain(lines.join(' '));
    if (text.split(' ').length >= MIN_WORDS) paragraphs.push(text);
    lines = [];
  };
  for (const line of markdown.replaceAll('\r', '').replace(NOT_PROSE, '\n').split('\n')) {
    const ends = line.trim() === '' || HEADING_TABLE_OR_RULE.test(line);
    if (ends || BULLET_OR_QUOTE.test(line)) finish();
    if (!ends) lines.push(line.replace(BULLET_OR_QUOTE, ''));
  }
  finish();
  return paragraphs;
}

async function textFiles(directory: string): Promise<string[]> {
  const paths: string[] = [];
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isFile()) {
      if (entry.name.endsWith('.md') || entry.name === 'LICENSE') paths.push(path);
    } else if (
      entry.isDirectory() &&
      entry.name !== 'node_modules' &&
      !entry.name.startsWith('.')
    ) {
      paths.push(...(await textFiles(path)));
    }
  }
  return paths;
}

/** One line without markup that ends like a sentence. */
function plain(text: string): string {
  const bare = text
    .replace(/!\[[^\]]*\]\([^)]*\)/g, '')
    .replace(/\[([^\]]+)\]\([^)]*\)/g, '$1')
    .replace(/`[^`]*`|\*+|_{2,}|<\/?[a-z][^>]*>/gi, keepCode)
    .replace(/`[^`]*`|\s*\((?:[^()`]|`[^`]*`)*\)|["“”()[\]]/g, keepCode)
    .replace(/\s+/g, ' ')
    .trim();
  return /[.!?]$/.test(bare) ? bare : `${bare.replace(/[:;,]$/, '')}.`;
}

function keepCode(match: string): string {
  return match.startsWith('`') ? match : '';
}
