import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { inspect, promisify } from 'node:util';

import {
  AdmissionQueue,
  compose,
  RateLimiter,
  Semaphore,
  SessionManager,
  SharedResource,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { codeOf } from '../support/promises.ts';
import { freeGate, GATE_NAMES, type LinedGate, takenGate } from '../support/scenes.ts';
import { catchUncaught } from '../support/uncaught.ts';

const entry = new URL('../../src/index.ts', import.meta.url).href;

/** Runs a program that has everything of the library at hand: what it prints. Rejects if it fails. */
async function play(program: string, ...flags: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [
      '--no-warnings',
      ...flags,
      '--input-type=module',
      '--eval',
      `import * as sluice from '${entry}';
      const { AdmissionQueue, RateLimiter, Semaphore, SessionManager, SharedResource } = sluice;
      ${program}`,
    ],
    { timeout: 60_000 },
  );
  return stdout;
}

const MAKE_TAKEN = `
  const never = () => new Promise(() => {});
  const gates = [
    new Semaphore(1),
    new AdmissionQueue({ concurrency: 1 }),
    new RateLimiter({ limit: 1, intervalMs: 20 }),
    new SharedResource({ load: () => 1, maxUsers: 1 }),
  ];
  for (const gate of gates) void gate.run(gate instanceof RateLimiter ? () => 1 : never);
`;

