import { describe, expect, it, vi } from 'vitest';

import * as errors from '../../src/errors.ts';
import { toHttpError, toResponse } from '../../src/http/index.ts';
import { ReadError } from '../../src/http/read-events.ts';
import { TokenStreamer } from '../../src/token-streamer.ts';

const JSON_HEADERS = {
  'content-type': 'application/json; charset=utf-8',
  'cache-control': 'no-store',
};

describe('toHttpError()', () => {
  it('knows every error of the library', () => {
    const made: Error[] = [
      new errors.ClosedError('The queue'),
      new errors.QueueFullError({ waiting: 1, maxWaiting: 1, retryAfterMs: 10 }),
      new errors.WaitTimeoutError(10),
      new errors.RunTimeoutError(10),
      new errors.ExceedsCapacityError(2, 1),
      new errors.RateLimitedError(10),
      new errors.DuplicateIdError('a'),
      new errors.SessionsFullError(1, 1),
      new errors.SessionTimeoutError('a', 10),
      new errors.MetadataTooLargeError('a', 2, 1),
      new errors.StreamTimeoutError('idle', 10),
      new errors.ShedError(10, 10),
      new errors.KeysFullError(1),
      new errors.LoadTimeoutError(10),
      new errors.LoadCancelledError(),
      new errors.ReplayExpiredError(),
    ];
    const statuses = Object.fromEntries(
      made.map((error) => [(error as errors.SluiceError).code, toHttpError(error)?.status]),
    );
    expect(statuses).toEqual({
      ERR_CLOSED: 503,
      ERR_QUEUE_FULL: 503,
      ERR_WAIT_TIMEOUT: 503,
      ERR_RUN_TIMEOUT: 504,
      ERR_EXCEEDS_CAPACITY: 413,
      ERR_RATE_LIMITED: 429,
      ERR_DUPLICATE_ID: 409,
      ERR_SESSIONS_FULL: 503,
      ERR_SESSION_TIMEOUT: 504,
      ERR_METADATA_TOO_LARGE: 413,
      ERR_STREAM_TIMEOUT: 504,
      ERR_SHED: 503,
      ERR_KEYS_FULL: 503,
      ERR_LOAD_TIMEOUT: 503,
      ERR_LOAD_CANCELLED: 503,
      ERR_REPLAY_EXPIRED: 410,
    });
  });

  it('knows no other', () => {
    for (const error of [
      new Error('x'),
      new errors.InvariantError('Q1'),
      undefined,
      null,
      'x',
      {},
    ]) {
      expect(toHttpError(error)).toBe(undefined);
    }
  });

  it('promises nothing sooner than it is so: whole seconds, rounded up (H256, H270)', () => {
    const after = (ms: number): unknown =>
      toHttpError(new errors.RateLimitedError(ms))!.headers['retry-after'];
    expect([0, 1, 1000, 1001, 59_999.5].map(after)).toEqual(['1', '1', '1', '2', '60']);
    expect([1e25, Infinity].map(after)).toEqual(['2147483648', '2147483648']);
  });

  it('has a body that JSON and a client can take', () => {
    const { headers, body } = toHttpError(new errors.RateLimitedError(1200.5, 'tokens', 300.5))!;
    expect(headers).toEqual({
      ...JSON_HEADERS,
      'retry-after': '2',
      ratelimit: '"tokens";r=0;t=2',
    });
    expect(body).toEqual({
      error: {
        code: 'ERR_RATE_LIMITED',
        message: 'Over the rate limit of tokens; try again in 1201 ms.',
        retryAfterMs: 1201,
        estimatedWaitMs: 301,
      },
    });
  });

  it('says nothing of times that the error does not tell', () => {
    expect(toHttpError(new errors.ClosedError('The queue'))).toEqual({
      status: 503,
      headers: JSON_HEADERS,
      body: { error: { code: 'ERR_CLOSED', message: 'The queue is closed.' } },
    });
  });

  it('tells how long the line was, and keeps rate-limit headers for rate limits', () => {
    const full = new errors.QueueFullError({
      waiting: 10,
      maxWaiting: 10,
      estimatedWaitMs: 41_234.5,
      retryAfterMs: 41_001,
    });
    expect(toHttpError(full)).toEqual({
      status: 503,
      headers: { ...JSON_HEADERS, 'retry-after': '42' },
      body: {
        error: {
          code: 'ERR_QUEUE_FULL',
          message: 'The line is full: 10 are waiting, at most 10 may.',
          retryAfterMs: 41_001,
          estimatedWaitMs: 41_235,
        },
      },
    });
  });

  it('knows the errors of a second copy of the library, which has other classes', async () => {
    vi.resetModules();
    const copy = await import('../../src/errors.ts');
    const full = new copy.QueueFullError({ waiting: 1, maxWaiting: 1, retryAfterMs: 1000 });
    expect(full).not.toBeInstanceOf(errors.SluiceError);
    expect(toHttpError(full)).toMatchObject({ status: 503, headers: { 'retry-after': '1' } });
    const later = Object.defineProperty(new copy.ClosedError('It'), 'code', { value: 'ERR_LATER' });
    expect(toHttpError(later)?.status).toBe(503);

    const gate = { run: () => Promise.reject(full) };
    const refused = await toResponse(new TokenStreamer().stream(['a'], { gate }));
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1']);
    const stream = new TokenStreamer().stream(['a'], {
      gate: { run: () => Promise.reject(new copy.WaitTimeoutError(1)) },
    });
    await expect(stream.tokens().next()).rejects.toMatchObject({ code: 'ERR_WAIT_TIMEOUT' });
    expect(await stream.finished).toMatchObject({ outcome: 'timeout' });
  });

  it('does not know an error by its code alone: what another server says is not ours', () => {
    const data = { code: 'ERR_QUEUE_FULL', status: 503 };
    expect(toHttpError(new ReadError('full', data))).toBeUndefined();
  });

  it('calls a limit without a name `default`', () => {
    const { headers } = toHttpError(new errors.RateLimitedError(1))!;
    expect(headers['ratelimit']).toBe('"default";r=0;t=1');
  });

  it('lets nothing out of the name of a limit that could start another header', () => {
    const { headers } = toHttpError(new errors.RateLimitedError(1, 'a"\r\nx: y\\ü'))!;
    expect(headers['ratelimit']).toBe(String.raw`"a\"??x: y\\?";r=0;t=1`);
    expect(() => new Headers(headers)).not.toThrow();
  });
});
