import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vitest/config';

const source = (path: string): string => fileURLToPath(new URL(`./src/${path}`, import.meta.url));

export default defineConfig({
  resolve: {
    // Tests and examples import the package by name and get the sources.
    alias: [
      { find: /^sluice$/, replacement: source('index.ts') },
      { find: /^sluice\/http$/, replacement: source('http/index.ts') },
      { find: /^sluice\/read-events$/, replacement: source('http/read-events.ts') },
      { find: /^sluice\/([\w-]+)$/, replacement: source('$1.ts') },
    ],
  },
  test: {
    include: ['tests/**/*.test.ts'],
    pool: 'forks',
    // Many files wait for sockets and child processes: the default leaves a processor to nobody.
    maxWorkers: '100%',
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