describe('a process', () => {
  it('stays up until those are answered who wait with a limit, and then ends (H133)', async () => {
    const program = `${MAKE_TAKEN}
      for (const gate of gates) {
        gate.run(() => console.log('ok'), { waitTimeoutMs: 40 })
          .catch(({ code }) => console.log(code));
      }
      process.on('exit', () => console.log('exit', gates.map(({ waiting }) => waiting).join()));`;
    const lines = (await play(program)).trim().split('\n');
    expect(lines.at(-1)).toBe('exit 0,0,0,0');
    expect(lines.slice(0, -1).toSorted((a, b) => (a < b ? -1 : 1))).toEqual([
      'ERR_WAIT_TIMEOUT',
      'ERR_WAIT_TIMEOUT',
      'ERR_WAIT_TIMEOUT',
      'ok',
    ]);
  });

  it('sees a shutdown through to its deadline, and its report (H136, H137)', async () => {
    const program = `
      const sessions = new SessionManager({ timeoutMs: Infinity });
      sessions.run(() => new Promise(() => {}), { requestId: 'stuck' }).catch(() => {});
      const { finished, aborted, stuck } = await sessions.shutdown({ drainMs: 20, forceMs: 20 });
      console.log(finished, aborted, stuck.map(({ requestId }) => requestId).join());`;
    expect(await play(program)).toBe('0 0 stuck\n');
  });

  it('can read all figures while it exits (H138)', async () => {
    const program = `${MAKE_TAKEN}
      for (const gate of gates) if (!(gate instanceof RateLimiter)) gate.run(never);
      const sessions = new SessionManager({ timeoutMs: Infinity });
      sessions.open();
      process.on('exit', () => {
        for (const gate of gates) console.log(gate.stats().active, gate.stats().waiting);
        console.log(sessions.stats().active, [...sessions.records()].length);
      });
      setTimeout(() => process.exit(), 10);`;
    // A resource that is loaded before the exit has a user, and one who waits.
    expect(await play(program)).toBe('1 1\n1 1\n0 0\n1 1\n1 0\n');
  });

  it.each([
    ['--disallow-code-generation-from-strings', '--disable-proto=throw'],
    ['--frozen-intrinsics'],
    ['--unhandled-rejections=strict', '--trace-uncaught'],
    ['--permission', '--allow-fs-read=*'],
  ])('may be hardened by %s (H144)', async (...flags) => {
    const program = `
      const sessions = new SessionManager();
      const queue = new AdmissionQueue({ concurrency: 1 });
      const limiter = new RateLimiter({ limit: 100 });
      const resource = new SharedResource({ load: async () => 'loaded' });
      const semaphore = new Semaphore(1);
      const gate = sluice.compose(sessions, queue, limiter, resource, semaphore);
      const control = new AbortController();
      const seen = [];
      semaphore.on('released', ({ id }) => seen.push(id));
      const left = gate.run(() => 'never', { signal: control.signal }).catch((reason) => reason);
      control.abort('gone');
      const stream = new sluice.TokenStreamer().stream(['a', 'b'], { gate });
      for await (const token of stream.tokens()) seen.push(token);
      const keyed = new sluice.Keyed(() => new Semaphore(1), { maxKeys: 1 });
      keyed.get('__proto__').tryAcquire();
      await stream.finished;
      console.log(await left, await gate.run(({ resource }) => resource), seen.join());
      await sessions.shutdown();`;
    expect(await play(program, ...flags)).toMatch(/^gone loaded .*a,b/);
  });

  it('has no listener of the library, however much of it is in use (H134)', async () => {
    const look = (): unknown =>
      process.eventNames().map((name) => [name, process.listenerCount(name)]);
    const before = look();
    for (const name of GATE_NAMES) {
      const { gate, free } = await takenGate(name);
      const left = gate.run(() => {}, { waitTimeoutMs: 0 }).catch(codeOf);
      const closing = gate[Symbol.asyncDispose]();
      await free();
      await Promise.all([left, closing]);
    }
    const sessions = new SessionManager();
    await sessions.run(() => {});
    await sessions.shutdown();
    expect(look()).toEqual(before);
  });

  it('has its own limits: the documentation says so wherever there is one (H142)', () => {
    const read = (path: string): string =>
      readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8').replace(/\n \*/g, '');
    for (const path of ['docs/README.md', 'SECURITY.md']) {
      expect(read(path)).toMatch(/Limits hold within one process/);
    }
    for (const name of ['semaphore', 'rate-limiter', 'session-manager', 'admission-queue']) {
      expect([name, read(`src/${name}.ts`)]).toEqual([
        name,
        expect.stringMatching(/limits? holds? within one process/i),
      ]);
    }
  });

  it('comes to the same results as any other, whatever its version (H145)', async () => {
    const clock = new ManualClock();
    const log: unknown[] = [];
    let seed = 1;
    const random = (below: number): number => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    const semaphore = new Semaphore({ capacity: 3, clock });
    const queue = new AdmissionQueue({
      concurrency: 3,
      generateId: () => String(log.length),
      clock,
    });
    const limiter = new RateLimiter({ limit: 7, burst: 9, clock });
    const resource = new SharedResource({ load: () => 1, maxUsers: 2, clock });
    const gates = [semaphore, queue, limiter, resource] as unknown as LinedGate[];
    for (const [index, gate] of gates.entries()) {
      for (const name of ['queued', 'acquired', 'started', 'granted', 'released', 'completed']) {
        gate.on(name, ({ id, waiting }) => log.push([index, name, id, waiting]));
      }
      for (const name of ['failed', 'cancelled', 'timedOut', 'refused', 'limited', 'idle']) {
        gate.on(name, ({ id, active }) => log.push([index, name, id, active]));
      }
    }
    const all = compose(queue, limiter, semaphore);
    for (let i = 0; i < 500; i++) {
      const control = new AbortController();
      const task = async (): Promise<void> => {
        if (random(3) === 0) await new Promise<void>((done) => clock.setTimeout(done, random(90)));
        if (random(9) === 0) throw new Error('failed');
      };
      const gate = random(5) === 0 ? all : gates[random(4)]!;
      const waitTimeoutMs = random(3) === 0 ? random(300) : 100_000;
      gate.run(task, { signal: control.signal, waitTimeoutMs }).then(
        () => log.push([i, 'ok', clock.now()]),
        (error: unknown) => log.push([i, codeOf(error) === error ? String(error) : codeOf(error)]),
      );
      if (random(6) === 0) clock.setTimeout(() => control.abort(`gone ${i}`), random(200));
      await clock.advance(random(20));
    }
    await clock.runAll();
    // To be changed with the order of what happens, which is a change of behaviour.
    const hash = createHash('sha256').update(JSON.stringify(log)).digest('hex').slice(0, 16);
    expect([log.length > 1500, hash]).toEqual([true, 'a7050f30a05c25cb']);
  });
});

