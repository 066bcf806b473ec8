import type { JsonValue } from './metadata.ts';
import { cut, printable } from './text.ts';

/** The phases of a session in the order in which it goes through them. It may leave some out. */
const PHASES = [
  'received',
  'queued',
  'dequeued',
  'allocated',
  'callStart',
  'callEnd',
  'released',
  'completed',
  'timeout',
  'error',
] as const;

/** What a session goes through, in this order; the last three are its ends. */
export type SessionPhase = (typeof PHASES)[number];

/** When each phase that was reached began, in ms since `received`. */
export type SessionPhases = { readonly [Phase in SessionPhase]?: number };

/** How the caller was answered: `active` until then. It never changes twice. */
export type SessionStatus = 'active' | 'completed' | 'failed' | 'cancelled' | 'timedOut';

/** What is kept of a session: safe to log, and frozen. No text in it has control characters. */
export interface SessionRecord {
  readonly id: string;
  readonly requestId: string | undefined;
  readonly provider: string | undefined;
  readonly model: string | undefined;
  readonly status: SessionStatus;
  /** When it began, in ms of the manager's clock: by default since the Unix epoch. */
  readonly receivedAt: number;
  /** From then to its end, or until now where it has not ended. */
  readonly elapsedMs: number;
  readonly phases: SessionPhases;
  /** What it failed of. Messages are left out: they may quote what nobody may log. */
  readonly error: { readonly name: string; readonly code: string | undefined } | undefined;
  /** How many of its clean-ups threw, rejected or took too long. */
  readonly cleanupFailures: number;
  /** The values of those of `logKeys` that it has. */
  readonly metadata: { readonly [key: string]: JsonValue };
}

const RECEIVED = 0;
const QUEUED = 1;
const DEQUEUED = 2;
const ALLOCATED = 3;
const CALL_START = 4;
const CALL_END = 5;
const RELEASED = 6;
const LAST = {
  completed: 'completed',
  timedOut: 'timeout',
  failed: 'error',
  cancelled: 'error',
} as const satisfies Record<Exclude<SessionStatus, 'active'>, SessionPhase>;

/** Nobody's id, provider or model is longer; what is cut off is not missed in a log. */
const MAX_TEXT = 256;

/**
 * What a session leaves behind: who it was, when it reached which phase, how it ended.
 *
 * A phase is marked once, and only if no later one has been. On its way through several gates a
 * session is in line from the first wait, out of the line with the first grant after it, and has
 * everything that it needs with the last one. Nobody can tell which grant that is: so each of them
 * moves `allocated` until the call is known to have begun, and the beginning of the call, unless it
 * is marked by hand, is found when the call ends or when somebody looks.
 */
export class SessionLog {
  readonly id: string;
  readonly requestId: string | undefined;
  readonly provider: string | undefined;
  readonly model: string | undefined;
  readonly receivedAt: number;
  /** When each phase up to `released` began, in ms since then; the last one begins at the end. */
  readonly #times = [0, NaN, NaN, NaN, NaN, NaN, NaN];
  #current = RECEIVED;
  /** Whether it is in its call from the start unless a gate has to let it in. */
  readonly #calls: boolean;
  /** Whether it has come to a gate. */
  #seen = false;
  #waits = 0;
  #holds = 0;
  #endedAfterMs: number | undefined;
  status: SessionStatus = 'active';
  error: { readonly name: string; readonly code: string | undefined } | undefined;
  cleanupFailures = 0;
  metadata: readonly (readonly [key: string, value: JsonValue])[] | undefined;

  constructor(
    id: string,
    requestId: string | undefined,
    provider: string | undefined,
    model: string | undefined,
    receivedAt: number,
    calls: boolean,
  ) {
    this.id = id;
    this.requestId = requestId && cut(requestId, MAX_TEXT);
    this.provider = provider && cut(provider, MAX_TEXT);
    this.model = model && cut(model, MAX_TEXT);
    this.receivedAt = receivedAt;
    this.#calls = calls;
  }

