/**
 * Run with --expose-gc: what a million sessions, one after the other, leave behind. Prints a line of
 * JSON, for tests/session-manager.heap.test.ts.
 */
import { getEventListeners } from 'node:events';

import { Semaphore, type Session, SessionManager } from '../../src/index.ts';

const SESSIONS = 1_000_000;
const HISTORY = 100;

const sessions = new SessionManager({ history: HISTORY });
const semaphore = new Semaphore(1);
sessions.observe(semaphore);
const shared = new AbortController();
const failure = new Error('task');
const nothing = (): void => {};
const fail = (): void => {
  throw failure;
};
const passGate = (): Promise<void> => semaphore.run(nothing);

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

async function play(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    switch (i % 5) {
      case 0: {
        const session = sessions.open({ metadata: { index: i } });
        session.defer(nothing);
        await session.end();
        break;
      }
      case 1: {
        await sessions.run(fail).catch(nothing);
        break;
      }
      case 2: {
        await sessions.run(nothing, { signal: shared.signal });
        break;
      }
      case 3: {
        await sessions.run(passGate);
        break;
      }
      default: {
        await sessions.run(nothing);
      }
    }
    // A turn of the loop now and then, as a server has.
    if (i % 10_000 === 0) await turn();
  }
}

/** What is used when everything is gone that can go, compiled code included. */
async function heapUsed(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    await turn();
    globalThis.gc!({ type: 'major', flavor: 'last-resort', execution: 'sync' });
  }
  return process.memoryUsage().heapUsed;
}

const known: Session[] = [];
const references: WeakRef<object>[] = [];

/** Sessions that are known of when they have ended, and what they should not keep alive. */
async function playKnown(): Promise<void> {
  for (let i = 0; i < 10; i++) {
    const task = ({ session }: { session: Session }): object => {
      known.push(session);
      session.metadata.set('k', { i });
      const result = { i };
      references.push(new WeakRef(session.metadata.get('k') as object), new WeakRef(result));
      return result;
    };
    await sessions.run(task);
  }
}

await play(20_000);
const before = await heapUsed();
await play(SESSIONS);
await playKnown();
const after = await heapUsed();
process.stdout.write(
  `${JSON.stringify({
    started: sessions.stats().started,
    growthBytes: after - before,
    active: sessions.active,
    records: [...sessions.records()].length,
    listeners: getEventListeners(shared.signal, 'abort').length,
    resources: process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap'),
    known: known.length,
    retained: references.filter((each) => each.deref() !== undefined).length,
  })}\n`,
);
