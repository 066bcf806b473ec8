import { AsyncLocalStorage } from 'node:async_hooks';

import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';

import type { TaskContext } from '../src/gate.ts';
import { Semaphore } from '../src/semaphore.ts';
import { ManualClock } from '../src/testing.ts';
import { type StreamEvent, TokenStreamer } from '../src/token-streamer.ts';
import { catchUncaught } from './support/uncaught.ts';

/** What happens, in ms from the start of the run; Infinity is never. */
interface Script {
  readonly source: {
    readonly kind: 'generator' | 'iterator' | 'readable' | 'sync';
    /** How long the source takes for each token, and then for its end. */
    readonly takes: readonly number[];
    readonly endsWith: 'end' | 'failure' | 'nothing';
    readonly mindsSignal: boolean;
  };
  /** When the only place at the gate becomes free; undefined: there is no gate. */
  readonly freeAt: number | undefined;
  readonly consumer: {
    readonly takes: number;
    /** After how many events it leaves, or just does not read on. */
    readonly reads: number;
    readonly then: 'leaves' | 'stops';
  };
  readonly abortAt: number;
  readonly cancelAt: number;
  readonly limits: {
    readonly firstTokenTimeoutMs: number;
    readonly idleTimeoutMs: number;
    readonly timeoutMs: number;
    readonly stallMs: number;
    readonly highWaterMark: number;
  };
}

const soon = fc.integer({ min: 0, max: 30 });
const maybe = fc.oneof({ weight: 3, arbitrary: fc.constant(Infinity) }, fc.nat(200));
const limit = fc.oneof(
  { weight: 3, arbitrary: fc.constant(Infinity) },
  fc.integer({ min: 1, max: 200 }),
);

const scripts: fc.Arbitrary<Script> = fc.record({
  source: fc.record({
    kind: fc.constantFrom('generator', 'iterator', 'readable', 'sync'),
    takes: fc.array(fc.oneof(fc.constant(0), soon), { minLength: 1, maxLength: 12 }),
    endsWith: fc.constantFrom('end', 'end', 'failure', 'nothing'),
    mindsSignal: fc.boolean(),
  }),
  freeAt: fc.option(fc.nat(100), { nil: undefined }),
  consumer: fc.record({
    takes: fc.oneof(fc.constant(0), soon),
    reads: fc.oneof({ weight: 2, arbitrary: fc.constant(Infinity) }, fc.nat(12)),
    then: fc.constantFrom('leaves', 'stops'),
  }),
  abortAt: maybe,
  cancelAt: maybe,
  limits: fc.record({
    firstTokenTimeoutMs: limit,
    idleTimeoutMs: limit,
    timeoutMs: limit,
    stallMs: limit,
    highWaterMark: fc.integer({ min: 1, max: 5 }),
  }),
});

const GRACE_MS = 50;
const failure = new Error('failure of the source');
/** One for all scripts: Node 22 keeps each of them, and is slower by each. */
const storage = new AsyncLocalStorage<string>();

/** Plays a script to its end and reports what could be seen of it. */
async function play(script: Script) {
  const clock = new ManualClock();
  const seen = {
    opened: 0,
    given: 0,
    ended: false,
    /** Set by a source that has done all that it does: ended, failed or returned from. */
    returns: 0,
    overfull: 0,
    contexts: new Set<string | undefined>(),
    abortedAt: undefined as number | undefined,
    releasedAt: undefined as number | undefined,
    activeWhenFinished: -1,
    events: [] as StreamEvent<number>[],
    received: 0,
    left: false,
  };
  const wait = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      if (ms < Infinity) clock.setTimeout(resolve, ms);
      signal?.addEventListener('abort', () => reject(signal.reason as Error));
    });

  const { takes, endsWith, mindsSignal, kind } = script.source;
  const tokens = takes.slice(0, -1);
  const called = (): void => void seen.contexts.add(storage.getStore());
  const iterator = (signal: AbortSignal): AsyncIterator<number> => ({
    async next() {
      called();
      if (stream.stats().buffered >= script.limits.highWaterMark) seen.overfull++;
      const isLast = seen.given === tokens.length;
      const ms = isLast && endsWith === 'nothing' ? Infinity : takes[seen.given]!;
      if (ms > 0) await wait(ms, mindsSignal ? signal : undefined);
      if (!isLast) return { done: false, value: seen.given++ };
      seen.ended = true;
      if (endsWith === 'failure') throw failure;
      return { done: true, value: undefined };
    },
    async return() {
      called();
      seen.returns++;
      return { done: true, value: undefined };
    },
  });
  const source = ({ signal }: TaskContext) => {
    called();
    seen.opened++;
    signal.addEventListener('abort', () => (seen.abortedAt ??= clock.now()));
    const own = iterator(signal);
    if (kind === 'iterator') return { [Symbol.asyncIterator]: () => own };
    if (kind === 'readable') {
      return new ReadableStream<number>(
        {
          async pull(controller) {
            const { done, value } = await own.next();
            if (done === true) controller.close();
            else controller.enqueue(value);
          },
          cancel: () => void own.return!(),
        },
        { highWaterMark: 0 },
      );
    }
    if (kind === 'sync') {
      // A sync iterable cannot wait before it says that it is at its end.
      return (function* (): Generator<number | Promise<number>> {
        try {
          while (seen.given < tokens.length) {
            called();
            const value = seen.given++;
            yield takes[value] === 0 ? value : wait(takes[value]!).then(() => value);
          }
          if (endsWith === 'nothing') yield new Promise<number>(() => {});
          seen.ended = true;
          if (endsWith === 'failure') throw failure;
        } finally {
          called();
          if (!seen.ended) seen.returns++;
        }
      })();
    }
    return (async function* (): AsyncGenerator<number> {
      try {
        for (;;) {
          const { done, value } = await own.next();
          if (done === true) return;
          yield value;
        }
      } finally {
        called();
        if (!seen.ended) seen.returns++;
      }
    })();
  };

  const gate = script.freeAt === undefined ? undefined : new Semaphore({ capacity: 1, clock });
  const permit = gate?.tryAcquire();
  gate?.on('released', () => (seen.releasedAt = clock.now()));
  const streamer = new TokenStreamer({ ...script.limits, teardownGraceMs: GRACE_MS, clock });
  const controller = new AbortController();
  const { signal } = controller;
  const stream = storage.run('caller', () =>
    gate === undefined
      ? streamer.stream(source, { signal })
      : streamer.stream(source, { gate, signal }),
  );
  const finished = stream.finished.then((report) => {
    seen.activeWhenFinished = (gate?.active ?? 0) - (permit?.released === false ? 1 : 0);
    return report;
  });

  if (permit !== undefined) clock.setTimeout(() => permit.release(), script.freeAt!);
  const reason = new Error('reason');
  for (const [at, end] of [
    [script.abortAt, () => controller.abort(reason)],
    [script.cancelAt, () => stream.cancel(reason)],
    // In the end somebody ends it.
    [10_000, () => stream.cancel(reason)],
  ] as const) {
    if (at < Infinity) clock.setTimeout(() => void end(), at);
  }
  const reading = storage.run('consumer', async () => {
    const events = stream[Symbol.asyncIterator]();
    for (let reads = 0; reads < script.consumer.reads; reads++) {
      const { done, value } = await events.next();
      if (done === true) return;
      seen.events.push(value);
      if (script.consumer.takes > 0) await wait(script.consumer.takes);
    }
    if (script.consumer.then === 'leaves') {
      seen.left = true;
      await events.return!();
      expect(await events.next()).toEqual({ done: true, value: undefined });
    }
  });
  await clock.advance(20_000);
  return { seen, report: await finished, reading, stream, gate, clock, tokens, streamer };
}

