import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import manifest from '../../package.json' with { type: 'json' };

const read = (path: string): string =>
  readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8');
/** The text as it is read, wherever its lines break. */
const prose = (path: string): string => read(path).replace(/\s+/g, ' ');

describe('SECURITY.md', () => {
  const security = prose('SECURITY.md');

  it('says who is trusted, and what is done about everybody else (H170)', () => {
    const [, trusted = '', untrusted = ''] = security.split(/\*\*(?:Trusted|Not trusted)\*\*/);
    for (const code of ['listeners', 'clocks', 'signals', 'tasks', 'options', 'generateId']) {
      expect(trusted).toContain(code);
    }
    for (const outside of ['ids', 'metadata', 'a priority', 'volume', 'timing', 'tokens']) {
      expect(untrusted).toContain(outside);
    }
  });

  it('says how to report, how soon an answer comes and which versions get fixes (H356)', () => {
    expect(security).toMatch(/report privately.*Report a vulnerability/);
    expect(security).toMatch(/first answer within a \w+/);
    expect(security).toContain('Supported versions');
  });

  it('asks for a patched runtime, where package.json says the oldest that works (H361)', () => {
    expect(manifest.engines).toEqual({ node: '>=22.12' });
    expect(security).toContain('run a patched release of Node');
  });
});

describe('CHANGELOG.md and CONTRIBUTING.md', () => {
  it('say what a version means, that order is behaviour, and that tags are signed (H360)', () => {
    const changes = prose('CHANGELOG.md');
    expect(changes).toContain('the order of events and of settlement counts as behaviour');
    expect(changes).toContain('semantic versioning');
    // What is to come, or the version that is there; then each version with its date.
    const [first, ...released] = read('CHANGELOG.md').match(/(?<=^## ).*$/gm)!;
    expect(first).toMatch(/^Unreleased$|^\d+\.\d+\.\d+.* \d{4}-\d\d-\d\d$/);
    for (const version of released) expect(version).toMatch(/^\d+\.\d+\.\d+.* \d{4}-\d\d-\d\d$/);
    expect(prose('CONTRIBUTING.md')).toContain('git tag --sign');
  });
});
