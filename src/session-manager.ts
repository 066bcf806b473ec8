import { nanoid } from 'nanoid';

import type { Clock } from './clock.ts';
import {
  ClosedError,
  DuplicateIdError,
  MetadataTooLargeError,
  SessionsFullError,
} from './errors.ts';
import type { Gate } from './gate.ts';
import { AbortWatch } from './internal/abort.ts';
import {
  abortSignal,
  callable,
  integerWithin,
  list,
  msOrInfinity,
  positiveInteger,
  positiveMs,
  readOptions,
  text,
  withMethods,
} from './internal/assert.ts';
import { Awaiters } from './internal/awaiters.ts';
import { ContextValue } from './internal/context.ts';
import { Deadlines } from './internal/deadlines.ts';
import { deliver, Emitter, heard, post } from './internal/emitter.ts';
import type { JsonValue } from './internal/metadata.ts';
import { optionNames } from './internal/options.ts';
import {
  type CleanupFailure,
  type Due,
  type LiveSession,
  OpenedSession,
  type OpenSession,
  type Session,
  type SessionContext,
  type SessionHost,
  TaskSession,
} from './internal/session.ts';
import { SessionLog, type SessionRecord, type SessionStatus } from './internal/session-log.ts';
import { type Summary, Tally } from './internal/tally.ts';
import { Time } from './internal/time.ts';

export type { JsonValue, SessionMetadata } from './internal/metadata.ts';
export type { MarkablePhase, OpenSession, Session, SessionContext } from './internal/session.ts';
export type {
  SessionPhase,
  SessionPhases,
  SessionRecord,
  SessionStatus,
} from './internal/session-log.ts';

/** How many sessions there may be, how long each may take, what is kept and told of them. */
export interface SessionManagerOptions {
  /** How many sessions there may be at once; one more is `ERR_SESSIONS_FULL`. Default Infinity. */
  readonly maxActive?: number | undefined;
  /** How long a session may take, in ms, from its beginning to its answer. Default 30 000. */
  readonly timeoutMs?: number | undefined;
  /** The same for one session, by its provider and model for instance; undefined is the default. */
  readonly timeoutFor?: ((session: Session) => number | undefined) | undefined;
  /**
   * How long a task that was asked to stop is waited for, in ms. After it the clean-ups run and the
   * session ends although the task may still run: `overrun`. Default Infinity.
   */
  readonly graceMs?: number | undefined;
  /** How long each clean-up is waited for, in ms. Default 5000. */
  readonly cleanupTimeoutMs?: number | undefined;
  /** The limit on all metadata of one session, keys and values, in UTF-8 bytes. Default 32 768. */
  readonly maxMetadataBytes?: number | undefined;
  /** The limit on one value in UTF-8 bytes. Default 8192. */
  readonly maxValueBytes?: number | undefined;
  /** The metadata keys whose values records may show. Default none. */
  readonly logKeys?: readonly string[] | undefined;
  /** How many ended sessions are remembered by their records. Default 1000. */
  readonly history?: number | undefined;
  /** Makes the id of each session. Default `nanoid`. */
  readonly generateId?: (() => string) | undefined;
  readonly clock?: Clock | undefined;
}