const RUNS = { numRuns: 400 };

describe('TokenStreamer', () => {
  test.prop([scripts], RUNS)('T1: tells every token once and in order (H296)', async (script) => {
    const { seen, report, tokens } = await play(script);
    const told = seen.events.filter((event) => event.type === 'token');
    expect(told.map(({ value }) => value)).toEqual(told.map((_, i) => i));
    expect(told.map(({ index }) => index)).toEqual(told.map((_, i) => i));
    expect(report.tokens).toBe(told.length);
    if (report.outcome === 'completed') expect(told).toHaveLength(tokens.length);
  });

  test.prop([scripts], RUNS)('T2: reads at most `highWaterMark` tokens ahead', async (script) => {
    const { seen } = await play(script);
    expect(seen.overfull).toBe(0);
  });

  test.prop([scripts], RUNS)(
    'T3: ends with exactly one `done` or `error`, which says how it ended',
    async (script) => {
      const { seen, report } = await play(script);
      const types = seen.events.map(({ type }) => type);
      const ends = types.filter((type) => type === 'done' || type === 'error');
      expect(ends.length).toBeLessThanOrEqual(1);
      if (script.consumer.reads === Infinity) expect(ends).toHaveLength(1);
      if (ends.length === 1) {
        expect(types.at(-1)).toBe(ends[0]);
        expect(ends[0]).toBe(report.outcome === 'completed' ? 'done' : 'error');
      }
    },
  );

  test.prop([scripts], RUNS)(
    'T4: lets go of source, gate and clock however it ends',
    async (script) => {
      const { seen, report, gate, clock, streamer } = await play(script);
      expect(seen.opened).toBeLessThanOrEqual(1);
      // A source that ends while it is being left may be taken for either.
      if (report.outcome === 'completed') expect(seen.abortedAt).toBe(undefined);
      else if (seen.opened === 1 && !seen.ended) expect(seen.abortedAt).not.toBe(undefined);
      expect(seen.returns).toBeLessThanOrEqual(1);
      // Generators run no `finally` while they are stuck, nor where they were not begun.
      const { kind } = script.source;
      if (seen.opened === 1 && !seen.ended && kind === 'iterator') expect(seen.returns).toBe(1);
      if (seen.ended && seen.abortedAt === undefined) expect(seen.returns).toBe(0);
      expect(seen.activeWhenFinished).toBe(0);
      if (seen.abortedAt !== undefined && gate !== undefined) {
        expect(seen.releasedAt! - seen.abortedAt).toBeLessThanOrEqual(GRACE_MS);
      }
      expect(gate?.active ?? 0).toBe(0);
      expect(gate?.waiting ?? 0).toBe(0);
      expect(clock.timers).toBe(0);
      expect(streamer.stats()).toMatchObject({ active: 0, [report.outcome]: 1 });
    },
  );

  test.prop([scripts], RUNS)(
    'T5: `finished` never rejects, and nothing else does unheard',
    async (script) => {
      using uncaught = catchUncaught();
      const { report } = await play(script);
      expect(report.error === undefined).toBe(report.outcome === 'completed');
      expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
    },
  );

  test.prop([scripts], RUNS)(
    'T6: calls, reads and closes the source in the context of the caller of stream()',
    async (script) => {
      const { seen } = await play(script);
      if (seen.opened === 1) expect([...seen.contexts]).toEqual(['caller']);
    },
  );
});
