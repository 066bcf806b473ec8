import { SessionTimeoutError } from '../errors.ts';
import type { TaskContext } from '../gate.ts';
import type { AbortWatch } from './abort.ts';
import { type Answerable, answered } from './answered.ts';
import { callable, oneOf } from './assert.ts';
import { Awaiters } from './awaiters.ts';
import { captureContext } from './context.ts';
import type { Deadline, Deadlines } from './deadlines.ts';
import { Execution } from './execution.ts';
import {
  BoundedMetadata,
  type JsonValue,
  type MetadataLimits,
  type SessionMetadata,
} from './metadata.ts';
import type {
  SessionLog,
  SessionPhase,
  SessionPhases,
  SessionRecord,
  SessionStatus,
} from './session-log.ts';
import { cut } from './text.ts';
import type { Time } from './time.ts';

/** The phases that code may mark by hand; a session marks the first and the last ones itself. */
export type MarkablePhase = Exclude<SessionPhase, 'received' | 'completed' | 'timeout' | 'error'>;

const MARKABLE: readonly MarkablePhase[] = [
  'queued',
  'dequeued',
  'allocated',
  'callStart',
  'callEnd',
  'released',
];

/** One request on its way through the backend. */
export interface Session {
  readonly id: string;
  /** These three are kept up to 256 characters. */
  readonly requestId: string | undefined;
  readonly provider: string | undefined;
  readonly model: string | undefined;
  /** How the caller was answered; `active` until then. */
  readonly status: SessionStatus;
  /** Aborted on timeout, when the caller's signal is aborted, and by `shutdown`. Made when first read. */
  readonly signal: AbortSignal;
  /** The phases so far. */
  readonly phases: SessionPhases;
  readonly metadata: SessionMetadata;
  /**
   * Notes that `phase` begins now. Phases only go forward: false, and without effect, when this one
   * or a later one has begun.
   */
  mark(phase: MarkablePhase): boolean;
  /**
   * Has `cleanup` called once when the session is over: after its task has settled, before the
   * caller of `run` gets the result, in this session and the async context of this call, the one
   * deferred last first, each when the one before is through. One that fails or takes longer than
   * `cleanupTimeoutMs` is counted, emitted as `cleanupFailed` and left behind. When the session has
   * ended already, `cleanup` is called now.
   */
  defer(cleanup: () => unknown): void;
  /**
   * Calls `fn` in the session's context and returns what it does: for callbacks that are called from
   * elsewhere, such as the listeners of a socket or the pulls of a stream.
   */
  enter<T>(fn: () => T): T;
  /** What can be logged of it. */
  toJSON(): SessionRecord;
}

/** A session that lives until it is ended by hand, or by its timeout or signal. */
export interface OpenSession extends Session, AsyncDisposable {
  /**
   * Ends it: as `failed` when an error is given, as `completed` otherwise. Resolves when its
   * clean-ups are through, also where something else has ended it before.
   */
  end(error?: unknown): Promise<SessionRecord>;
  /** The same as `end()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What a task is given: its signal, and the session that it belongs to. */
export interface SessionContext extends TaskContext {
  readonly session: Session;
}

/** `error` is undefined where it took too long. */
export interface CleanupFailure {
  readonly error: unknown;
  readonly timedOut: boolean;
}

/** What a session needs of its manager. */
export interface SessionHost {
  readonly time: Time;
  readonly signals: AbortWatch<LiveSession>;
  readonly deadlines: Deadlines<Due>;
  readonly limits: MetadataLimits;
  readonly logKeys: readonly string[];
  readonly graceMs: number;
  readonly cleanupTimeoutMs: number;
  enter<T>(session: LiveSession, fn: () => T): T;
  cleanupFailed(session: LiveSession, failure: CleanupFailure): void;
  overrun(session: LiveSession): void;
  ended(session: LiveSession, now: number): void;
  /** Comes last in every turn that may have called one of the three above. */
  deliver(): void;
}

/** What the one timer of a manager is set for. */
export interface Due {
  due(now: number): void;
}

/**
 * The life of a session. It only moves down this table; its status is set when it leaves `open`:
 *
 *   open      -> ending    its task settles, or `end` is called
 *             -> stopping  timeout, abort or shutdown: the caller is answered, the signal aborted
 *   stopping  -> ending    its task settles, or `graceMs` is over; at once where there is no task
 *   ending    -> ended     its clean-ups are through
 *
 * It has one deadline at most: of its timeout while open, of its grace while stopping, of the
 * clean-up at hand from then on.
 */
export abstract class LiveSession extends Execution implements Session, Due {
  readonly log: SessionLog;
  protected readonly host: SessionHost;
  #state: 'open' | 'stopping' | 'ending' | 'ended' = 'open';
  #timeoutMs = Infinity;
  #callerSignal: AbortSignal | undefined;
  #deadline: Deadline | undefined;
  #metadata: BoundedMetadata | undefined;
  #cleanups: (() => unknown)[] | undefined;
  /** Leaves the clean-up at hand behind; undefined while there is none. */
  #giveUp: (() => void) | undefined;