describe.each(GATE_NAMES)('the end of a %s', (name) => {
  it('refuses who comes, waits for who is there, whatever becomes of them, and is told to all who ask (H135)', async () => {
    const clock = new ManualClock();
    const gate = await freeGate(name, clock);
    const done = Promise.withResolvers<void>();
    const failing = gate.run(() => done.promise).catch(codeOf);
    let ended = 0;
    const end = async (): Promise<void> => {
      await gate[Symbol.asyncDispose]();
      ended++;
    };
    const ends = [end(), end()];
    await expect(gate.run(() => {})).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await settle();
    expect(ended).toBe(0);
    ends.push(end());
    const failure = new Error('failed');
    done.reject(failure);
    expect(await failing).toBe(failure);
    await Promise.all(ends);
    await end();
    expect([ended, gate.active, clock.timers]).toEqual([4, 0, 0]);
  });

  it('may be begun by a task, or by a listener of its signal (H139)', async () => {
    using uncaught = catchUncaught();
    const clock = new ManualClock();
    const gate = await freeGate(name, clock);
    const control = new AbortController();
    const ends: PromiseLike<void>[] = [];
    const running = gate
      .run(
        async ({ signal }) => {
          ends.push(gate[Symbol.asyncDispose]());
          signal.addEventListener('abort', () => ends.push(gate[Symbol.asyncDispose]()));
          await settle();
        },
        { signal: control.signal },
      )
      .catch(codeOf);
    await Promise.resolve();
    control.abort('gone');
    expect(await running).toBe('gone');
    await Promise.all(ends);
    expect([ends.length, gate.active, gate.waiting]).toEqual([2, 0, 0]);
    expect([uncaught.exceptions, uncaught.rejections]).toEqual([[], []]);
  });

  it('leaves nothing that hangs: who comes is refused, who is there is counted out (H140)', async () => {
    const { gate, clock, free } = await takenGate(name);
    gate.close();
    gate.close();
    const refused = await Promise.allSettled([gate.run(() => {}), gate.run(() => {})]);
    expect(refused.map((each) => 'reason' in each && codeOf(each.reason))).toEqual([
      'ERR_CLOSED',
      'ERR_CLOSED',
    ]);
    const { tryAcquire } = gate as { tryAcquire?: () => unknown };
    expect(tryAcquire?.call(gate)).toBeUndefined();
    await free();
    await clock.advance(1000);
    expect([gate.active, gate.waiting, gate.stats()['closed']]).toEqual([0, 0, true]);
  });
});

describe('what is shown of a ticket, a session or a hold', () => {
  it('has no metadata, tokens or callers in it, and a copy of it can do nothing (H141)', async () => {
    const secret = 'the patient is called Ann';
    const queue = new AdmissionQueue({ concurrency: 1 });
    const ticket = queue.enqueue(() => secret, { metadata: { secret } });
    const sessions = new SessionManager();
    const session = sessions.open({ metadata: { secret } });
    const resource = new SharedResource({ load: () => ({ secret }) });
    const handle = await resource.acquire();
    const permit = new Semaphore(1).tryAcquire()!;
    const lease = new RateLimiter({ limit: 1 }).tryAcquire()!;
    for (const thing of [ticket, session, permit, lease, queue, sessions, resource, handle]) {
      expect(inspect(thing, { depth: 0, showHidden: true })).not.toContain(secret);
    }
    expect(JSON.stringify([session, permit, lease, queue, sessions])).not.toContain(secret);
    for (const thing of [permit, lease]) {
      const copy = structuredClone<object>(thing);
      expect(['release', 'cancel', 'settle'].filter((method) => method in copy)).toEqual([]);
    }
    expect([permit.release(), lease.cancel()]).toEqual([true, true]);
    await session.end();
  });
});
