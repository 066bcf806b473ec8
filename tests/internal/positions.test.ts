import { AdmissionQueue, type PositionEvent } from 'sluice/admission-queue';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, onTestFinished, vi } from 'vitest';

import { Emitter } from '../../src/internal/emitter.ts';
import type { Entry } from '../../src/internal/entry.ts';
import { Positions } from '../../src/internal/positions.ts';

const never = (): Promise<never> => new Promise(() => undefined);

function busy(): { queue: AdmissionQueue; finish: () => void } {
  const queue = new AdmissionQueue({ concurrency: 1 });
  const { promise, resolve } = Promise.withResolvers<void>();
  void queue.run(() => promise);
  return { queue, finish: resolve };
}

/** Places in a line of which each look is counted. */
function counted(): {
  emitter: Emitter<{ position: PositionEvent }>;
  positions: Positions;
  line: Entry[];
  entry: Entry & { status: string };
  looks: { line: number; entry: number; turns: number };
} {
  const emitter = new Emitter<{ position: PositionEvent }>();
  const entry = { id: 'a', status: 'waiting' } as Entry;
  const line = [entry];
  const looks = { line: 0, entry: 0, turns: 0 };
  const { queueMicrotask } = globalThis;
  vi.spyOn(globalThis, 'queueMicrotask').mockImplementation((callback) => {
    looks.turns++;
    queueMicrotask(callback);
  });
  onTestFinished(() => void vi.restoreAllMocks());
  const lookedAt: Iterable<Entry> = {
    [Symbol.iterator]() {
      looks.line++;
      return line[Symbol.iterator]();
    },
  };
  const positions = new Positions(emitter, lookedAt, (one) => {
    looks.entry++;
    return line.indexOf(one) + 1 || -1;
  });
  return { emitter, positions, line, entry, looks };
}

