import { describe, expect, it } from 'vitest';

import { problems, readPage, readTitles, refresh, titlesOf } from '../scripts/hazards.ts';

/** A number that is in no title of this file, so that it is none of the tests' own. */
const number = (digits: number): string => `H${digits}`;

describe('docs/hazards.md', () => {
  it('names, for each hazard, the tests whose titles carry its number, and no title has another', () => {
    expect(problems(readPage(), readTitles())).toEqual([]);
  });
});

describe('the check of docs/hazards.md', () => {
  const [one, two, three] = [number(901), number(902), number(903)];
  const titles = new Map([[one, new Set(['tests/a.test.ts', 'tests/b.test.ts'])]]);
  const row = (id: string, proof: string): string => `| ${id} | a \\| b | ${proof} |`;
  const proved = row(one, '`tests/a.test.ts`, `tests/b.test.ts`');

  it('finds nothing where page and titles agree', () => {
    const page = ['| number | promise | test |', '| --- | --- | --- |', proved].join('\n');
    expect(problems(`${page}\n${row(two, 'not applicable: there is none')}`, titles)).toEqual([]);
  });

  it.each([
    ['without a test', `${proved}\n${row(two, '')}`, /^H902 has no test$/],
    ['with other tests', row(one, '`tests/a.test.ts`'), /^H901 names other tests.*$/],
    ['out of order', `${row(two, 'not applicable: no')}\n${proved}`, /^H901 comes after H902$/],
    ['twice', `${proved}\n${proved}`, /^H901 comes after H901$/],
    ['with no reason', `${proved}\n${row(two, 'not applicable:')}`, /^H902 .* for no reason$/],
    ['with tests all the same', row(one, 'not applicable: no'), /^H901 .* has tests$/],
    ['that is only in a title', '', /^H901 is unknown, in tests\/a\.test\.ts, tests\/b\.test\.ts$/],
  ])('finds a number %s', (_what, page, problem) => {
    expect(problems(page, titles).join('\n')).toMatch(problem);
  });

  it('writes the tests into the table, and nothing else', () => {
    const page = `# Title\n\n${row(one, '')}\n${row(two, 'not applicable: no')}\n| S1 | x | y |\n`;
    expect(refresh(page, titles)).toBe(page.replace(row(one, ''), proved));
    expect(refresh(refresh(page, titles), titles)).toBe(refresh(page, titles));
    expect(refresh(proved, new Map())).toBe(row(one, ''));
  });

  it('reads titles, and nothing that only looks like one', () => {
    const source = `
      // it('${one}')
      describe('${one} a', () => {
        it.each([['${two}']])(\`\${b} ${three}\`, () => {
          expect('${two}').toBe(call('${two}'));
        });
        test.prop([fc.string()], { seed: 1 })("${three}", () => {});
        each('${two}', () => {});
        it(name, () => {});
      });`;
    expect(titlesOf(source)).toEqual([`'${one} a'`, `\`\${b} ${three}\``, `"${three}"`]);
  });
});
