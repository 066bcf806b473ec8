import { describe, expect, it } from 'vitest';

import * as errors from '../src/errors.ts';
import { isOurs } from '../src/internal/ours.ts';

const { InvariantError, SluiceError, ...refusals } = errors;

/** One of each, with what its `data` should be. */
const samples: { make: () => errors.SluiceError; code: errors.ErrorCode; data: object }[] = [
  { make: () => new errors.ClosedError('The queue'), code: 'ERR_CLOSED', data: {} },
  {
    make: () => new errors.QueueFullError({ waiting: 3, maxWaiting: 3, retryAfterMs: 1000 }),
    code: 'ERR_QUEUE_FULL',
    data: { waiting: 3, maxWaiting: 3, estimatedWaitMs: undefined, retryAfterMs: 1000 },
  },
  {
    make: () =>
      new errors.QueueFullError({
        waiting: 3,
        maxWaiting: 3,
        estimatedWaitMs: 70,
        retryAfterMs: 80,
      }),
    code: 'ERR_QUEUE_FULL',
    data: { waiting: 3, maxWaiting: 3, estimatedWaitMs: 70, retryAfterMs: 80 },
  },
  {
    make: () => new errors.ShedError(50, 1000),
    code: 'ERR_SHED',
    data: { waitedMs: 50, retryAfterMs: 1000 },
  },
  { make: () => new errors.WaitTimeoutError(50), code: 'ERR_WAIT_TIMEOUT', data: { waitedMs: 50 } },
  { make: () => new errors.RunTimeoutError(50), code: 'ERR_RUN_TIMEOUT', data: { ranMs: 50 } },
  {
    make: () => new errors.ExceedsCapacityError(9, 5),
    code: 'ERR_EXCEEDS_CAPACITY',
    data: { requested: 9, capacity: 5 },
  },
  {
    make: () => new errors.RateLimitedError(12.5),
    code: 'ERR_RATE_LIMITED',
    data: { retryAfterMs: 12.5, estimatedWaitMs: 12.5, limit: undefined },
  },
  {
    make: () => new errors.RateLimitedError(12.5, 'tokens', 2.5),
    code: 'ERR_RATE_LIMITED',
    data: { retryAfterMs: 12.5, estimatedWaitMs: 2.5, limit: 'tokens' },
  },
  { make: () => new errors.DuplicateIdError('a'), code: 'ERR_DUPLICATE_ID', data: { id: 'a' } },
  {
    make: () => new errors.SessionsFullError(7, 7),
    code: 'ERR_SESSIONS_FULL',
    data: { active: 7, maxActive: 7 },
  },
  { make: () => new errors.KeysFullError(9), code: 'ERR_KEYS_FULL', data: { maxKeys: 9 } },
  {
    make: () => new errors.SessionTimeoutError('s', 30),
    code: 'ERR_SESSION_TIMEOUT',
    data: { id: 's', timeoutMs: 30 },
  },
  {
    make: () => new errors.MetadataTooLargeError('k', 20, 10),
    code: 'ERR_METADATA_TOO_LARGE',
    data: { key: 'k', bytes: 20, maxBytes: 10 },
  },
  {
    make: () => new errors.LoadTimeoutError(30),
    code: 'ERR_LOAD_TIMEOUT',
    data: { timeoutMs: 30 },
  },
  { make: () => new errors.LoadCancelledError(), code: 'ERR_LOAD_CANCELLED', data: {} },
  ...(['firstToken', 'idle', 'total', 'stall'] as const).map((phase) => ({
    make: () => new errors.StreamTimeoutError(phase, 30),
    code: 'ERR_STREAM_TIMEOUT' as const,
    data: { phase, timeoutMs: 30 },
  })),
  { make: () => new errors.ReplayExpiredError(), code: 'ERR_REPLAY_EXPIRED', data: {} },
];

