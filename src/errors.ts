import { ours } from './internal/ours.ts';
import { quote } from './internal/quote.ts';

/** Every `code` of an error that this library rejects with. Match on it rather than on classes. */
export type ErrorCode =
  | 'ERR_CLOSED'
  | 'ERR_QUEUE_FULL'
  | 'ERR_SHED'
  | 'ERR_WAIT_TIMEOUT'
  | 'ERR_RUN_TIMEOUT'
  | 'ERR_EXCEEDS_CAPACITY'
  | 'ERR_RATE_LIMITED'
  | 'ERR_DUPLICATE_ID'
  | 'ERR_SESSIONS_FULL'
  | 'ERR_SESSION_TIMEOUT'
  | 'ERR_METADATA_TOO_LARGE'
  | 'ERR_LOAD_TIMEOUT'
  | 'ERR_LOAD_CANCELLED'
  | 'ERR_KEYS_FULL'
  | 'ERR_STREAM_TIMEOUT'
  | 'ERR_REPLAY_EXPIRED';

/**
 * What every refusal of the library extends: an expected outcome of operation, not a bug. Each
 * rejection gets an instance of its own. Aborts are not among them: they reject with the signal's
 * own `reason`. A caller's mistake is a `TypeError` or a `RangeError`.
 */
export abstract class SluiceError extends Error {
  abstract readonly code: ErrorCode;

  /** @internal */
  get [ours](): true {
    return true;
  }
}

/** The primitive was closed: it takes no new work, or this caller was still waiting when it closed. */
export class ClosedError extends SluiceError {
  override readonly name = 'ClosedError';
  readonly code = 'ERR_CLOSED';

  constructor(what: string) {
    super(`${what} is closed.`);
  }
}

/** Nobody more can wait: the line holds `maxWaiting` already. */
export class QueueFullError extends SluiceError {
  override readonly name = 'QueueFullError';
  readonly code = 'ERR_QUEUE_FULL';
  readonly waiting: number;
  readonly maxWaiting: number;
  /** How long the refused caller would have waited, in ms, where there is an estimate. */
  readonly estimatedWaitMs: number | undefined;
  /** When to try again, in ms from the refusal; a guess where there is no estimate yet. */
  readonly retryAfterMs: number;

  constructor(data: {
    waiting: number;
    maxWaiting: number;
    estimatedWaitMs?: number | undefined;
    retryAfterMs: number;
  }) {
    super(`The line is full: ${data.waiting} are waiting, at most ${data.maxWaiting} may.`);
    this.waiting = data.waiting;
    this.maxWaiting = data.maxWaiting;
    this.estimatedWaitMs = data.estimatedWaitMs;
    this.retryAfterMs = data.retryAfterMs;
  }
}

/** Had a place in line and lost it to somebody more urgent when the line was full. */
export class ShedError extends SluiceError {
  override readonly name = 'ShedError';
  readonly code = 'ERR_SHED';
  readonly waitedMs: number;
  /** When to try again, in ms from now. */
  readonly retryAfterMs: number;

  constructor(waitedMs: number, retryAfterMs: number) {
    super(`Gave way to a more urgent caller after ${Math.round(waitedMs)} ms in line.`);
    this.waitedMs = waitedMs;
    this.retryAfterMs = retryAfterMs;
  }
}

/** This caller's own limit on waiting ran out before its turn came. */
export class WaitTimeoutError extends SluiceError {
  override readonly name = 'WaitTimeoutError';
  readonly code = 'ERR_WAIT_TIMEOUT';
  readonly waitedMs: number;

  constructor(waitedMs: number) {
    super(`Waited ${Math.round(waitedMs)} ms without a turn.`);
    this.waitedMs = waitedMs;
  }
}

/** The task ran longer than `runTimeoutMs`. Its signal was aborted with this error. */
export class RunTimeoutError extends SluiceError {
  override readonly name = 'RunTimeoutError';
  readonly code = 'ERR_RUN_TIMEOUT';
  readonly ranMs: number;

  constructor(ranMs: number) {
    super(`The task ran ${Math.round(ranMs)} ms, longer than it may.`);
    this.ranMs = ranMs;
  }
}

/** More was asked for at once than there can ever be, so that waiting would never end. */
export class ExceedsCapacityError extends SluiceError {
  override readonly name = 'ExceedsCapacityError';
  readonly code = 'ERR_EXCEEDS_CAPACITY';
  readonly requested: number;
  readonly capacity: number;

  constructor(requested: number, capacity: number) {
    super(`Asked for ${requested} at once, but there are never more than ${capacity}.`);
    this.requested = requested;
    this.capacity = capacity;
  }
}

/** The rate limit does not allow it within the time that the caller is ready to wait. */
export class RateLimitedError extends SluiceError {
  override readonly name = 'RateLimitedError';
  readonly code = 'ERR_RATE_LIMITED';
  /** When the same request would be granted if it came back then, in ms from the refusal. */
  readonly retryAfterMs: number;
  /**
   * How long it would have waited in line, in ms: less than `retryAfterMs` where it is more urgent
   * than somebody there, who would be served before it comes back.
   */
  readonly estimatedWaitMs: number;
  /** Which of the named limits was short, where there are several. */
  readonly limit: string | undefined;

