import { fc } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { tokenize, TrigramModel } from '../../examples/model-server/trigram.ts';
import { answerOf, FABLES } from './fables.ts';

const temperature = fc.double({ min: 0, max: 2, noNaN: true });

describe('tokenize()', () => {
  it('loses nothing but the width of spaces', () => {
    // Pairs of backticks are the one thing that it takes away.
    const texts = fc.string({ unit: 'binary' }).map((text) => text.replaceAll('`', ''));
    fc.assert(
      fc.property(texts, (text) => {
        expect(tokenize(text).join('')).toBe(text.replace(/\s+/g, ' ').trimEnd());
      }),
    );
  });
});

describe('TrigramModel', () => {
  const model = new TrigramModel(FABLES);

  describe('.generate()', () => {
    it('writes only what it read: any three tokens of a paragraph stand there in a row', () => {
      const read = new Set<string>();
      for (const fable of FABLES) {
        const tokens = tokenize(` ${fable}`);
        tokens.forEach((_, end) => read.add(tokens.slice(end - 2, end + 1).join('|')));
      }
      fc.assert(
        fc.property(fc.string(), temperature, (seed, heat) => {
          const [first, ...rest] = answerOf(model, { seed, temperature: heat });
          const tokens = [` ${first}`, ...rest];
          for (let end = 2; end < tokens.length; end += 1) {
            expect(read).toContain(tokens.slice(end - 2, end + 1).join('|'));
          }
        }),
      );
    });

    it('gives the same answer to the same question, seed and temperature', () => {
      fc.assert(
        fc.property(fc.string(), fc.string(), temperature, (about, seed, heat) => {
          const options = { about, seed, temperature: heat };
          expect(answerOf(model, options)).toEqual(answerOf(model, options));
        }),
      );
    });
  });
});