describe('errors', () => {
  it('are all among the samples here', () => {
    const seen = new Set(samples.map(({ make }) => make().constructor));
    const missing = Object.values(refusals).filter((kind) => !seen.has(kind));
    expect(missing.filter((kind) => kind.prototype instanceof Error)).toEqual([]);
  });

  it('have one code each, and no code belongs to two', () => {
    const codes = new Map(samples.map(({ make, code }) => [code, make().constructor]));
    expect(codes.size).toBe(new Set(samples.map(({ make }) => make().constructor)).size);
  });

  it.each(samples)('carry their code and their data: $code', ({ make, code, data }) => {
    const error = make();
    expect(error).toBeInstanceOf(SluiceError);
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe(error.constructor.name);
    expect(error.code).toBe(code);
    expect(Object.fromEntries(Object.entries(error))).toEqual({ name: error.name, code, ...data });
    expect(error.cause).toBeUndefined();
  });

  it.each(samples)('say that they are of this library: $code', ({ make }) => {
    expect(isOurs(make())).toBe(true);
  });

  it('are told from what throws when it is looked at', () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    for (const other of [proxy, undefined, null, 5, 'ERR_CLOSED', { code: 'ERR_CLOSED' }]) {
      expect(isOurs(other)).toBe(false);
    }
  });

  it.each(samples)('show in the stack by name and say what happened: $code', ({ make }) => {
    const error = make();
    expect(error.stack?.split('\n')[0]).toBe(`${error.name}: ${error.message}`);
    expect(error.message).toMatch(/^\S.*\.$/);
    expect(error.message).not.toMatch(/undefined|NaN|\[object/);
    expect(String(error)).toBe(`${error.name}: ${error.message}`);
  });

  it('say in plain words what has happened', () => {
    expect(samples.map(({ make }) => make().message)).toEqual([
      'The queue is closed.',
      'The line is full: 3 are waiting, at most 3 may.',
      'The line is full: 3 are waiting, at most 3 may.',
      'Gave way to a more urgent caller after 50 ms in line.',
      'Waited 50 ms without a turn.',
      'The task ran 50 ms, longer than it may.',
      'Asked for 9 at once, but there are never more than 5.',
      'Over the rate limit; try again in 13 ms.',
      'Over the rate limit of tokens; try again in 13 ms.',
      'The id "a" is in use.',
      '7 sessions are open, at most 7 may be.',
      'All of 9 keys are in use.',
      'The session was not finished within 30 ms.',
      'Metadata "k" would take 20 bytes of at most 10.',
      'The shared resource was not loaded within 30 ms.',
      'The load of the shared resource was cancelled.',
      'The stream was ended: no first token within 30 ms.',
      'The stream was ended: no further token within 30 ms.',
      'The stream was ended: not finished within 30 ms.',
      'The stream was ended: nothing read by the consumer within 30 ms.',
      'What the client has not seen of the stream is no longer there.',
    ]);
    expect(new InvariantError('S3').message).toBe('S3 does not hold. This is a bug in sluice.');
  });

  it('round times in their messages, and nowhere else', () => {
    const error = new errors.WaitTimeoutError(1234.5678);
    expect(error.message).toBe('Waited 1235 ms without a turn.');
    expect(error.waitedMs).toBe(1234.5678);
    expect(new errors.RateLimitedError(0.2).message).toContain('in 1 ms');
  });

  it('show what a user chose escaped and cut (H021, H157)', () => {
    const hostile = `\u001B[2J\n\u009B${'x'.repeat(1000)}`;
    for (const error of [
      new errors.DuplicateIdError(hostile),
      new errors.MetadataTooLargeError(hostile, 2, 1),
    ]) {
      expect(error.message).not.toMatch(/\p{Cc}/u);
      expect(error.message.length).toBeLessThan(200);
    }
    expect(new errors.DuplicateIdError(hostile).id).toBe(hostile);
    // A session's id may be a secret of its user.
    expect(new errors.SessionTimeoutError('secret', 5).message).not.toContain('secret');
  });

  it('are told apart by `code` in TypeScript too', () => {
    const retryAfterMs = (error: errors.QueueFullError | errors.ClosedError): number =>
      error.code === 'ERR_QUEUE_FULL' ? error.retryAfterMs : 0;
    expect(samples.slice(0, 2).map(({ make }) => retryAfterMs(make() as never))).toEqual([0, 1000]);
  });

  it('count a bug of the library as none of them', () => {
    const error = new InvariantError('S3');
    expect(error).not.toBeInstanceOf(SluiceError);
    expect(error).toMatchObject({ name: 'InvariantError', code: 'ERR_INVARIANT', invariant: 'S3' });
    expect(error.message).toContain('S3');
  });
});