  constructor(host: SessionHost, log: SessionLog) {
    super();
    this.host = host;
    this.log = log;
  }

  get id(): string {
    return this.log.id;
  }

  get requestId(): string | undefined {
    return this.log.requestId;
  }

  get provider(): string | undefined {
    return this.log.provider;
  }

  get model(): string | undefined {
    return this.log.model;
  }

  get status(): SessionStatus {
    return this.log.status;
  }

  get phases(): SessionPhases {
    return this.log.phases();
  }

  get metadata(): SessionMetadata {
    if (this.#metadata === undefined) {
      this.#metadata = new BoundedMetadata(this.host.limits);
      if (this.ended) this.#metadata.close();
    }
    return this.#metadata;
  }

  get open(): boolean {
    return this.#state === 'open';
  }

  get ended(): boolean {
    return this.#state === 'ended';
  }

  mark(phase: MarkablePhase): boolean {
    return this.log.mark(oneOf('phase', phase, MARKABLE), this.host.time.now());
  }

  defer(cleanup: () => unknown): void {
    callable('cleanup', cleanup);
    // It may be called by the timer, or the signal, of somebody else's request.
    const inContext = captureContext();
    const bound = (): unknown => inContext(() => this.enter(cleanup));
    if (this.#cleanups !== undefined) {
      this.#cleanups.push(bound);
    } else {
      this.#cleanups = [bound];
      if (this.ended) void this.#runCleanups();
    }
  }

  enter<T>(fn: () => T): T {
    return this.host.enter(this, callable('fn', fn));
  }

  toJSON(): SessionRecord {
    if (!this.ended) this.log.metadata = this.#loggable();
    return this.log.record(this.host.time.now());
  }

  /** Begins to be what is said here. The signal is being watched for it; `run` starts its time. */
  begin(timeoutMs: number, signal: AbortSignal | undefined): void {
    this.#callerSignal = signal;
    this.#timeoutMs = timeoutMs;
  }

  /** Lets the timeout end it, unless something else has. */
  protected startTime(): void {
    if (this.open) this.#arm(this.log.receivedAt, this.#timeoutMs);
  }

  /** Ends an open session from outside. False, and without effect, if it was not open. */
  stop(status: 'cancelled' | 'timedOut', reason: unknown): boolean {
    if (!this.open) return false;
    this.#answered(status, reason);
    this.#state = 'stopping';
    this.#arm(this.host.time.now(), this.host.graceMs);
    // Whoever aborts it may be in the session of somebody else.
    this.enter(() => this.abort(reason));
    return true;
  }

  /** Its caller knows: the first answer is the one that the record tells of. */
  noteAnswer(status: Exclude<SessionStatus, 'active'>, reason: unknown): void {
    if (this.status !== 'active') return;
    this.log.status = status;
    if (status !== 'completed') this.log.error = describe(reason);
  }

