import { inspect } from 'node:util';

import {
  AdmissionQueue,
  Keyed,
  RateLimiter,
  Semaphore,
  SessionManager,
  SharedResource,
  TokenStreamer,
} from 'sluice';
import { toHttpError } from 'sluice/http';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { codeOf } from '../support/promises.ts';
import { readSources } from '../support/sources.ts';

const SECRET = 'the patient is called Ann';

/** Every event of something, as whatever could be logged of it. */
function hear(emitter: object, log: string[]): void {
  const { on } = emitter as {
    on?: (name: string, listener: (payload: object) => void) => unknown;
  };
  const names = readSources().flatMap(({ code }) =>
    [...code.matchAll(/^export interface \w+Events \{\n([\s\S]*?)^\}/gm)].flatMap(([, body]) =>
      [...body!.matchAll(/^ {2}(\w+): /gm)].map(([, name]) => name!),
    ),
  );
  for (const name of new Set(names)) {
    on?.call(emitter, name, (payload) => {
      log.push(inspect(payload, { depth: 9, showHidden: true }), JSON.stringify(payload));
    });
  }
}

/** An error as it may be logged, or sent. */
function shown(error: unknown): string {
  return `${inspect(error, { depth: 9 })} ${JSON.stringify(toHttpError(error))}`;
}

describe('metadata, tokens and results', () => {
  it('are in no event, error or figure (H155, H158)', async () => {
    const clock = new ManualClock();
    const log: string[] = [];
    const options = { metadata: { SECRET }, waitTimeoutMs: 10 };
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 2, overflow: 'shed', clock });
    const sessions = new SessionManager({ maxActive: 3, maxValueBytes: 64, clock });
    const resource = new SharedResource({ load: () => ({ SECRET }), clock });
    const streamer = new TokenStreamer({ clock });
    for (const emitter of [queue, sessions, resource, streamer]) hear(emitter, log);

    const calls = [
      queue.run(() => settle().then(() => SECRET), options),
      queue.run(() => SECRET, { ...options, priority: 5 }),
      queue.run(() => SECRET, options),
      queue.run(() => SECRET, { ...options, priority: 1 }),
      queue.run(() => SECRET, { ...options, signal: AbortSignal.abort('gone') }),
      sessions.run(() => settle().then(() => SECRET), { metadata: { note: SECRET } }),
      sessions.run(({ session }) => session.metadata.set('note', SECRET.repeat(9))),
      sessions.run(() => new Promise(() => {}), { metadata: { note: SECRET }, timeoutMs: 5 }),
      sessions.run(() => SECRET, { metadata: { note: SECRET } }),
      resource.run((context) => context.resource),
    ];
    const settled = Promise.allSettled(calls);
    const stream = streamer.stream([SECRET, SECRET]);
    for await (const token of stream.tokens()) expect(token).toBe(SECRET);
    await settle();
    await clock.advance(20);
    for (const outcome of await settled) {
      if (outcome.status === 'rejected') log.push(shown(outcome.reason));
    }
    log.push(shown(await stream.finished));
    for (const each of [queue, sessions, resource, streamer, stream]) {
      log.push(JSON.stringify(each.stats()));
    }
    log.push(JSON.stringify([...sessions.records()]));
    expect(log.length).toBeGreaterThan(20);
    expect(log.filter((line) => line.includes(SECRET))).toEqual([]);
  });

  it('of a ticket is kept as it is given, to be changed by whoever gave it (H155, H156)', () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const metadata = {
      attempts: 0,
      toJSON: () => {
        throw new Error('serialised');
      },
    };
    const ticket = queue.enqueue(() => new Promise(() => {}), { id: 'a', metadata });
    expect(ticket.metadata).toBe(metadata);
    metadata.attempts++;
    expect((queue.get('a')!.metadata as typeof metadata).attempts).toBe(1);
    expect(ticket.toJSON().metadata).toBe(metadata);
  });

  it('of a session is kept as it was when it was given (H156)', () => {
    const sessions = new SessionManager();
    const session = sessions.open({ metadata: { tags: ['a'] } });
    const tags = ['b'];
    session.metadata.set('tags', tags);
    tags.push('c');
    expect(session.metadata.get('tags')).toEqual(['b']);
  });
});

describe('an id', () => {
  it('that is generated cannot be foreseen from another, nor from Math.random (H159)', async () => {
    using random = vi.spyOn(Math, 'random').mockReturnValue(0.5);
    const queue = new AdmissionQueue({ concurrency: 1 });
    const sessions = new SessionManager();
    const ids = Array.from({ length: 5000 }, () => [
      queue.enqueue(() => {}).id,
      sessions.open().id,
    ]).flat();
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.every((id) => /^[\w-]{21}$/.test(id))).toBe(true);
    // At each place every letter comes up: no counter, no time.
    for (let place = 0; place < 21; place++) {
      expect(new Set(ids.map((id) => id[place])).size).toBe(64);
    }
    expect(random).not.toHaveBeenCalled();
    await queue.idle();
  });
});

