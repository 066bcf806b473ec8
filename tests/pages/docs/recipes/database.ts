import { expect } from 'vitest';

import type { Page } from '../../../support/doc-examples.ts';

interface Result {
  readonly rows: readonly object[];
}
interface Client {
  query(text: string, values?: readonly unknown[]): Promise<Result>;
  release(): void;
}

const asked: string[] = [];
let active = 0;
let most = 0;
let out = 0;

async function query(text: string, _values?: readonly unknown[]): Promise<Result> {
  asked.push(text);
  most = Math.max(most, ++active);
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  active--;
  return { rows: [{ name: 'Ada' }] };
}

/** As much of a pool of `pg` as the recipe uses. */
export const pool = {
  query,
  async connect(): Promise<Client> {
    out++;
    return { query, release: () => void out-- };
  },
};
export const console = { warn: (text: string) => asked.push(text) };

export const page = {
  check() {
    expect([active, out]).toEqual([0, 0]);
    // Of five reports.
    expect(most).toBe(3);
    expect(asked.slice(-4).map((text) => text.split(' ')[0])).toEqual([
      'begin',
      'update',
      'update',
      'commit',
    ]);
  },
} satisfies Page;
