// node bench/estimates.ts TRACE.csv
//
// How far the announced waits are from the true ones. The arrivals and sizes are those of a trace
// of real model calls (TIMESTAMP,ContextTokens,GeneratedTokens, such as the Azure LLM inference
// traces of 2023, CC-BY 4.0), a call takes 0.2 ms for each token of context and 25 ms for each
// generated one, and the concurrency is a little below what the load would need, so that a line
// forms. It all happens in virtual time.
import { parseArgs } from 'node:util';

import { AdmissionQueue } from 'sluice';
import { ManualClock } from 'sluice/testing';

import { heading, median, smoke, verdict } from './harness.ts';
import { readTrace, STANDARD_PACE } from './trace.ts';

const { positionals } = parseArgs({
  allowPositionals: true,
  options: { smoke: { type: 'boolean' } },
});
const [path] = positionals;
if (path === undefined) {
  console.error('Usage: node bench/estimates.ts TRACE.csv');
  process.exit(2);
}

const { prefillMsPerToken, decodeMsPerToken } = STANDARD_PACE;
const calls = readTrace(path, smoke ? 499 : undefined).map(
  ({ atMs, contextTokens, generatedTokens }) => ({
    atMs,
    serviceMs: prefillMsPerToken * contextTokens + decodeMsPerToken * generatedTokens,
  }),
);
const load = calls.reduce((sum, { serviceMs }) => sum + serviceMs, 0) / calls.at(-1)!.atMs;

/** Replays the trace and returns the relative error of each announced wait. */
async function errors(
  concurrency: number,
  priorityOf: (index: number) => number,
): Promise<number[]> {
  const clock = new ManualClock();
  const queue = new AdmissionQueue({ concurrency, maxWaiting: Infinity, clock });
  const found: number[] = [];
  for (const [index, { atMs, serviceMs }] of calls.entries()) {
    await clock.advance(Math.max(0, atMs - clock.now()));
    const enqueuedAt = clock.now();
    let announced: number | undefined;
    queue.enqueue(
      () => {
        const waited = clock.now() - enqueuedAt;
        if (announced !== undefined && waited > 0)
          found.push(Math.abs(announced - waited) / waited);
        return new Promise<void>((resolve) => {
          clock.setTimeout(resolve, serviceMs);
        });
      },
      {
        priority: priorityOf(index),
        onTicket: (ticket) => {
          if (ticket.position > 0) announced = ticket.estimatedWaitMs;
        },
      },
    );
  }
  await clock.runAll(Infinity);
  return found;
}

heading(
  `${calls.length} calls, offered load ${load.toFixed(1)}: median relative error of the waits`,
);
for (const share of [0.9, 0.97, 1.05]) {
  const concurrency = Math.max(1, Math.round(load * share));
  const cases = {
    'one priority': () => 5,
    'every fifth call urgent': (index: number) => (index % 5 === 0 ? 1 : 5),
  };
  for (const [name, priorityOf] of Object.entries(cases)) {
    const found = await errors(concurrency, priorityOf);
    const what = `concurrency ${concurrency}, ${name}, ${found.length} waits`;
    verdict(what, median(found), 0.2);
  }
}
