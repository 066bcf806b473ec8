import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { paragraphsOf, readCorpus } from '../../examples/model-server/corpus.ts';
import { tokenize, TrigramModel } from '../../examples/model-server/trigram.ts';
import { answerOf, FABLES } from './fables.ts';

describe('tokenize()', () => {
  it('keeps words, numbers, names and code spans whole and marks apart', () => {
    expect(tokenize("Don't run node:http 22.12, see `a (b)`!")).toEqual([
      "Don't",
      ' run',
      ' node:http',
      ' 22.12',
      ',',
      ' see',
      ' a (b)',
      '!',
    ]);
  });
});

describe('TrigramModel', () => {
  it('refuses to learn from nothing', () => {
    expect(() => new TrigramModel([' '])).toThrow(RangeError);
  });

  it('counts the different tokens that it knows', () => {
    expect(new TrigramModel(['a b a b a.', 'b c.']).vocabulary).toBe(4);
  });

  describe('.generate()', () => {
    const model = new TrigramModel(FABLES);

    it('gives different answers for different seeds', () => {
      const answers = Array.from({ length: 50 }, (_, seed) =>
        answerOf(model, { seed: String(seed), minTokens: 20 }).join(''),
      );
      expect(new Set(answers).size).toBeGreaterThan(25);
    });

    it('begins with the rarest word of the question that it knows, with a capital', () => {
      for (const seed of ['1', '2', '3']) {
        const answer = answerOf(model, {
          about: 'Why does the lion fear the CROCODILE, pray?',
          seed,
        });
        expect(answer[0]).toBe('Crocodile');
      }
    });

    it('takes the spelling of that word that it read most often', () => {
      const lions = new TrigramModel([
        'Lion runs.',
        'a lion hides.',
        'a lion waits.',
        'LION eats.',
      ]);
      for (const seed of ['1', '2', '3', '4', '5']) {
        expect(answerOf(lions, { about: 'LION?', seed }).join('')).toMatch(
          /^Lion (?:hides|waits)\.$/,
        );
      }
    });

    it('begins like a paragraph when it knows no word of the question', () => {
      const starts = FABLES.map((fable) => tokenize(fable)[0]);
      for (const seed of ['1', '2', '3']) {
        expect(starts).toContain(answerOf(model, { about: 'Quantum chromodynamics?', seed })[0]);
      }
    });

    it('leaves names of code as they are', () => {
      const code = new TrigramModel(['set `maxWaiting` to node:http now']);
      expect(answerOf(code, { about: 'what is maxwaiting' }).join('')).toBe(
        'maxWaiting to node:http now',
      );
      expect(answerOf(code, { about: 'what is node:http' }).join('')).toBe('node:http now');
    });

    it('always takes the most frequent follower at temperature 0, of equals the first', () => {
      const weather = new TrigramModel(['it was wet.', 'it is dry.', 'it is wet.']);
      for (const seed of ['1', '2', '3', '4', '5']) {
        expect(answerOf(weather, { seed, temperature: 0 }).join('')).toBe('It is dry.');
      }
    });

    it('draws followers as often as they were read at temperature 1, evenly when hot', () => {
      const weather = new TrigramModel([...Array<string>(9).fill('it is dry.'), 'it is wet.']);
      const wet = (temperature: number): number =>
        Array.from({ length: 2000 }, (_, seed) =>
          answerOf(weather, { seed: String(seed), temperature }).join(''),
        ).filter((answer) => answer === 'It is wet.').length / 2000;
      expect(wet(1)).toBeCloseTo(0.1, 1);
      // 1 / (1 + sqrt(9))
      expect(wet(2)).toBeCloseTo(0.25, 1);
      expect(wet(2)).toBeGreaterThan(wet(1) + 0.08);
    });

    it('goes on with another paragraph until there are `minTokens`', () => {
      const short = new TrigramModel(['one two.']);
      expect(answerOf(short, {}).join('')).toBe('One two.');
      expect(answerOf(short, { minTokens: 7 }).join('')).toBe('One two. one two. one two.');
    });
  });
});

describe('paragraphsOf()', () => {
  it('keeps running text and list items, without markup and asides', () => {
    const markdown = [
      '# A heading that is long enough to be taken for text',
      '',
      'A **queue** (see below) has one [line](./line.md)',
      'per `priority (1 is first)`:',
      '- every caller is told "its place" at once',
      '> a quoted sentence has five words',
      '| a | table | row | is | no | text |',
      '```ts',
      'const code = "is no text either, however long";',
      '```',
      '<!-- nor is a comment, however long it may be -->',
      'too short',
    ].join('\r\n');
    expect(paragraphsOf(markdown)).toEqual([
      'A queue has one line per `priority (1 is first)`.',
      'every caller is told its place at once.',
      'a quoted sentence has five words.',
    ]);
  });
});

describe('readCorpus()', () => {
  it('reads every Markdown file and LICENSE in order of path, but nothing installed or hidden', async () => {
    const root = await mkdtemp(join(tmpdir(), 'corpus-'));
    try {
      for (const path of [
        'docs/deep/b.md',
        'LICENSE',
        'docs-b.md',
        'notes.txt',
        'node_modules/package/README.md',
        'docs/node_modules/README.md',
        '.git/description.md',
      ]) {
        await mkdir(join(root, dirname(path)), { recursive: true });
        await writeFile(join(root, path), `These are four words before ${path}`);
      }
      expect(await readCorpus(root)).toEqual([
        'These are four words before LICENSE.',
        'These are four words before docs-b.md.',
        'These are four words before docs/deep/b.md.',
      ]);
    } finally {
      await rm(root, { recursive: true });
    }
  });

  it('finds the repository that it is part of', async () => {
    const paragraphs = await readCorpus();
    expect(paragraphs.some((text) => text.startsWith('Permission is hereby granted'))).toBe(true);
    expect(paragraphs.some((text) => text.includes('trigram model'))).toBe(true);
  });
});
