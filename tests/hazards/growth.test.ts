import {
  AdmissionQueue,
  fromCallback,
  RateLimiter,
  Semaphore,
  SessionManager,
  TokenStreamer,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

/**
 * What costs too much shows as an order of magnitude: these bounds are far from what is measured, and
 * it is the time of the processor that is measured, so that a busy machine fails none of them. How
 * fast things are is for `npm run bench` to say.
 */
async function costMs(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Of several rounds, the one that was disturbed the least. */
async function least(rounds: number, work: () => unknown): Promise<number> {
  let ms = Infinity;
  for (let round = 0; round < rounds; round++) ms = Math.min(ms, await costMs(work));
  return ms;
}

/** How many times as much `many` costs as `few`. */
async function growth(few: number, many: number, work: (n: number) => unknown): Promise<number> {
  await work(few);
  const base = await least(5, () => work(few));
  return (await least(3, () => work(many))) / base;
}

describe('one call', () => {
  it('of a free semaphore costs no more than microseconds (H201)', async () => {
    const semaphore = new Semaphore(1);
    const calls = 20_000;
    const tries = await least(5, () => {
      for (let i = 0; i < calls; i++) semaphore.tryAcquire()!.release();
    });
    const waits = await least(5, async () => {
      for (let i = 0; i < calls; i++) (await semaphore.acquire()).release();
    });
    // In microseconds.
    expect((tries / calls) * 1000).toBeLessThan(4);
    expect((waits / calls) * 1000).toBeLessThan(10);
  });

  it('of a reader of tokens costs no more than microseconds (H322)', async () => {
    const streamer = new TokenStreamer({ clock: new ManualClock() });
    const count = 50_000;
    const tokens = Array.from({ length: count }, (_, i) => `${i}`);
    let read = 0;
    const ms = await least(3, async () => {
      read = 0;
      for await (const token of streamer.stream(tokens).tokens()) if (token !== '') read++;
    });
    expect(read).toBe(count);
    expect((ms / count) * 1000).toBeLessThan(40);
  });
});

describe('the cost of many', () => {
  it('of a departure from the line, and of who follows it, is no matter of its length (H215)', async () => {
    const lines = new Map<number, ReturnType<typeof line>>();
    function line(length: number): { follow: (() => number)[]; leave: () => unknown } {
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: Infinity });
      queue.pause();
      const tickets = Array.from({ length }, (_, i) =>
        queue.enqueue(() => i, { priority: 1 + (i % 5) }),
      );
      const last = tickets.slice(-10);
      // Those who leave leave gaps: where there are none a place needs no index.
      let next = length >> 1;
      for (let i = 0; i < 5; i++) tickets[next++]!.cancel();
      // The first question makes an index of all.
      for (const ticket of last) expect(ticket.position).toBeGreaterThan(0);
      return {
        follow: last.map((ticket) => () => ticket.position),
        leave: () => tickets[next++]!.cancel(),
      };
    }
    for (const length of [1000, 100_000]) lines.set(length, line(length));
    const times = await growth(1000, 100_000, (length) => {
      const { follow, leave } = lines.get(length)!;
      for (let i = 0; i < 60; i++) {
        leave();
        for (const position of follow) position();
      }
    });
    // A look at everybody would be 100.
    expect(times).toBeLessThan(30);
  });

  it('of calls of a limiter at once grows with their number, and they go in order (H263)', async () => {
    const times = await growth(2000, 20_000, async (calls) => {
      const clock = new ManualClock();
      const limiter = new RateLimiter({ limit: 1000, burst: 1_000_000, clock });
      limiter.pause(10);
      let latest = -1;
      let disorder = 0;
      for (let i = 0; i < calls; i++) {
        void limiter.acquire().then(() => {
          if (i !== latest + 1) disorder++;
          latest = i;
        });
      }
      await clock.advance(10);
      expect([latest, disorder]).toEqual([calls - 1, 0]);
    });
    // 10 where each costs the same, 100 where each costs a look at all.
    expect(times).toBeLessThan(50);
  });

  it('of sessions grows with their number (H290)', async () => {
    const times = await growth(1000, 20_000, async (count) => {
      const clock = new ManualClock();
      const sessions = new SessionManager({ clock, timeoutFor: () => 100 });
      const open = Array.from({ length: count }, () => sessions.open());
      for (let i = 0; i < count; i += 2) void open[i]!.end();
      await clock.advance(100);
      expect(sessions.stats()).toMatchObject({ active: 0, timedOut: count / 2 });
    });
    // 20 where each costs the same, 400 where each costs a look at all.
    expect(times).toBeLessThan(90);
  });
});

describe('the cost of many tokens', () => {
  const clock = new ManualClock();

  async function read(tokens: AsyncIterable<number>, first: number, count: number): Promise<void> {
    let next = first;
    for await (const token of tokens) if (token === next) next++;
    expect(next).toBe(first + count);
  }

  it('that wait in a callback, or for their reader, grows with their number (H322)', async () => {
    const streamer = new TokenStreamer({ highWaterMark: 1_000_000, clock });
    const times = await growth(5000, 100_000, (count) => {
      const source = fromCallback<number>(
        ({ push, end }) => {
          for (let i = 0; i < count; i++) push(i);
          end();
        },
        { maxBuffered: count },
      );
      return read(streamer.stream(source).tokens(), 0, count);
    });
    // 20 where each costs the same, 400 where each costs a look at all.
    expect(times).toBeLessThan(60);
  });

  it('that are kept for readers who come again grows with their number (H322)', async () => {
    const streamer = new TokenStreamer({ clock });
    const times = await growth(5000, 100_000, async (count) => {
      const tokens = Array.from({ length: 2 * count }, (_, i) => i);
      const replay = streamer.stream(tokens).replay({ maxTokens: count, graceMs: 1 });
      await read(replay.from().tokens(), 0, 2 * count);
      await read(replay.from(String(count - 1)).tokens(), count, count);
      await clock.advance(1);
    });
    expect(times).toBeLessThan(60);
  });
});

describe('ten thousand who are let in at once', () => {
  it('start in order, in less than a second, when a queue resumes (H239, H340)', async () => {
    const count = 10_000;
    const queue = new AdmissionQueue({ concurrency: count, maxWaiting: count });
    queue.pause();
    const told: string[] = [];
    const began: number[] = [];
    queue.on('started', ({ id }) => told.push(id));
    const tickets = Array.from({ length: count }, (_, i) => queue.enqueue(() => began.push(i)));
    const ms = await costMs(() => {
      queue.resume();
      expect([queue.active, began.length]).toEqual([count, 0]);
      return settle();
    });
    expect(ms).toBeLessThan(1000);
    expect(began).toEqual(Array.from({ length: count }, (_, i) => i));
    expect(told).toEqual(tickets.map(({ id }) => id));
    expect(queue.stats()).toMatchObject({ active: 0, completed: count });
  });

  it('go on in order, in less than a second, when a semaphore grows (H340)', async () => {
    const count = 10_000;
    const semaphore = new Semaphore(1);
    semaphore.tryAcquire();
    const began: number[] = [];
    for (let i = 0; i < count; i++) void semaphore.acquire().then(() => began.push(i));
    const ms = await costMs(() => {
      semaphore.resize(count + 1);
      expect([semaphore.active, semaphore.waiting]).toEqual([count + 1, 0]);
      return settle();
    });
    expect(ms).toBeLessThan(1000);
    expect(began).toEqual(Array.from({ length: count }, (_, i) => i));
  });
});