/** Who a session is for, and what ends it. */
export interface SessionOptions {
  /** Whom the request goes to, and which model it asks for: for `timeoutFor` and records. */
  readonly provider?: string | undefined;
  readonly model?: string | undefined;
  /** The caller's own name for the request, such as an `X-Request-Id`. */
  readonly requestId?: string | undefined;
  /** The first metadata. */
  readonly metadata?: { readonly [key: string]: JsonValue } | undefined;
  /** Instead of what `timeoutFor` or the manager's `timeoutMs` say. In ms; Infinity is no limit. */
  readonly timeoutMs?: number | undefined;
  /** Ends the session, which rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
}

/** How much time a shutdown takes for each of its two parts. */
export interface ShutdownOptions {
  /** How long sessions may go on by themselves, in ms. Default 30 000; Infinity is no limit. */
  readonly drainMs?: number | undefined;
  /** How long those that were aborted after it are waited for, in ms. Default 5000. */
  readonly forceMs?: number | undefined;
}

/** What has become of the sessions that were active when a shutdown began. */
export interface ShutdownReport {
  /** How many of the sessions at the time of the call ended by themselves. */
  readonly finished: number;
  /** How many ended after they had been aborted. */
  readonly aborted: number;
  /** What is still there: tasks that do not react to their signal, or clean-ups that take long. */
  readonly stuck: readonly SessionRecord[];
  readonly elapsedMs: number;
}

/** A gauge now, and counters since construction. */
export interface SessionManagerStats {
  readonly active: number;
  readonly closed: boolean;
  /** How many sessions began, ended as what, … since construction. */
  readonly started: number;
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
  readonly timedOut: number;
  readonly refused: number;
  readonly overrun: number;
  readonly cleanupFailed: number;
  /** How long the ended sessions took, in ms. */
  readonly elapsedMs: Summary;
}

/** Who has begun. */
export interface SessionStartedEvent {
  readonly id: string;
  readonly requestId: string | undefined;
  readonly provider: string | undefined;
  readonly model: string | undefined;
  readonly active: number;
}
/** The whole record of a session. */
export interface SessionEndedEvent {
  readonly session: SessionRecord;
  readonly active: number;
}
/** A session that did not begin has no id. */
export interface SessionRefusedEvent {
  /** The `code` of the error, or undefined where the caller's signal was aborted already. */
  readonly code: string | undefined;
  readonly active: number;
}
/** `ranMs`: from the beginning of the session. */
export interface SessionOverrunEvent {
  readonly id: string;
  /** How long ago it began. */
  readonly ranMs: number;
}
/** Which session, and what its clean-up failed of. */
export interface SessionCleanupFailedEvent {
  readonly id: string;
  /** What the clean-up threw or rejected with; undefined where it took too long. */
  readonly error: unknown;
  readonly timedOut: boolean;
}

/** Each session: `started` and one end, or `refused` alone. */
export interface SessionEvents {
  started: SessionStartedEvent;
  /** Exactly one of these four for each session that started, when everything about it is over. */
  completed: SessionEndedEvent;
  failed: SessionEndedEvent;
  cancelled: SessionEndedEvent;
  timedOut: SessionEndedEvent;
  /** Did not begin. */
  refused: SessionRefusedEvent;
  /** A task that had not settled within `graceMs` was not waited for any longer. */
  overrun: SessionOverrunEvent;
  cleanupFailed: SessionCleanupFailedEvent;
  /** The last session ended. */
  idle: { readonly active: 0 };
  /** A shutdown is through. Only sessions that it reported as stuck can be heard of after it. */
  closed: ShutdownReport;
}

/** What is of interest in the events of a gate. */
interface GateEvent {
  readonly id?: unknown;
  readonly waitedMs?: number;
}

/** An `AdmissionQueue`, `RateLimiter` or `Semaphore`, or anything with their events. */
export interface ObservableGate {
  /** Subscribes to an event of the gate, as `AdmissionQueue` and the others do. */
  on(name: string, listener: (event: object) => void): unknown;
  /** Takes the listener off again. */
  off(name: string, listener: (event: object) => void): unknown;
}

const OPTIONS = new Set([
  'maxActive',
  'timeoutMs',
  'timeoutFor',
  'graceMs',
  'cleanupTimeoutMs',
  'maxMetadataBytes',
  'maxValueBytes',
  'logKeys',
  'history',
  'generateId',
  'clock',
]);
const SESSION_OPTIONS = new Set([
  'provider',
  'model',
  'requestId',
  'metadata',
  'timeoutMs',
  'signal',
]);
const SHUTDOWN_OPTIONS = new Set(['drainMs', 'forceMs']);
/** Own properties all of them: what is missing would be looked for in `Object.prototype`. */
const NO_OPTIONS: SessionOptions = {
  provider: undefined,
  model: undefined,
  requestId: undefined,
  metadata: undefined,
  timeoutMs: undefined,
  signal: undefined,
};

/**
 * Gives each request a session of its own: an id, a time limit, a signal, metadata that no other
 * request can see, clean-ups, and a record of when it went through which phase.
 *
 * The session is found with `current()` from everywhere that its task leads to: behind awaits, in
 * timers, in tasks that waited in a queue. A session ends once, in one way: its task settles, its
 * time runs out, its caller's signal is aborted or the manager is shut down. In the last three cases
 * the caller is answered and the session's signal aborted at once; the session counts as active
 * until its task has settled and its clean-ups are through, for only then nothing of it is left.
 *
 * Everything is O(1) per session; its timeout, O(log active). The limits hold within one process.
 *
 * @example
 * ```ts
 * const sessions = new SessionManager({ timeoutFor: ({ model }) => (model === 'large' ? 120_000 : 30_000) });
 * const { result, session } = await sessions.execute(({ signal }) => callModel(prompt, { signal }), {
 *   model: 'large',
 * });
 * log({ ...session });
 * ```
 *
 * - M1  A session ends exactly once, with one status. Its clean-ups run once, the last one first, one
 *     at a time and each for a bounded time, whatever becomes of the others.
 * - M2  No session sees the metadata of another, and `current()` is the session whose task led there.
 * - M3  Of a session that has ended, its record is kept while it is among the last `history`, and
 *     nothing else: no timer, listener, metadata or result.
 */
export class SessionManager
  extends Emitter<SessionEvents>
  implements Gate<SessionContext, SessionOptions>, AsyncDisposable
{
  /** @internal */
  readonly [optionNames]: ReadonlySet<string> = SESSION_OPTIONS;

  readonly #maxActive: number;
  readonly #timeoutMs: number;
  readonly #timeoutFor: ((session: Session) => number | undefined) | undefined;
  readonly #generateId: () => string;

  readonly #context = new ContextValue<LiveSession>();
  readonly #live = new Map<string, LiveSession>();
  readonly #history: number;
  /** A ring of the last `history` that ended. Not a map: far more sessions end than are asked for. */
  readonly #past: SessionLog[] = [];
  #nextPast = 0;
  readonly #time: Time;
  readonly #deadlines: Deadlines<Due>;
  readonly #signals: AbortWatch<LiveSession>;
  readonly #host: SessionHost;
  readonly #emptied = new Awaiters();
  #closed = false;
  #shutdown: Promise<ShutdownReport> | undefined;

  #started = 0;
  readonly #endedAs = { completed: 0, failed: 0, cancelled: 0, timedOut: 0 };
  #refused = 0;
  #overrun = 0;
  #cleanupFailed = 0;
  readonly #elapsedMs = new Tally();

  /** Throws a `TypeError` or a `RangeError` that names a bad option. */
  constructor(options?: SessionManagerOptions) {
    super();
    const given = readOptions('SessionManager', options, OPTIONS);
    const { maxActive = Infinity, timeoutMs = 30_000, timeoutFor } = given;
    const { graceMs = Infinity, cleanupTimeoutMs = 5000, generateId = nanoid } = given;
    const { maxMetadataBytes = 32_768, maxValueBytes = 8192, logKeys = [], history = 1000 } = given;
    this.#maxActive = maxActive === Infinity ? Infinity : positiveInteger('maxActive', maxActive);
    this.#timeoutMs = msOrInfinity('timeoutMs', timeoutMs);
    this.#timeoutFor = timeoutFor === undefined ? undefined : callable('timeoutFor', timeoutFor);
    this.#generateId = callable('generateId', generateId);
    this.#history = integerWithin('history', history, 0, Number.MAX_SAFE_INTEGER);
    this.#time = new Time(given.clock);
    this.#deadlines = new Deadlines(this.#time, (due, now) => {
      for (const subject of due) subject.due(now);
      deliver(this);
    });
    this.#signals = new AbortWatch((sessions, reason) => {
      for (const session of sessions) session.stop('cancelled', reason);
      deliver(this);
    });
    this.#host = {
      time: this.#time,
      signals: this.#signals,
      deadlines: this.#deadlines,
      limits: {
        maxMetadataBytes: positiveInteger('maxMetadataBytes', maxMetadataBytes),
        maxValueBytes: positiveInteger('maxValueBytes', maxValueBytes),
      },
      logKeys: [...new Set(list('logKeys', logKeys).map((key) => text('logKeys', key)))],
      graceMs: msOrInfinity('graceMs', graceMs),
      cleanupTimeoutMs: positiveMs('cleanupTimeoutMs', cleanupTimeoutMs),
      enter: (session, fn) => this.#context.run(session, fn),
      cleanupFailed: (session, failure) => this.#failedToCleanUp(session, failure),
      overrun: (session) => this.#outran(session),
      ended: (session, now) => this.#ended(session, now),
      deliver: () => deliver(this),
    };
  }

  /** How many sessions have begun and not ended. */
  get active(): number {
    return this.#live.size;
  }

  /**
   * Calls `task` at once, within a session that lasts until what the task returns has settled, and
   * settles as it does when the clean-ups are through. Rejects with `ERR_CLOSED` (a shutdown has
   * begun), `ERR_SESSIONS_FULL`, `ERR_METADATA_TOO_LARGE`, `ERR_DUPLICATE_ID` (from `generateId`) or
   * an aborted `signal`'s reason without calling it; with `ERR_SESSION_TIMEOUT`, the `signal`'s
   * reason, or `ERR_CLOSED` at the forced end of a shutdown while the task may still run.
   */
  run<T>(
    task: (context: SessionContext) => T | PromiseLike<T>,
    options?: SessionOptions,
  ): Promise<T> {
    return this.#run('run', task, options);
  }

  /** As `run`, but resolves to the result together with the session's record. */
  async execute<T>(
    task: (context: SessionContext) => T | PromiseLike<T>,
    options?: SessionOptions,
  ): Promise<{ result: T; session: SessionRecord }> {
    callable('task', task);
    let session: Session | undefined;
    const sessionTask = (context: SessionContext): T | PromiseLike<T> => {
      ({ session } = context);
      return task(context);
    };
    const result = await this.#run('execute', sessionTask, options);
    return { result, session: session!.toJSON() };
  }

  /**
   * Begins a session that lasts until it is ended by hand or by the end of an `await using` block,
   * or by its timeout or signal. It is `current()` only in what is called by its `enter`. Throws
   * what `run` rejects with.
   */
  open(options?: SessionOptions): OpenSession {
    try {
      return this.#admit(OpenedSession, 'open', options);
    } finally {
      deliver(this);
    }
  }

  /** The session that the running code belongs to, unless it has ended. */
  current(): Session | undefined {
    return this.#here();
  }

  /** The session with that id, unless it has ended. */
  get(id: string): Session | undefined {
    return this.#live.get(id);
  }

  /** The record of a session that is active or among the last `history`. O(history). */
  record(id: string): SessionRecord | undefined {
    const live = this.#live.get(id);
    if (live !== undefined) return live.toJSON();
    for (const log of this.#latest()) if (log.id === id) return log.record(this.#time.now());
    return undefined;
  }

  /** The records of the last `history` sessions that have ended, the latest first. */
  *records(): IterableIterator<SessionRecord> {
    // Sessions may end while somebody goes through them.
    const logs = Array.from(this.#latest());
    for (const log of logs) yield log.record(this.#time.now());
  }

  /**
   * Marks the phases of the sessions that go through `gate`, from its events, until the returned
   * function is called: `queued` when a session begins to wait there, `dequeued` and `allocated`
   * when it is let in, `callEnd` and `released` when it gives its place back. Observe a gate before
   * its first use. What a listener of the gate's own events calls is taken to belong to the session
   * that the listener was called in.
   */
  observe(gate: ObservableGate): () => void {
    withMethods('gate', gate, 'on', 'off');
    const waiting = new Map<unknown, LiveSession | undefined>();
    const holding = new Map<unknown, LiveSession>();
    const queued = ({ id }: GateEvent): void => {
      const session = this.#here();
      waiting.set(id, session);
      session?.log.queued(this.#time.now());
    };
    const granted = ({ id, waitedMs = 0 }: GateEvent, holds: boolean): void => {
      const waited = waiting.has(id);
      // Who did not wait is let in by the call itself; who did, by somebody else's.
      const session = waited ? waiting.get(id) : waitedMs > 0 ? undefined : this.#here();
      waiting.delete(id);
      if (session === undefined) return;
      session.log.granted(this.#time.now(), waited, holds);
      if (holds) holding.set(id, session);
    };
    // Of one that runs, the caller was answered: when its place is given back, no event tells.
    const left = ({ id }: GateEvent): void => {
      waiting.get(id)?.log.left();
      waiting.delete(id);
      holding.delete(id);
    };
    const over = (event: GateEvent): void => {
      const session = holding.get(event.id);
      left(event);
      session?.log.released(this.#time.now());
    };
    const refused = (): void => this.#here()?.log.refused();
    // Said of who comes, and of who waits and is turned away.
    const limited = (event: GateEvent): void => (waiting.has(event.id) ? left(event) : refused());
    const listeners: readonly [name: string, listener: (event: GateEvent) => void][] = [
      ['queued', queued],
      ['started', (event) => granted(event, true)],
      ['acquired', (event) => granted(event, true)],
      ['granted', (event) => granted(event, false)],
      ['completed', over],
      ['failed', over],
      ['cancelled', left],
      ['timedOut', left],
      ['shed', left],
      ['released', over],
      ['refused', refused],
      ['limited', limited],
    ];
    for (const [name, listener] of listeners) gate.on(name, listener);
    return () => {
      for (const [name, listener] of listeners) gate.off(name, listener);
      for (const session of waiting.values()) session?.log.left();
      waiting.clear();
      holding.clear();
    };
  }

  /**
   * Refuses new sessions from now on, lets the active ones go on for `drainMs`, aborts those that
   * are left, gives them `forceMs` and reports. Never rejects but for bad options. Only the first
   * call does anything; every call gets the same report. Listens to no signal of the process and
   * does not end it.
   */
  async shutdown(options?: ShutdownOptions): Promise<ShutdownReport> {
    const given = readOptions('shutdown', options, SHUTDOWN_OPTIONS);
    const { drainMs = 30_000, forceMs = 5000 } = given;
    msOrInfinity('drainMs', drainMs);
    msOrInfinity('forceMs', forceMs);
    this.#closed = true;
    if (this.#shutdown === undefined) {
      const { promise, resolve } = Promise.withResolvers<ShutdownReport>();
      // Before it begins: a session that is aborted may ask for it, too.
      this.#shutdown = promise;
      resolve(this.#shutDown(drainMs, forceMs));
    }
    return this.#shutdown;
  }

  /** The same as `shutdown`, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  /** A snapshot: gauges now, counters since construction. O(1). */
  stats(): SessionManagerStats {
    return {
      active: this.active,
      closed: this.#closed,
      started: this.#started,
      ...this.#endedAs,
      refused: this.#refused,
      overrun: this.#overrun,
      cleanupFailed: this.#cleanupFailed,
      elapsedMs: this.#elapsedMs.summary(),
    };
  }

  #here(): LiveSession | undefined {
    const session = this.#context.get();
    return session === undefined || session.ended ? undefined : session;
  }

  *#latest(): IterableIterator<SessionLog> {
    const { length } = this.#past;
    for (let i = 1; i <= length; i++) yield this.#past[(this.#nextPast - i + length) % length]!;
  }

  #run<T>(
    where: string,
    task: (context: SessionContext) => T | PromiseLike<T>,
    options: SessionOptions | undefined,
  ): Promise<T> {
    try {
      callable('task', task);
      return this.#admit(TaskSession, where, options).run(task);
    } catch (error) {
      return Promise.reject(error);
    } finally {
      deliver(this);
    }
  }

  /** A session that has begun; throws where there may be none. */
  #admit<S extends LiveSession>(
    Kind: new (host: SessionHost, log: SessionLog) => S,
    where: string,
    options: SessionOptions | undefined,
  ): S {
    const given = options === undefined ? NO_OPTIONS : readOptions(where, options, SESSION_OPTIONS);
    const { signal } = given;
    if (signal !== undefined) abortSignal('signal', signal);
    const id = text('generateId()', this.#generateId());
    const log = new SessionLog(
      id,
      optionalText('requestId', given.requestId),
      optionalText('provider', given.provider),
      optionalText('model', given.model),
      this.#time.read(),
      (Kind as unknown) === TaskSession,
    );
    const session = new Kind(this.#host, log);
    if (given.metadata !== undefined) {
      const metadata = readOptions('metadata', given.metadata, undefined);
      try {
        for (const [key, value] of Object.entries(metadata)) session.metadata.set(key, value);
      } catch (error) {
        throw error instanceof MetadataTooLargeError ? this.#refuse(error) : error;
      }
    }
    const { timeoutMs = this.#timeoutFor?.(session) ?? this.#timeoutMs } = given;
    const limitMs = msOrInfinity('timeoutMs', timeoutMs);

    if (this.#closed) throw this.#refuse(new ClosedError('The session manager'));
    if (signal?.aborted === true) {
      this.#refuse(undefined);
      throw signal.reason;
    }
    if (this.#live.size >= this.#maxActive) {
      throw this.#refuse(new SessionsFullError(this.#live.size, this.#maxActive));
    }
    if (this.#live.has(id)) throw this.#refuse(new DuplicateIdError(id));
    if (signal !== undefined) this.#signals.add(signal, session);
    session.begin(limitMs, signal);
    this.#live.set(id, session);
    this.#started++;
    if (heard(this, 'started')) {
      const { requestId, provider, model } = log;
      post(this, 'started', { id, requestId, provider, model, active: this.active });
    }
    return session;
  }

  #refuse<E extends { readonly code: string } | undefined>(error: E): E {
    this.#refused++;
    if (heard(this, 'refused')) post(this, 'refused', { code: error?.code, active: this.active });
    return error;
  }

  #ended(session: LiveSession, now: number): void {
    const { log } = session;
    const status = log.status as Exclude<SessionStatus, 'active'>;
    this.#live.delete(log.id);
    if (this.#history > 0) {
      this.#past[this.#nextPast] = log;
      this.#nextPast = (this.#nextPast + 1) % this.#history;
    }
    this.#endedAs[status]++;
    this.#elapsedMs.add(log.elapsedMs(now));
    if (heard(this, status)) {
      post(this, status, { session: session.toJSON(), active: this.active });
    }
    if (this.#live.size === 0) {
      this.#emptied.release();
      if (heard(this, 'idle')) post(this, 'idle', { active: 0 });
    }
  }

  #failedToCleanUp({ id }: LiveSession, failure: CleanupFailure): void {
    this.#cleanupFailed++;
    if (heard(this, 'cleanupFailed')) post(this, 'cleanupFailed', { id, ...failure });
  }

  #outran({ log }: LiveSession): void {
    this.#overrun++;
    if (heard(this, 'overrun')) {
      post(this, 'overrun', { id: log.id, ranMs: log.elapsedMs(this.#time.now()) });
    }
  }

  async #shutDown(drainMs: number, forceMs: number): Promise<ShutdownReport> {
    const since = this.#time.now();
    const present = this.#live.size;
    let aborted: LiveSession[] = [];
    await this.#empty(drainMs, () => {
      aborted = [...this.#live.values()].filter((session) =>
        session.stop('cancelled', new ClosedError('The session manager')),
      );
    });
    deliver(this);
    await this.#empty(forceMs, () => {});
    const stuck = [...this.#live.values()].map((session) => session.toJSON());
    const ended = aborted.filter((session) => session.ended).length;
    const report = {
      finished: present - stuck.length - ended,
      aborted: ended,
      stuck,
      elapsedMs: this.#time.now() - since,
    };
    if (heard(this, 'closed')) {
      post(this, 'closed', { ...report, stuck: Object.freeze([...stuck]) });
    }
    deliver(this);
    return report;
  }

  /**
   * Resolves when no session is left or `ms` have passed. Then `late` is called, at its turn among the
   * time limits of the sessions: whose time is over after that does not time out first.
   */
  async #empty(ms: number, late: () => void): Promise<void> {
    if (this.#live.size === 0) return;
    if (ms === 0) {
      late();
      return;
    }
    const due = (): void => {
      late();
      this.#emptied.release();
    };
    const deadline = ms < Infinity && this.#deadlines.add({ due }, this.#time.now() + ms);
    await this.#emptied.wait();
    if (deadline !== false) this.#deadlines.remove(deadline);
  }
}

function optionalText(name: string, value: string | undefined): string | undefined {
  return value === undefined ? undefined : text(name, value);
}