  /** False, and without effect, unless the phase comes after all that have been marked. */
  mark(phase: SessionPhase, now: number): boolean {
    return this.#mark(PHASES.indexOf(phase), now);
  }

  /** It began to wait at a gate. */
  queued(now: number): void {
    this.#seen = true;
    this.#waits++;
    this.#mark(QUEUED, now);
    // What it has been given so far was not everything.
    if (this.#current < ALLOCATED) this.#times[ALLOCATED] = NaN;
  }

  /** A gate let it in, after waiting there or at once; `holds` whether there is something to release. */
  granted(now: number, waited: boolean, holds: boolean): void {
    this.#seen = true;
    if (waited) this.#waits--;
    if (holds) this.#holds++;
    if (this.#current === QUEUED) this.#mark(DEQUEUED, now);
    if (this.#current < ALLOCATED) this.#times[ALLOCATED] = now - this.receivedAt;
  }

  /** It stopped waiting at a gate that had not let it in. */
  left(): void {
    this.#waits--;
  }

  /** A gate refused it. */
  refused(): void {
    this.#seen = true;
  }

  /** A gate got back what it held. */
  released(now: number): void {
    this.#holds--;
    this.callOver(now);
    if (this.#holds === 0 && this.#waits === 0) this.#mark(RELEASED, now);
  }

  /** Its task is over. */
  callOver(now: number): void {
    if (!Number.isNaN(this.#callStart())) this.#mark(CALL_END, now);
  }

  /** It has ended and its clean-ups are through. */
  end(now: number): void {
    this.#mark(RELEASED, now);
    this.#endedAfterMs = now - this.receivedAt;
  }

  /** How long it took, or has taken until now. */
  elapsedMs(now: number): number {
    return this.#endedAfterMs ?? now - this.receivedAt;
  }

  phases(): SessionPhases {
    const phases: { [Phase in SessionPhase]?: number } = {};
    const callStart = this.#callStart();
    for (const [i, marked] of this.#times.entries()) {
      const time = i === CALL_START ? callStart : marked;
      if (!Number.isNaN(time)) phases[PHASES[i]!] = time;
    }
    if (this.#endedAfterMs !== undefined) {
      phases[LAST[this.status as keyof typeof LAST]] = this.#endedAfterMs;
    }
    return phases;
  }

  record(now: number): SessionRecord {
    const { error } = this;
    return Object.freeze({
      id: printable(cut(this.id, MAX_TEXT)),
      requestId: this.requestId && printable(this.requestId),
      provider: this.provider && printable(this.provider),
      model: this.model && printable(this.model),
      status: this.status,
      receivedAt: this.receivedAt,
      elapsedMs: this.elapsedMs(now),
      phases: Object.freeze(this.phases()),
      error:
        error &&
        Object.freeze({ name: printable(error.name), code: error.code && printable(error.code) }),
      cleanupFailures: this.cleanupFailures,
      metadata: printableEntries(this.metadata ?? []),
    });
  }

  #mark(phase: number, now: number): boolean {
    if (phase <= this.#current) return false;
    if (phase > CALL_START) this.#times[CALL_START] = this.#callStart();
    this.#times[phase] = now - this.receivedAt;
    this.#current = phase;
    return true;
  }

  /** NaN where the call has not begun. */
  #callStart(): number {
    if (this.#current >= CALL_START) return this.#times[CALL_START]!;
    if (this.#waits > 0 || this.#current === QUEUED) return NaN;
    if (this.#seen) return this.#times[ALLOCATED]!;
    return this.#current > RECEIVED || this.#calls ? this.#times[this.#current]! : NaN;
  }
}

function printableValue(value: JsonValue): JsonValue {
  if (typeof value === 'string') return printable(value);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value))
    return Object.freeze((value as readonly JsonValue[]).map(printableValue));
  return printableEntries(Object.entries(value));
}

function printableEntries(entries: readonly (readonly [key: string, value: JsonValue])[]): {
  readonly [key: string]: JsonValue;
} {
  const printed = entries.map(([key, value]) => [printable(key), printableValue(value)] as const);
  return Object.freeze(Object.fromEntries(printed));
}