describe('Positions', () => {
  it('yields the position, then each change, and ends after 0', async () => {
    const { queue, finish } = busy();
    const ahead = [1, 2].map(() => queue.enqueue(never));
    const ticket = queue.enqueue(() => undefined);
    const yielded: number[] = [];
    const end = (async () => {
      for await (const position of ticket.positions()) yielded.push(position);
    })();
    await settle();
    ahead[0]!.cancel('gone');
    await settle();
    ahead[1]!.cancel('gone');
    await settle();
    finish();
    await end;
    expect(yielded).toEqual([3, 2, 1, 0]);
  });

  it('is conflated: who is slow gets the latest', async () => {
    const { queue } = busy();
    const ahead = [1, 2, 3].map(() => queue.enqueue(never));
    const positions = queue.enqueue(never).positions();
    expect(await positions.next()).toEqual({ done: false, value: 4 });
    for (const ticket of ahead) ticket.cancel('gone');
    expect(await positions.next()).toEqual({ done: false, value: 1 });
  });

  it('keeps what has changed while nobody asked', async () => {
    const { queue } = busy();
    const ahead = queue.enqueue(never);
    const positions = queue.enqueue(never).positions();
    expect(await positions.next()).toEqual({ done: false, value: 2 });
    ahead.cancel('gone');
    await settle();
    expect(await positions.next()).toEqual({ done: false, value: 1 });
  });

  it('ends after 0 at once, however long the task goes on', async () => {
    const { queue, finish } = busy();
    const positions = queue.enqueue(never).positions();
    expect(await positions.next()).toEqual({ done: false, value: 1 });
    const asked = [positions.next(), positions.next()];
    finish();
    expect(await Promise.all(asked)).toEqual([
      { done: false, value: 0 },
      { done: true, value: undefined },
    ]);
    expect(await positions.next()).toEqual({ done: true, value: undefined });
  });

  it('ends where the ticket leaves, is over, or nobody wants more', async () => {
    const { queue } = busy();
    const ticket = queue.enqueue(never);
    const positions = ticket.positions();
    const other = ticket.positions();
    await positions.next();
    const pending = positions.next();
    expect(await other.return!()).toEqual({ done: true, value: undefined });
    expect(await other.next()).toEqual({ done: true, value: undefined });
    ticket.cancel('gone');
    expect(await pending).toEqual({ done: true, value: undefined });
    expect(await ticket.positions().next()).toEqual({ done: true, value: undefined });
  });

  it('answers each of several calls of next at once with a change of its own', async () => {
    const { queue } = busy();
    const ahead = [1, 2].map(() => queue.enqueue(never));
    const positions = queue.enqueue(never).positions();
    const calls = [positions.next(), positions.next(), positions.next()];
    for (const ticket of ahead) {
      await settle();
      ticket.cancel('gone');
    }
    expect((await Promise.all(calls)).map(({ value }) => value)).toEqual([3, 2, 1]);
  });

  it('tells listeners once a turn, of those only whose position has changed (H167, H214)', async () => {
    const { queue, finish } = busy();
    const log: PositionEvent[] = [];
    queue.on('position', (event) => log.push(event));
    for (const id of ['a', 'b', 'c']) queue.enqueue(() => undefined, { id });
    await settle();
    expect(log.splice(0)).toEqual([
      { id: 'a', position: 1 },
      { id: 'b', position: 2 },
      { id: 'c', position: 3 },
    ]);
    queue.cancel('b', 'gone');
    queue.get('c')!.result.catch(() => undefined);
    await settle();
    expect(log.splice(0)).toEqual([
      { id: 'b', position: -1 },
      { id: 'c', position: 2 },
    ]);
    finish();
    await queue.idle();
    await settle();
    expect(log.at(-1)).toEqual({ id: 'c', position: -1 });
  });

  it('tells the true place first, each change after it, and one end, which is the last (H211, H212)', async () => {
    const clock = new ManualClock();
    const queue = new AdmissionQueue({ concurrency: 2, clock });
    const told = new Map<string, number[]>();
    const joined = new Map<string, number>();
    queue.on('position', ({ id, position }) => told.set(id, [...(told.get(id) ?? []), position]));
    queue.pause();
    let count = 0;
    const wrong: unknown[] = [];
    for (let step = 0; step < 300; step++) {
      const tickets = [...queue.tickets()];
      const one = tickets[(step * 7) % Math.max(tickets.length, 1)];
      if (step % 3 === 0 || one === undefined) {
        const id = `${count++}`;
        const ends = (): Promise<void> => new Promise((done) => clock.setTimeout(done, step % 5));
        const ticket = queue.enqueue(ends, {
          id,
          priority: 1 + (step % 4),
          waitTimeoutMs: 10 + (step % 50),
        });
        ticket.result.catch(() => undefined);
        if (ticket.status === 'waiting') joined.set(id, ticket.position);
      } else if (step % 10 === 1) {
        one.cancel('gone');
      } else if (step % 5 === 2) {
        one.setPriority(1 + (step % 5));
      } else if (step % 12 === 4) {
        queue.resume();
        queue.pause();
      }
      await settle();
      for (const { id, position, status } of queue.tickets()) {
        if (status === 'waiting' && told.get(id)?.at(-1) !== position) wrong.push([step, id]);
      }
      await clock.advance(1);
    }
    queue.resume();
    while (queue.active + queue.waiting > 0) await clock.advance(1);
    expect(joined.size).toBeGreaterThan(50);
    for (const [id, first] of joined) {
      const places = told.get(id)!;
      if (places[0] !== first) wrong.push([id, 'begins', places]);
      if (places.some((place, i) => place === places[i - 1])) wrong.push([id, 'repeats', places]);
      if (!/^(?:[1-9]\d*,)+(?:0,)?-1$/.test(places.join())) wrong.push([id, 'ends', places]);
    }
    expect(wrong).toEqual([]);
  });

  it('looks once a turn, and not at all while nobody listens or asks', async () => {
    const { emitter, positions, entry, looks } = counted();
    positions.changed();
    await settle();
    expect(looks).toEqual({ line: 0, entry: 0, turns: 0 });
    const listener = (): void => undefined;
    emitter.on('position', listener);
    positions.changed();
    positions.changed();
    await settle();
    expect(looks).toEqual({ line: 1, entry: 0, turns: 1 });
    emitter.off('position', listener);
    positions.changed();
    await settle();
    expect(looks).toEqual({ line: 1, entry: 0, turns: 1 });
    expect(await positions.iterate(entry).next()).toEqual({ done: false, value: 1 });
    positions.changed();
    await settle();
    expect(looks).toEqual({ line: 1, entry: 1, turns: 1 });
  });

  it('looks at the line for listeners only, not for who asks for one position', async () => {
    const { positions, line, entry, looks } = counted();
    const iterator = positions.iterate(entry);
    await iterator.next();
    const asked = iterator.next();
    positions.changed();
    await settle();
    expect(looks).toEqual({ line: 0, entry: 2 + 1, turns: 1 });
    line.length = 0;
    positions.changed();
    expect(await asked).toEqual({ done: true, value: undefined });
    positions.changed();
    await settle();
    expect(looks).toEqual({ line: 0, entry: 2 + 2, turns: 2 });
  });

  it('looks no more at who is over when that has been told', async () => {
    const { emitter, positions, line, entry, looks } = counted();
    const told: number[] = [];
    emitter.on('position', ({ position }) => told.push(position));
    positions.changed();
    await settle();
    line.length = 0;
    entry.status = 'completed';
    for (let i = 0; i < 3; i++) {
      positions.changed();
      await settle();
    }
    expect([told, looks.entry]).toEqual([[1, -1], 1]);
  });

  it('begins anew for who listens after nobody did', async () => {
    const { queue } = busy();
    const log: PositionEvent[] = [];
    const listener = (event: PositionEvent): void => void log.push(event);
    queue.on('position', listener);
    queue.enqueue(never, { id: 'a' });
    await settle();
    queue.off('position', listener);
    queue.enqueue(never, { id: 'b' });
    queue.on('position', listener);
    queue.enqueue(never, { id: 'c' });
    await settle();
    expect(log).toEqual([
      { id: 'a', position: 1 },
      { id: 'a', position: 1 },
      { id: 'b', position: 2 },
      { id: 'c', position: 3 },
    ]);
  });

  it('begins anew for who listens after nobody did, also where somebody asked meanwhile', async () => {
    const { queue } = busy();
    const log: PositionEvent[] = [];
    const listener = (event: PositionEvent): void => void log.push(event);
    const gone = queue.enqueue(never, { id: 'gone' });
    const asked = queue.enqueue(never, { id: 'asked' }).positions();
    queue.on('position', listener);
    queue.enqueue(never, { id: 'a' });
    await settle();
    queue.off('position', listener);
    log.length = 0;
    await asked.next();
    const change = asked.next();
    gone.cancel('gone');
    await change;
    queue.on('position', listener);
    queue.enqueue(never, { id: 'b' });
    await settle();
    expect(log).toEqual([
      { id: 'asked', position: 1 },
      { id: 'a', position: 2 },
      { id: 'b', position: 3 },
    ]);
  });

  it('tells of an id in use again after the one that had it has gone', async () => {
    const { queue } = busy();
    const log: PositionEvent[] = [];
    queue.on('position', (event) => log.push(event));
    queue.enqueue(never, { id: 'a' });
    await settle();
    queue.cancel('a', 'gone');
    queue.enqueue(never, { id: 'a' });
    await settle();
    expect(log).toEqual([
      { id: 'a', position: 1 },
      { id: 'a', position: -1 },
      { id: 'a', position: 1 },
    ]);
  });
});
