import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { serve } from '../support/serve.ts';

const EXAMPLES = new URL('../../examples/', import.meta.url);

/** With the variable that says where each serves, and how its port is chosen. */
const COMMANDS: readonly [path: string, variable: string, choice: string][] = [
  ['classification-api/start.ts', 'CLASSIFY_PORT', 'CLASSIFY_PORT'],
  ['document-service/start.ts', 'DOCUMENT_PORT', '--port or DOCUMENT_PORT'],
  ['embedding-service/start.ts', 'EMBEDDING_PORT', '--port or EMBEDDING_PORT'],
  ['http/express.ts', 'PORT', 'PORT'],
  ['http/fastify.ts', 'PORT', 'PORT'],
  ['http/hono-node.ts', 'PORT', 'PORT'],
  ['http/koa.ts', 'PORT', 'PORT'],
  ['http/node-http.ts', 'PORT', 'PORT'],
  ['model-server/main.ts', 'MODEL_SERVER_PORT', '--port or MODEL_SERVER_PORT'],
  ['provider-gateway/start.ts', 'GATEWAY_PORT', 'GATEWAY_PORT'],
  ['tutoring-chat/start.ts', 'CHAT_PORT', '--port or CHAT_PORT'],
];

/** What a command says that does not start, and its exit code. */
async function failureOf(
  path: string,
  env: Readonly<Record<string, string>>,
  args: readonly string[] = path.startsWith('embedding') ? ['--serve'] : [],
): Promise<unknown[]> {
  const child = spawn(process.execPath, [fileURLToPath(new URL(path, EXAMPLES)), ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exit = once(child, 'exit');
  return [await text(child.stderr), ...(await exit)];
}

describe.each(COMMANDS)('examples/%s', (path, variable, choice) => {
  it('says in one line that its port is taken', { timeout: 30_000 }, async () => {
    await using other = await serve(() => {});
    expect(await failureOf(path, { [variable]: String(other.port) })).toEqual([
      `Port ${other.port} is taken. Choose another one with ${choice}.\n`,
      1,
      null,
    ]);
  });

  it('says in one line that its port is none', { timeout: 30_000 }, async () => {
    expect(await failureOf(path, { [variable]: '65536' })).toEqual([
      `Expected ${variable} to be an integer from 0 to 65535, got "65536".\n`,
      1,
      null,
    ]);
  });
});

describe.each([
  ...COMMANDS.map(([path]) => path).filter((path) => !path.startsWith('http')),
  'document-service/load.ts',
  'llm-quota/start.ts',
])('examples/%s', (path) => {
  it('says in one line that it does not know an option', { timeout: 30_000 }, async () => {
    const [said, ...end] = await failureOf(path, {}, ['--bogus']);
    expect(said).toMatch(/^Unknown option '--bogus'.*\n$/);
    expect(end).toEqual([1, null]);
  });
});
