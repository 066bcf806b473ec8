import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { Random } from '../../bench/soak/random.ts';

describe('soak.ts', () => {
  const SOAK = fileURLToPath(new URL('../../bench/soak.ts', import.meta.url));

  async function soak(...args: string[]): Promise<{ code: unknown; out: string; err: string }> {
    const child = spawn(process.execPath, [SOAK, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    const [out, err, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'exit'),
    ]);
    return { code, out, err };
  }

  it('loses no answer and leaves nothing behind', { timeout: 120_000 }, async () => {
    const { code, out, err } = await soak('--minutes', '0.07', '--students', '10', '--seed', '7');
    expect(err).toBe('');
    expect(out).toMatch(/^questions +\d+: (?=.*answered \d+)/m);
    expect(out).toMatch(/^faults +\w+/m);
    expect(out).toMatch(/^lost +0$/m);
    expect(out).toMatch(/^at the model +[1-5] at once at most, of 5$/m);
    expect(out).toMatch(/^left over +nothing: /m);
    expect(out).toMatch(/^end +with code 0, /m);
    expect(code).toBe(0);
  });

  it('says how it is used', async () => {
    expect(await soak('--help')).toMatchObject({ code: 0, out: expect.stringMatching(/^Usage: /) });
    expect(await soak('--minutes', '0')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/^Usage: /),
    });
  });
});

describe('Random', () => {
  it('gives the same numbers for the same seed, evenly', () => {
    const [one, other] = [new Random(1), new Random(1)];
    const numbers = Array.from({ length: 10_000 }, () => one.next());
    expect(numbers).toEqual(Array.from({ length: 10_000 }, () => other.next()));
    const tenths = Array.from({ length: 10 }, (_, tenth) =>
      numbers.filter((number) => Math.floor(number * 10) === tenth),
    );
    for (const tenth of tenths) expect(Math.abs(tenth.length - 1000)).toBeLessThan(150);
  });
});
