/** Loaded into the process of an example by `startChild`: tells how it is whenever it is asked. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

import type { Figures } from './child.ts';

const RESOLUTION_MS = 10;

const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
delay.enable();

process.on('message', (message) => {
  if (message === 'reset') return delay.reset();
  const resources = process.getActiveResourcesInfo();
  const delayP99Ms = Math.max(0, delay.percentile(99) / 1e6 - RESOLUTION_MS);
  const begun = performance.now();
  globalThis.gc!();
  const gcMs = performance.now() - begun;
  process.send!({ memory: process.memoryUsage(), delayP99Ms, gcMs, resources } satisfies Figures);
});
// To be watched is no reason to go on.
process.channel!.unref();
