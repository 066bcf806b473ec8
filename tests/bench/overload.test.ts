import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

describe('overload.ts', () => {
  const OVERLOAD = fileURLToPath(new URL('../../bench/overload.ts', import.meta.url));

  async function overload(...args: string[]): Promise<{ code: unknown; out: string; err: string }> {
    const child = spawn(process.execPath, [OVERLOAD, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [out, err, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'exit'),
    ]);
    return { code, out, err };
  }

  it('has every request answered or refused, and nobody is left', { timeout: 60_000 }, async () => {
    const { code, out, err } = await overload('--seconds', '2', 'classification-api');
    expect(err).toBe('');
    expect(code).toBe(0);
    const rows = out.split('\n').map((line) => line.split(' | '));
    const figure = (name: string): string =>
      rows.find(([first]) => first === `| ${name}`)![1]!.replace(/ \|$/, '');
    expect(figure('can be answered, asked, a second')).toBe('100.0, 300');
    expect(figure('requests')).toBe('600');
    expect(figure('lost')).toBe('0');
    expect(figure('active, waiting afterwards')).toBe('0, 0');
    const [finished, refused] = [figure('finished'), figure('refused')];
    // None on a machine that takes longer to send them than it should.
    expect(refused).toMatch(/^(?:0|\d+ `429 ERR_RATE_LIMITED`)$/);
    expect(Number(finished)).toBeGreaterThan(0);
    expect(Number(finished) + parseInt(refused, 10)).toBe(600);
  });

  it('says how it is used', async () => {
    expect(await overload('--help')).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^Usage: /),
    });
    expect(await overload('no-example')).toMatchObject({
      code: 2,
      err: expect.stringMatching(/^Usage: /),
    });
  });
});
