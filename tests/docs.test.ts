import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import * as errors from 'sluice';
import { toHttpError } from 'sluice/http';
import { describe, expect, it } from 'vitest';

import { findPages } from './support/doc-examples.ts';
import { readSources } from './support/sources.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/** The rows of the Markdown tables in a text, as their cells, without the heads. */
function rows(markdown: string): string[][] {
  return markdown
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.slice(1, -1).split('|'))
    .map((cells) => cells.map((cell) => cell.trim().replace(/^`([^`]+)`$/, '$1')));
}

describe('docs/errors.md', () => {
  const documented = rows(read('docs/errors.md'));

  it('lists every class of error, each with its code', () => {
    const classes = Object.entries(errors)
      .filter(([, value]) => Object.getPrototypeOf(value) === errors.SluiceError)
      .map(([name]) => name);
    expect(documented.map(([name]) => name!).toSorted()).toEqual(classes.toSorted());

    const source = readSources().find(({ path }) => path === 'errors.ts')!.code;
    const declared = [...source.matchAll(/class (\w+) extends SluiceError \{[^}]*?'(ERR_\w+)'/g)];
    expect(documented.map(([name, code]) => `${name} ${code}`).toSorted()).toEqual(
      declared.map(([, name, code]) => `${name} ${code}`).toSorted(),
    );
  });

  it('names every code that is anywhere in the sources', () => {
    const page = read('docs/errors.md');
    const codes = readSources().flatMap(({ code }) => code.match(/\bERR_[A-Z_]+/g) ?? []);
    expect([...new Set(codes)].filter((code) => !page.includes(`\`${code}\``))).toEqual([]);
    expect(codes).toEqual(expect.arrayContaining(['ERR_INVARIANT', 'ERR_STREAM_CUT']));
  });

  it('tells the status that toHttpError answers with', () => {
    for (const [name, code, , , status] of documented) {
      const error = Object.assign(Object.create(errors.SluiceError.prototype) as Error, {
        code,
        message: '',
      });
      expect(toHttpError(error)?.status, name).toBe(Number(status));
    }
  });
});

describe('docs/events.md', () => {
  const sections = read('docs/events.md').split(/^## /m).slice(1);
  const documented = new Map(
    sections.map((section) => [/^\w+/.exec(section)![0], rows(section)] as const),
  );
  const declared = new Map(
    readSources().flatMap(({ code }) => {
      const events = /^export interface \w+Events \{\n([\s\S]*?)^\}/m.exec(code)?.[1];
      const name = /^export class (\w+)[^{]*extends Emitter</m.exec(code)?.[1];
      return events === undefined || name === undefined ? [] : [[name, events] as const];
    }),
  );

  it('has a section for each primitive with events', () => {
    expect(declared.size).toBeGreaterThan(0);
    expect([...documented.keys()].toSorted()).toEqual([...declared.keys()].toSorted());
  });

  it.each([...declared.keys()])('lists the events of %s, each with its payload', (name) => {
    const members = [...declared.get(name)!.matchAll(/^ {2}(\w+): (.+);$/gm)];
    const told = documented.get(name)!.map(([event, , payload]) => `${event}: ${payload}`);
    const plain = members.map(([, event, payload]) => `${event}: ${payload}`);
    expect(told).toEqual(plain.map((each) => each.replace('readonly ', '')));
  });
});

describe('docs/invariants.md', () => {
  const told = [...read('docs/invariants.md').matchAll(/^\| ([A-Z]\d+) \|.*\| (.+) \|$/gm)];

  it('lists every promise that stands at the top of a class', () => {
    const promised = findPages()
      .filter((name) => /^src\/[\w-]+\.ts$/.test(name))
      .flatMap((name) =>
        [...read(name).matchAll(/^ \* (?:- )?([A-Z]\d+) {2}\S/gm)].map(([, id]) => id!),
      );
    expect(promised.length).toBeGreaterThan(25);
    expect(told.map(([, id]) => id!).toSorted()).toEqual(promised.toSorted());
  });

  it.each(told.map(([, id, tests]) => [id!, tests!]))(
    'names tests of %s, the first of which says so in a title or a message',
    (id, tests) => {
      const paths = [...tests.matchAll(/`([^`]+)`/g)].map(([, path]) => path!);
      expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
      expect(read(paths[0]!)).toMatch(new RegExp(String.raw`'[^'\n]*\b${id}\b`));
    },
  );
});

describe('the table in the README', () => {
  /** Rows by what they are about, without notes and the way up; the first of one name counts. */
  const table = (page: string): Map<string, string> =>
    new Map(
      [...read(page).matchAll(/^\| (\w[^|]+) \| (.*) \|$/gm)]
        .map(([, about, cells]) => [about!, cells!.replaceAll(/ [¹²³⁴⁵⁶]|\.\.\//g, '')] as const)
        .toReversed(),
    );

  it('says what the whole one says', () => {
    const whole = table('docs/comparison.md');
    const both = [...table('README.md')].filter(([about]) => whole.has(about));
    expect(both.length).toBeGreaterThanOrEqual(5);
    for (const [about, cells] of both) expect([about, cells]).toEqual([about, whole.get(about)]);
  });
});

describe('the pictures of the documentation', () => {
  const pictures = readdirSync(join(root, 'docs/images'));
  const texts = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => read(`docs/${name}`));

  it.each(pictures)('are shown, and tell in words what they show: %s', (picture) => {
    expect(texts.filter((text) => text.includes(`(images/${picture})`))).toHaveLength(1);
    const svg = read(`docs/images/${picture}`);
    expect(svg).toMatch(/<title id="title">.+<\/title>\n {2}<desc id="desc">.+<\/desc>/);
    // What is outside cannot be loaded where a page shows a picture.
    expect(svg).not.toMatch(/href|url\(|@import|<script/);
  });
});

/** The anchors that a page has: its headings as GitHub makes them. */
function anchorsOf(markdown: string): string[] {
  const text = markdown.replace(/^```[\s\S]*?^```$/gm, '');
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

/** Where the links of a page lead to, from the root, with their anchors. */
function linksOf(file: string): { place: string; anchor: string | undefined }[] {
  const targets = [...read(file).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!);
  return targets
    .filter((target) => !/^https?:/.test(target))
    .map((target) => {
      const [path, anchor] = target.split('#') as [string, string?];
      return { place: path === '' ? file : join(dirname(file), path), anchor };
    });
}

describe('links in the documentation', () => {
  const files = findPages().filter((name) => name.endsWith('.md'));

  it.each(files)('lead somewhere, in %s', (file) => {
    const missing = linksOf(file).filter(({ place, anchor }) => {
      if (!existsSync(join(root, place))) return true;
      return anchor !== undefined && !anchorsOf(read(place)).includes(anchor);
    });
    expect(missing).toEqual([]);
  });

  it('lead from the README to every page', () => {
    const found = new Set(['README.md']);
    for (const file of found) {
      for (const { place } of linksOf(file)) {
        const inside = files.filter((name) => dirname(name) === place.replace(/\/$/, ''));
        for (const page of [...inside, ...files.filter((name) => name === place)]) found.add(page);
      }
    }
    expect(files.filter((name) => !found.has(name))).toEqual([]);
  });
});
