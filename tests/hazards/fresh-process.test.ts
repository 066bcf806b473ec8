import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { build } from 'esbuild';
import { describe, expect, it } from 'vitest';

const src = fileURLToPath(new URL('../../src', import.meta.url));

/** What a process of its own prints that does `first`, then loads the library and does the rest. */
async function printed(first: string, module: string): Promise<unknown> {
  const { outputFiles } = await build({
    stdin: { contents: module, resolveDir: src },
    // In front of everything that is imported but what Node brings along.
    banner: { js: first },
    bundle: true,
    format: 'esm',
    platform: 'node',
    write: false,
  });
  const running = promisify(execFile)(process.execPath, ['--input-type=module', '-']);
  running.child.stdin!.end(outputFiles[0]!.text);
  return JSON.parse((await running).stdout);
}

describe('a prototype that was polluted before the import', () => {
  it('sets no option and changes no outcome (H166)', async () => {
    const scenario = `
      import {
        AdmissionQueue, compose, Keyed, RateLimiter, Semaphore, SessionManager, SharedResource,
        TokenStreamer, wrap,
      } from './index.ts';
      import { encodeEvents, toResponse } from './http/index.ts';
      import { ManualClock, settle } from './testing.ts';
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 2, clock });
      const permits = [await semaphore.acquire(), await semaphore.acquire({})];
      const waiting = semaphore.run(() => 'waited', { weight: 2 });
      const queue = new AdmissionQueue({ concurrency: 1, clock });
      const order = [];
      await Promise.all([{}, { priority: 1 }, {}].map((options, n) =>
        queue.run(() => order.push(n), options),
      ));
      const limiter = new RateLimiter({ limits: { a: { limit: 3 }, b: { limit: 2 } }, clock });
      const leases = [1, { a: 2 }, { b: 2 }].map((cost) => limiter.tryAcquire(cost)?.cost);
      const keyed = new Keyed(() => new Semaphore(1), { maxKeys: 2, clock });
      for (const key of ['a', 'b', 'c']) keyed.get(key);
      const sessions = new SessionManager({ clock, generateId: () => 'id' });
      const { session } = await sessions.execute(({ session }) => session.metadata.set('k', 1));
      const events = [];
      for await (const event of new TokenStreamer({ clock }).stream(['x'])) events.push({ ...event });
      const held = semaphore.stats();
      for (const permit of permits) permit.release();
      const found = [order, leases, keyed.size, events, await waiting, held.active, held.waiting];
      const resource = new SharedResource({ load: () => 'loaded', clock });
      found.push(await resource.run(({ resource }) => resource), await resource.run(() => 1, {}));
      const gate = compose(sessions, queue, semaphore);
      found.push(await gate.run(() => 'through'), await wrap(gate, (x) => x)('wrapped'));
      const streamer = new TokenStreamer({ clock });
      for await (const text of encodeEvents(streamer.stream(['y'], { gate }))) found.push(text);
      found.push(await (await toResponse(streamer.stream(['z'], { gate }))).text());
      found.push((await sessions.open().end()).status);
      await clock.advance(2000);
      found.push(await limiter.run(() => 'granted'));
      for (const one of [queue, limiter, semaphore, resource]) one.close();
      found.push(await sessions.shutdown());
      const stats = [semaphore, queue, limiter, sessions, resource].map((one) => one.stats());
      await settle();
      found.push(clock.timers, Object.entries(session), stats);
      for (const name of Object.keys(Object.prototype)) delete Object.prototype[name];
      console.log(JSON.stringify(found));`;
    const names = `
      capacity maxWaiting maxHoldMs clock weight signal waitTimeoutMs runTimeoutMs graceMs
      concurrency priorities defaultPriority overflow history generateId id key priority
      metadata enqueuedAt onTicket limit intervalMs burst limits maxPauseMs cost a b
      idleMs maxActive timeoutMs timeoutFor cleanupTimeoutMs logKeys requestId provider
      model heartbeatMs stallMs highWaterMark gate polluted format toText drainMs forceMs
      waiting raise load maxUsers accessTimeoutMs loadTimeoutMs teardownGraceMs exposeErrors`;
    const pollution = `for (const name of ${JSON.stringify(names.trim().split(/\s+/))}) {
      Object.prototype[name] = 7;
    }`;
    const [clean, polluted] = [await printed('', scenario), await printed(pollution, scenario)];
    expect(polluted).toEqual(clean);
    expect(clean).toEqual(
      expect.arrayContaining([[0, 1, 2], 'waited', expect.arrayContaining([['id', 'id']])]),
    );
  });
});

describe('a process that exits', () => {
  it('can give permits back and look at what is left, synchronously (H193)', async () => {
    const module = `
      import { Semaphore } from './semaphore.ts';
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire();
      void semaphore.acquire();
      process.on('exit', () => {
        const before = [semaphore.active, semaphore.waiting];
        const released = [permit.release(), permit.release()];
        const { active, waiting } = semaphore;
        console.log(JSON.stringify({ before, released, after: [active, waiting] }));
      });`;
    expect(await printed('', module)).toEqual({
      before: [1, 1],
      released: [true, false],
      after: [1, 0],
    });
  });
});
