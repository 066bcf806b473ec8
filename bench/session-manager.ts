// node --expose-gc bench/session-manager.ts [--smoke]
import { AsyncLocalStorage } from 'node:async_hooks';

import { nanoid } from 'nanoid';
import { Semaphore, SessionManager, SharedResource, systemClock } from 'sluice';

import {
  figures,
  heading,
  interleave,
  note,
  smoke,
  type Subject,
  timed,
  verdict,
} from './harness.ts';

const TURNS = smoke ? 100 : 50_000;
const task = async (): Promise<void> => {};

/** Nanoseconds for one call, when each waits for the one before. */
function inTurn(name: string, call: () => Promise<unknown>): Subject {
  return {
    name,
    round: async () => {
      const ms = await timed(async () => {
        for (let i = 0; i < TURNS; i++) await call();
      });
      return (ms * 1e6) / TURNS;
    },
  };
}

/** Nanoseconds for one call, when all are there at once. */
function atOnce(name: string, call: () => Promise<unknown>): Subject {
  const answers = Array.from<Promise<unknown>>({ length: TURNS });
  return {
    name,
    round: async () => {
      const ms = await timed(() => {
        for (let i = 0; i < TURNS; i++) answers[i] = call();
        return Promise.all(answers);
      });
      return (ms * 1e6) / TURNS;
    },
  };
}

const storage = new AsyncLocalStorage<{ readonly id: string }>();
const sessions = new SessionManager();
const unlimited = new SessionManager({ timeoutMs: Infinity });
const plain = (): Promise<void> => storage.run({ id: nanoid() }, task);
/** A record says when a session began and how long it took: two readings. */
const timedPlain = async (): Promise<number> => {
  const start = systemClock.now();
  await plain();
  return systemClock.now() - start;
};

for (const [how, subject] of [
  ['one after the other', inTurn],
  ['all at once', atOnce],
] as const) {
  heading(`${TURNS} sessions, ${how}, ns each`);
  const medians = await interleave([
    subject('AsyncLocalStorage.run + nanoid', plain),
    subject('the same, timed', timedPlain),
    subject('sessions.run', () => sessions.run(task)),
    subject('sessions.run, no time limit', () => unlimited.run(task)),
  ]);
  figures(medians, 'ns');
  const baseline = medians.get('AsyncLocalStorage.run + nanoid')!;
  verdict('sessions.run', medians.get('sessions.run')! / baseline, 1.5);
  verdict('without a limit', medians.get('sessions.run, no time limit')! / baseline, 1.5);
  const ratio = (medians.get('the same, timed')! / baseline).toFixed(2);
  note(`Reading the clock before and after is ${ratio} x the baseline by itself.`);
}

{
  const calls = TURNS * 20;
  heading(`${calls} looks at the current session, ns each`);
  let found = 0;
  const looks = (
    name: string,
    look: () => unknown,
    around: (fn: () => void) => unknown,
  ): Subject => ({
    name,
    round: async () => {
      const ms = await timed(() =>
        around(() => {
          for (let i = 0; i < calls; i++) if (look() !== undefined) found++;
        }),
      );
      return (ms * 1e6) / calls;
    },
  });
  const medians = await interleave([
    looks(
      'getStore()',
      () => storage.getStore(),
      (fn) => storage.run({ id: 'a' }, fn),
    ),
    looks(
      'current()',
      () => sessions.current(),
      (fn) => sessions.run(fn),
    ),
  ]);
  figures(medians, 'ns');
  verdict('current()', medians.get('current()')! / medians.get('getStore()')!, 1.5);
  if (found === 0) throw new Error('Nothing was current.');
}

if (globalThis.gc !== undefined) {
  const live = smoke ? 100 : 100_000;
  const gc = globalThis.gc;
  heading(`${live} live sessions without metadata, bytes each`);
  const weigh = (
    name: string,
    make: (manager: SessionManager, kept: unknown[]) => void,
  ): Subject => ({
    name,
    round: async () => {
      const manager = new SessionManager();
      const kept: unknown[] = Array.from({ length: live });
      gc();
      const before = process.memoryUsage().heapUsed;
      make(manager, kept);
      gc();
      const bytes = (process.memoryUsage().heapUsed - before) / live;
      await manager.shutdown({ drainMs: 0, forceMs: 1000 });
      return bytes;
    },
  });
  const medians = await interleave(
    [
      weigh('open', (manager, kept) => {
        for (let i = 0; i < live; i++) kept[i] = manager.open();
      }),
      weigh('run, with its task and promises', (manager, kept) => {
        for (let i = 0; i < live; i++) {
          kept[i] = manager
            .run(
              ({ signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)),
            )
            .catch(() => {});
        }
      }),
    ],
    5,
    1,
  );
  figures(medians, 'B');
  verdict('a live session, of 600 B', medians.get('open')! / 600, 1);
}

{
  const resource = new SharedResource({ load: () => 1 });
  await resource.preload();
  const semaphore = new Semaphore(10);
  for (const [how, subject] of [
    ['one after the other', inTurn],
    ['all at once, 10 at a time', atOnce],
  ] as const) {
    heading(`${TURNS} uses of a loaded resource, ${how}, ns each`);
    // The resource limits the wait of everybody.
    const limits = { waitTimeoutMs: 30_000 };
    const alone = subject === inTurn;
    const medians = await interleave([
      subject('Semaphore.run', () => semaphore.run(task, alone ? undefined : limits)),
      subject('Semaphore.run and the clock', () => {
        systemClock.now();
        return semaphore.run(task, alone ? undefined : limits);
      }),
      subject('SharedResource.run', () => resource.run(task)),
    ]);
    figures(medians, 'ns');
    verdict(
      'SharedResource.run',
      medians.get('SharedResource.run')! / medians.get('Semaphore.run')!,
      1.3,
    );
    const ratio = medians.get('Semaphore.run and the clock')! / medians.get('Semaphore.run')!;
    note(
      `A resource tells when it was last used. Reading the clock once is ${ratio.toFixed(2)} x ` +
        'the baseline by itself.',
    );
  }
}
