import { readFileSync } from 'node:fs';

import { describe, expect, it } from 'vitest';

import { MUTANTS } from './mutants.ts';

describe('The zoo', () => {
  it('has at least 60 mutants, no two of one name', () => {
    const names = new Set(MUTANTS.map(({ name }) => name));
    expect(names.size).toBe(MUTANTS.length);
    expect(MUTANTS.length).toBeGreaterThanOrEqual(60);
  });

  it.each(MUTANTS)('can still break the sources: $name', ({ file, find, replace }) => {
    const source = readFileSync(new URL(`../../src/${file}`, import.meta.url), 'utf8');
    expect(source.split(find)).toHaveLength(2);
    expect(replace).not.toBe(find);
  });
});