  constructor(retryAfterMs: number, limit?: string, estimatedWaitMs: number = retryAfterMs) {
    super(
      limit === undefined
        ? `Over the rate limit; try again in ${Math.ceil(retryAfterMs)} ms.`
        : `Over the rate limit of ${limit}; try again in ${Math.ceil(retryAfterMs)} ms.`,
    );
    this.retryAfterMs = retryAfterMs;
    this.estimatedWaitMs = estimatedWaitMs;
    this.limit = limit;
  }
}

/** The id belongs to a ticket or a session that has not finished. */
export class DuplicateIdError extends SluiceError {
  override readonly name = 'DuplicateIdError';
  readonly code = 'ERR_DUPLICATE_ID';
  readonly id: string;

  constructor(id: string) {
    super(`The id ${quote(id)} is in use.`);
    this.id = id;
  }
}

/** `maxActive` sessions are open already. */
export class SessionsFullError extends SluiceError {
  override readonly name = 'SessionsFullError';
  readonly code = 'ERR_SESSIONS_FULL';
  readonly active: number;
  readonly maxActive: number;

  constructor(active: number, maxActive: number) {
    super(`${active} sessions are open, at most ${maxActive} may be.`);
    this.active = active;
    this.maxActive = maxActive;
  }
}

/** The session was not finished within its time. Its signal was aborted with this error. */
export class SessionTimeoutError extends SluiceError {
  override readonly name = 'SessionTimeoutError';
  readonly code = 'ERR_SESSION_TIMEOUT';
  readonly id: string;
  readonly timeoutMs: number;

  constructor(id: string, timeoutMs: number) {
    super(`The session was not finished within ${timeoutMs} ms.`);
    this.id = id;
    this.timeoutMs = timeoutMs;
  }
}

/** A metadata value, or all of them together, would be larger than allowed. Nothing was stored. */
export class MetadataTooLargeError extends SluiceError {
  override readonly name = 'MetadataTooLargeError';
  readonly code = 'ERR_METADATA_TOO_LARGE';
  readonly key: string;
  /** What it would have taken, in UTF-8 bytes. */
  readonly bytes: number;
  readonly maxBytes: number;

  constructor(key: string, bytes: number, maxBytes: number) {
    super(`Metadata ${quote(key)} would take ${bytes} bytes of at most ${maxBytes}.`);
    this.key = key;
    this.bytes = bytes;
    this.maxBytes = maxBytes;
  }
}

/** The shared resource was not loaded within its time. The signal of its load was aborted with it. */
export class LoadTimeoutError extends SluiceError {
  override readonly name = 'LoadTimeoutError';
  readonly code = 'ERR_LOAD_TIMEOUT';
  readonly timeoutMs: number;

  constructor(timeoutMs: number) {
    super(`The shared resource was not loaded within ${timeoutMs} ms.`);
    this.timeoutMs = timeoutMs;
  }
}

/** The load of the shared resource that this caller waited for was cancelled. */
export class LoadCancelledError extends SluiceError {
  override readonly name = 'LoadCancelledError';
  readonly code = 'ERR_LOAD_CANCELLED';

  constructor() {
    super('The load of the shared resource was cancelled.');
  }
}

/** `maxKeys` instances are there already, and none of them that was looked at can be forgotten. */
export class KeysFullError extends SluiceError {
  override readonly name = 'KeysFullError';
  readonly code = 'ERR_KEYS_FULL';
  readonly maxKeys: number;

  constructor(maxKeys: number) {
    super(`All of ${maxKeys} keys are in use.`);
    this.maxKeys = maxKeys;
  }
}

/** A stream was ended because something took too long; `phase` says what. */
export class StreamTimeoutError extends SluiceError {
  override readonly name = 'StreamTimeoutError';
  readonly code = 'ERR_STREAM_TIMEOUT';
  readonly phase: 'firstToken' | 'idle' | 'total' | 'stall';
  readonly timeoutMs: number;

  constructor(phase: 'firstToken' | 'idle' | 'total' | 'stall', timeoutMs: number) {
    const what = {
      firstToken: 'no first token',
      idle: 'no further token',
      total: 'not finished',
      stall: 'nothing read by the consumer',
    }[phase];
    super(`The stream was ended: ${what} within ${timeoutMs} ms.`);
    this.phase = phase;
    this.timeoutMs = timeoutMs;
  }
}

/** The client asks for events of a stream that are no longer kept, or that never were. */
export class ReplayExpiredError extends SluiceError {
  override readonly name = 'ReplayExpiredError';
  readonly code = 'ERR_REPLAY_EXPIRED';

  constructor() {
    super('What the client has not seen of the stream is no longer there.');
  }
}

/** A promise of the library itself was broken: a bug in it. `invariant` is the promise's id. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
  readonly code = 'ERR_INVARIANT';
  readonly invariant: string;

  constructor(invariant: string) {
    super(`${invariant} does not hold. This is a bug in sluice.`);
    this.invariant = invariant;
  }
}
