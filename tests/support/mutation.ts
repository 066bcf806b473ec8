import { readFileSync } from 'node:fs';

import { afterEach, beforeEach, expect } from 'vitest';

/** Where the same is said about fewer: a mutant that hangs is given as long as all of its tests take. */
const LONG =
  /^gain and lose no token at|a million one-shot keys|fifty thousand|in Chromium|keeps no room for those who have left|goes on for as long as listeners want/;
const PROPERTY_MS = 1500;

// A mutant dies of the first counterexample, whatever it is: the same seed for all of them, no
// search for the smallest one, and no property takes longer than this. Loading fast-check takes
// longer than most mutants.
if (readFileSync(expect.getState().testPath!, 'utf8').includes('fast-check')) {
  const { configureGlobal } = await import('fast-check');
  configureGlobal({ seed: 1, endOnFailure: true, interruptAfterTimeLimit: PROPERTY_MS });
}

let startedAt = 0;

beforeEach(({ task, skip }) => {
  if (LONG.test(task.name)) skip();
  startedAt = performance.now();
});

// The run in which an asynchronous property was interrupted goes on behind its back.
afterEach(async () => {
  if (performance.now() - startedAt < PROPERTY_MS) return;
  await new Promise((resolve) => setTimeout(resolve, 50));
});