describe('one key', () => {
  it('that floods has a limit of its own, and the others their turn (H153)', async () => {
    const clock = new ManualClock();
    const keyed = new Keyed(() => new Semaphore({ capacity: 1, maxWaiting: 1, clock }), {
      maxKeys: 10,
    });
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 10, clock });
    const call = (key: string): Promise<unknown> =>
      keyed
        .get(key)
        .run(() => queue.run(settle))
        .then(() => key, codeOf);
    const flood = Array.from({ length: 100 }, () => call('loud'));
    const others = ['a', 'b', 'c'].map(call);
    expect(await Promise.all(others)).toEqual(['a', 'b', 'c']);
    const outcomes = await Promise.all(flood);
    expect(outcomes.filter((outcome) => outcome === 'loud').length).toBe(2);
    expect(new Set(outcomes)).toEqual(new Set(['loud', 'ERR_QUEUE_FULL']));
  });
});

describe('a hostile name', () => {
  const NAMES = [
    '__proto__',
    'constructor',
    'hasOwnProperty',
    'toString',
    '',
    '0',
    '-0',
    '\0',
    '\uD800',
  ];
  const polluted = (): unknown[] => [
    ({} as { limit?: unknown }).limit,
    Object.keys(Object.prototype),
  ];

  it.each([...NAMES, 'a million letters'])(
    'is a name like any other, and pollutes nothing: %j (H150)',
    async (given) => {
      const name = given === 'a million letters' ? 'a'.repeat(1_000_000) : given;
      const clock = new ManualClock();
      const before = polluted();
      const own = <T>(value: T): Record<string, T> =>
        Object.defineProperty({}, name, { value, enumerable: true });

      const limiter = new RateLimiter<string>({ limits: own({ limit: 2 }), clock });
      const lease = limiter.tryAcquire(own(2))!;
      expect([limiter.available(name), limiter.tryAcquire()]).toEqual([0, undefined]);
      limiter.sync(own({ remaining: 0, resetMs: 5 }));
      limiter.configure(own({ limit: 3 }));
      expect(lease.settle(own(1))).toBe(true);
      expect(limiter.stats().limits).toMatchObject([{ name, limit: 3 }]);

      const sessions = new SessionManager({ generateId: () => name, logKeys: [name], clock });
      const session = sessions.open({ requestId: name, provider: name, model: name });
      if (name.length < 100) session.metadata.set(name, name);
      expect(sessions.get(name)).toBe(session);
      expect(() => sessions.open()).toThrow(/in use/);
      await session.end();
      expect([sessions.get(name), sessions.record(name)?.status]).toEqual([undefined, 'completed']);

      const queue = new AdmissionQueue({ concurrency: 1, clock });
      const ticket = queue.enqueue(settle, { id: name, key: name });
      expect([queue.position(name), queue.get(name)]).toEqual([0, ticket]);
      await ticket.result;
      expect([queue.position(name), queue.position(`${name}.`)]).toEqual([-1, -2]);

      const keyed = new Keyed(() => new Semaphore(1), { maxKeys: 2 });
      expect([keyed.has(name), keyed.get(name) === keyed.get(name)]).toEqual([false, true]);
      expect([[...keyed][0]![0], keyed.delete(name), keyed.size]).toEqual([name, true, 0]);
      expect(polluted()).toEqual(before);
    },
  );

  it('that is no text is refused (H150)', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const keyed = new Keyed(() => new Semaphore(1), { maxKeys: 2 });
    for (const name of [1, null, Symbol('a'), {}, ['a']] as never[]) {
      await expect(queue.run(() => {}, { id: name })).rejects.toThrow(TypeError);
      await expect(queue.run(() => {}, { key: name })).rejects.toThrow(TypeError);
      expect(() => new SessionManager({ generateId: () => name }).open()).toThrow(TypeError);
      expect(() => keyed.get(name)).toThrow(TypeError);
    }
    expect([queue.stats().refused, keyed.size]).toEqual([0, 0]);
  });
});

describe('stats()', () => {
  const SUBJECTS: Readonly<Record<string, { stats(): object }>> = {
    Semaphore: new Semaphore(2),
    AdmissionQueue: new AdmissionQueue({ concurrency: 2 }),
    RateLimiter: new RateLimiter({ limits: { a: { limit: 2 }, b: { limit: 3 } } }),
    SharedResource: new SharedResource({ load: () => 1 }),
    SessionManager: new SessionManager(),
    TokenStreamer: new TokenStreamer(),
    TokenStream: new TokenStreamer().stream(['a']),
  };

  /** Objects in objects, all of which anybody may write to. */
  function overwrite(stats: object): void {
    for (const [name, { value, get }] of Object.entries(Object.getOwnPropertyDescriptors(stats))) {
      expect(get).toBeUndefined();
      expect(typeof value).not.toBe('function');
      if (typeof value === 'object' && value !== null) overwrite(value as object);
      if (name !== 'length') Reflect.set(stats, name, 'overwritten');
    }
  }

  it.each(Object.entries(SUBJECTS))('of a %s is plain data of its own (H165)', (_, subject) => {
    const stats = subject.stats();
    expect(Object.getPrototypeOf(stats)).toBe(Object.prototype);
    // Only what is undefined is not in JSON.
    expect(JSON.parse(JSON.stringify(stats))).toEqual(JSON.parse(JSON.stringify({ ...stats })));
    const before = structuredClone(stats);
    overwrite(stats);
    expect(subject.stats()).toEqual(before);
    expect(subject.stats()).not.toBe(subject.stats());
  });
});