  /** The timer has come to its deadline. */
  due(now: number): void {
    // Another session of the same instant may have run code that gave this one a new deadline.
    if (this.#deadline === undefined || this.#deadline.at > now) return;
    if (this.#state === 'open') {
      this.stop('timedOut', new SessionTimeoutError(this.id, this.#timeoutMs));
    } else if (this.#state === 'stopping') {
      this.host.overrun(this);
      this.#cleanUp();
    } else {
      this.#giveUp!();
    }
  }

  /** Its task has settled, or has been declared over where there is none. */
  protected over(ok: boolean, value: unknown): void {
    if (this.open) this.#answered(ok ? 'completed' : 'failed', value);
    else if (this.#state !== 'stopping') return;
    this.#cleanUp();
  }

  /** Everything is over: whoever still waits for an answer gets it. */
  protected abstract finished(): void;

  #answered(status: Exclude<SessionStatus, 'active'>, reason: unknown): void {
    this.noteAnswer(status, reason);
    if (this.#callerSignal !== undefined) this.host.signals.remove(this.#callerSignal, this);
    this.#callerSignal = undefined;
    this.#disarm();
  }

  #cleanUp(): void {
    const now = this.host.time.now();
    this.#state = 'ending';
    this.#disarm();
    this.log.callOver(now);
    if (this.#cleanups === undefined) this.#end(now);
    else void this.#runCleanups();
  }

  async #runCleanups(): Promise<void> {
    // The array is looked at anew each time: a clean-up may defer another one.
    for (let next = this.#cleanups!.pop(); next !== undefined; next = this.#cleanups!.pop()) {
      await this.#attempt(next);
    }
    this.#cleanups = undefined;
    if (!this.ended) this.#end(this.host.time.now());
    this.host.deliver();
  }

  /** Resolves when the clean-up is through, be it by failing or by taking too long. */
  #attempt(cleanup: () => unknown): Promise<void> {
    return new Promise((resolve) => {
      const finish = (failure: CleanupFailure | undefined): void => {
        if (this.#giveUp !== giveUp) return;
        this.#giveUp = undefined;
        this.#disarm();
        if (failure !== undefined) {
          this.log.cleanupFailures++;
          this.host.cleanupFailed(this, failure);
        }
        resolve();
      };
      const giveUp = (): void => finish({ error: undefined, timedOut: true });
      this.#giveUp = giveUp;
      this.#arm(this.host.time.now(), this.host.cleanupTimeoutMs);
      // Called here and now: what throws at once becomes a rejection like any other.
      const outcome = (async (): Promise<unknown> => cleanup())();
      outcome.then(
        () => finish(undefined),
        (error: unknown) => {
          finish({ error, timedOut: false });
          this.host.deliver();
        },
      );
    });
  }

  #end(now: number): void {
    this.#state = 'ended';
    this.log.metadata = this.#loggable();
    this.#metadata?.close();
    this.log.end(now);
    this.host.ended(this, now);
    this.finished();
  }

  #loggable(): [string, JsonValue][] | undefined {
    const metadata = this.#metadata;
    if (metadata === undefined) return undefined;
    return this.host.logKeys.flatMap((key) => {
      const value = metadata.get(key);
      return value === undefined ? [] : [[key, value]];
    });
  }

  #arm(from: number, ms: number): void {
    if (ms < Infinity) this.#deadline = this.host.deadlines.add(this, from + ms);
  }

  #disarm(): void {
    if (this.#deadline !== undefined) this.host.deadlines.remove(this.#deadline);
    this.#deadline = undefined;
  }
}

class Context implements SessionContext, Answerable {
  readonly session: LiveSession;

  constructor(session: LiveSession) {
    this.session = session;
  }

  get signal(): AbortSignal {
    return this.session.signal;
  }

  /** The task still runs, and the session is open until that has settled. */
  [answered](ok: boolean, value: unknown): void {
    this.session.noteAnswer(ok ? 'completed' : 'failed', value);
  }
}

/** Lasts as long as one call of a task. */
export class TaskSession extends LiveSession {
  #resolve: ((value: never) => void) | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  #ok = false;
  #value: unknown;

  run<T>(task: (context: SessionContext) => T | PromiseLike<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      this.host.enter(this, () => this.perform(task, new Context(this)));
      // A task that settles before anything else can happen needs no timer: setting and clearing one
      // takes as long as the rest of its session (bench/session-manager.ts).
      void Promise.resolve().then(() => this.startTime());
    });
  }

  override stop(status: 'cancelled' | 'timedOut', reason: unknown): boolean {
    if (this.open) this.#reject!(reason);
    return super.stop(status, reason);
  }

  protected override settled(ok: boolean, value: unknown): void {
    if (this.ended) return;
    this.#ok = ok;
    this.#value = value;
    this.over(ok, value);
    this.host.deliver();
  }

  protected override finished(): void {
    if (this.#ok) this.#resolve!(this.#value as never);
    else this.#reject!(this.#value);
    // Whoever still knows the session does not keep the result alive.
    this.#resolve = this.#reject = this.#value = undefined;
  }
}

/** Lasts until `end`. */
export class OpenedSession extends LiveSession implements OpenSession {
  #finished: Awaiters | undefined;

  async end(error?: unknown): Promise<SessionRecord> {
    this.over(error === undefined, error);
    this.host.deliver();
    if (!this.ended) await (this.#finished ??= new Awaiters()).wait();
    return this.toJSON();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }

  override begin(timeoutMs: number, signal: AbortSignal | undefined): void {
    super.begin(timeoutMs, signal);
    this.startTime();
  }

  override stop(status: 'cancelled' | 'timedOut', reason: unknown): boolean {
    const stopped = super.stop(status, reason);
    if (stopped) this.over(false, reason);
    return stopped;
  }

  /** It performs no task. */
  protected override settled(): void {}

  protected override finished(): void {
    this.#finished?.release();
  }
}

/** What an error is called. Whatever was thrown, this does not throw. */
function describe(error: unknown): { name: string; code: string | undefined } {
  try {
    const { name, code } = error as { name?: unknown; code?: unknown };
    return {
      name: typeof name === 'string' ? cut(name, 64) : typeof error,
      code: typeof code === 'string' ? cut(code, 64) : undefined,
    };
  } catch {
    return { name: typeof error, code: undefined };
  }
}
