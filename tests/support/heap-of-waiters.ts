/**
 * Run with --expose-gc: a million who wait in a queue and in a semaphore, move, leave and are
 * served, and what is left of them. Prints a line of JSON, for tests/waiters.heap.test.ts.
 */
import { AdmissionQueue, Semaphore, type Ticket } from '../../src/index.ts';
import { ManualClock } from '../../src/testing.ts';

const WAITING = 1_000_000;
const HISTORY = 100;

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

let unhandled = 0;
process.on('unhandledRejection', () => unhandled++);

async function collect(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    await turn();
    globalThis.gc!({ type: 'major', flavor: 'last-resort', execution: 'sync' });
  }
}

async function queueOf(clock: ManualClock): Promise<object> {
  const queue = new AdmissionQueue({
    concurrency: 10,
    maxWaiting: Infinity,
    history: HISTORY,
    clock,
  });
  queue.pause();
  const kept: WeakRef<Ticket>[] = [];
  let served = 0;
  const task = (): void => {
    served++;
  };
  for (let i = 0; i < WAITING; i++) {
    const ticket = queue.enqueue(task, { priority: 1 + (i % 5) });
    if (i % 10_000 !== 0) continue;
    kept.push(new WeakRef(ticket));
    // Whose id is known can be asked for.
    if (queue.get(ticket.id) !== ticket) throw new Error('Unknown.');
    ticket.setPriority(1 + ((i + 1) % 5));
    if (i % 20_000 === 0) ticket.cancel('gone');
  }
  const { waiting } = queue;
  queue.resume();
  await queue.idle();
  await collect();
  const retained = kept.filter((ticket) => ticket.deref() !== undefined).length;
  return { waiting, served, retained, left: [...queue.tickets()].length, active: queue.active };
}

async function semaphoreOf(clock: ManualClock): Promise<object> {
  const semaphore = new Semaphore({ capacity: 10, clock });
  const held = semaphore.tryAcquire(10)!;
  let served = 0;
  const task = (): void => {
    served++;
  };
  for (let i = 0; i < WAITING; i++)
    void semaphore.run(task, i % 100 === 0 ? { weight: 2 } : undefined);
  const { waiting } = semaphore;
  held.release();
  await semaphore.idle();
  const { active, available } = semaphore;
  return { waiting, served, active, available };
}

const clock = new ManualClock();
const queue = await queueOf(clock);
const semaphore = await semaphoreOf(clock);
await turn();
process.stdout.write(JSON.stringify({ queue, semaphore, timers: clock.timers, unhandled }));
