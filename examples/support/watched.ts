/** Loaded into the process of an example by `startChild`: tells how it is whenever it is asked. */
import { subscribe } from 'node:diagnostics_channel';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createHistogram, monitorEventLoopDelay } from 'node:perf_hooks';

import type { Figures } from './child.ts';

const RESOLUTION_MS = 10;

const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
delay.enable();

/** In microseconds. */
const refusals = createHistogram();
const begun = new WeakMap<IncomingMessage, number>();
subscribe('http.server.request.start', (message) => {
  begun.set((message as { request: IncomingMessage }).request, performance.now());
});
subscribe('http.server.response.finish', (message) => {
  const { request, response } = message as { request: IncomingMessage; response: ServerResponse };
  if (response.statusCode !== 429 && response.statusCode !== 503) return;
  const tookMs = performance.now() - begun.get(request)!;
  refusals.record(Math.max(1, Math.round(1000 * tookMs)));
});

process.on('message', (message) => {
  if (message === 'reset') {
    delay.reset();
    refusals.reset();
    return;
  }
  const resources = process.getActiveResourcesInfo();
  const delayP99Ms = Math.max(0, delay.percentile(99) / 1e6 - RESOLUTION_MS);
  const refusalP99Ms = refusals.percentile(99) / 1000;
  globalThis.gc!();
  const memory = process.memoryUsage();
  process.send!({ memory, delayP99Ms, refusalP99Ms, resources } satisfies Figures);
});
// To be watched is no reason to go on, and when whoever watches has ended there is none at all.
process.channel!.unref();
process.once('disconnect', () => process.exit(1));
