import { StreamTimeoutError } from '../errors.ts';
import type { AbortWatch } from './abort.ts';
import { captureContext, type InContext } from './context.ts';
import type { Deadline, Deadlines } from './deadlines.ts';
import { mergeContexts } from './merge.ts';
import { optionNames } from './options.ts';
import { isOurs } from './ours.ts';
import type { Pacer } from './pacer.ts';
import { SourceReader, type TokenSource } from './source.ts';
import { type Summary, Tally } from './tally.ts';
import { tick } from './tick.ts';
import type { Time } from './time.ts';

/** How a stream ended, and the error or the reason where it did not complete. */
export interface Ending {
  readonly outcome: 'completed' | 'failed' | 'cancelled' | 'disconnected' | 'timeout';
  readonly error: unknown;
}

/** Where the tokens of a feed go. */
export interface Sink<T> {
  /** Whether one more token may be read ahead for it. */
  readonly hasRoom: boolean;
  /** The place in line may be another one: see `Feed.takePlace`. */
  moved(): void;
  admitted(): void;
  token(value: T): void;
  /** The source is at its end: what has not been read yet still may. */
  ended(ending: Ending): void;
  /** All is over now: what has not been read is lost. The feed has let go of the sink. */
  stopped(ending: Ending): void;
}

/** What a feed needs of a ticket that a gate hands out through `onTicket`. */
export interface PlaceInLine {
  readonly position: number;
  readonly estimatedWaitMs?: number | undefined;
  positions(): AsyncIterable<number>;
}

interface TaskContext {
  readonly signal: AbortSignal;
}

/** A gate whose context and options are its own affair. */
export interface AnyGate {
  readonly [optionNames]?: ReadonlySet<string> | undefined;
  run(task: (context: TaskContext) => unknown, options: object): unknown;
}

export interface Due {
  due(now: number): void;
}

/** What all feeds of one streamer share. */
export interface FeedSettings {
  readonly firstTokenTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly timeoutMs: number;
  readonly teardownGraceMs: number;
  readonly time: Time;
  readonly deadlines: Deadlines<Due>;
  readonly signals: AbortWatch<{ aborted(reason: unknown): void }>;
  readonly moves: Pacer<{ moved(): void }>;
}

export interface FeedFigures {
  readonly waitedMs: number | undefined;
  readonly timeToFirstTokenMs: number | undefined;
  readonly gapMs: Summary;
  readonly abandoned: boolean;
  readonly teardownError: unknown;
}

const nothing = (): void => {};

/** What the platform calls it. A reason may be a proxy that throws at whoever looks. */
function nameOf(error: unknown): string | undefined {
  try {
    return error instanceof Error ? error.name : undefined;
  } catch {
    return undefined;
  }
}

/** Whether it is a limit on time that ends a stream: one of ours or an `AbortSignal.timeout()`. */
function isTimeout(error: unknown): boolean {
  return isOurs(error) ? error.code.endsWith('_TIMEOUT') : nameOf(error) === 'TimeoutError';
}

/** How a stream ends that its gate does not let in; a ticket may be cancelled in line. */
function refused(error: unknown): Ending {
  const outcome = nameOf(error) === 'AbortError' ? 'cancelled' : 'failed';
  return { outcome: isTimeout(error) ? 'timeout' : outcome, error };
}

/**
 * Brings the tokens of a stream: waits at the gate, holds the place, reads the source as far ahead
 * as the sinks have room, minds the limits on time, and lets go of everything.
 *
 *     new ── start ──> waiting ── admitted ──> open ── end, failure or stop ──> over
 *
 * Forward only; whatever stops it leads from each state to `over`. On the way there, in this order:
 * the sinks are told; the source's signal is aborted, unless the source completed; a source that
 * did not end by itself is closed; when that has let go, or `teardownGraceMs` later, the gate's task
 * settles, which gives the place back.
 */
export class Feed<T> implements Due {
  readonly #settings: FeedSettings;
  readonly #reader: SourceReader<T, object>;
  readonly #gate: AnyGate | undefined;
  readonly #gateOptions: Readonly<Record<string, unknown>>;
  readonly #signal: AbortSignal | undefined;
  readonly #forSource = new AbortController();
  #forGate: AbortController | undefined;
  /** That of the caller of `stream()`; when a gate of ours has let it through, that of its task. */
  #inContext: InContext = captureContext();
  readonly #sinks = new Set<Sink<T>>();

  #state: 'new' | 'waiting' | 'open' | 'over' = 'new';
  #ending: Ending | undefined;
  #gateSignal: AbortSignal | undefined;
  /** While open, not later than the first limit that may be reached; when over, the grace. */
  #deadline: Deadline | undefined;
  #resume: (() => void) | undefined;

  #place: PlaceInLine | undefined;
  #positions: AsyncIterator<number> | undefined;
  #asksPosition = false;

  #startedAt: number | undefined;
  #admittedAt: number | undefined;
  #firstTokenAt: number | undefined;
  /** Since when the source owes a token that is not empty; Infinity while it is not asked. */
  #silentSince = Infinity;
  #brought = 0;
  readonly #gaps = new Tally();

  #giveBack: ((ending: Ending) => void) | undefined;
  #sourceGone = false;
  #gateGone = true;
  #abandoned = false;
  #teardownError: unknown;
  #resolveGone!: (ending: Ending) => void;
  /** Resolves when source and gate are let go of. */
  readonly gone: Promise<Ending> = new Promise((resolve) => {
    this.#resolveGone = resolve;
  });

  /** Throws a TypeError for what cannot be a source. */
  constructor(
    settings: FeedSettings,
    source: TokenSource<T, object>,
    gate: AnyGate | undefined,
    gateOptions: Readonly<Record<string, unknown>>,
    signal: AbortSignal | undefined,
  ) {
    this.#settings = settings;
    this.#reader = new SourceReader(source);
    this.#gate = gate;
    this.#gateOptions = gateOptions;
    this.#signal = signal;
    if (signal?.aborted === true) this.aborted(signal.reason);
    // From now on, be the stream read or not: it has a source that may hold something.
    else if (signal !== undefined) settings.signals.add(signal, this);
  }

  /** The clock's reading at `start`. */
  get startedAt(): number | undefined {
    return this.#startedAt;
  }

  /** How many tokens the source has given. */
  get brought(): number {
    return this.#brought;
  }

  /** How the source was ended, or ended by itself, once it has. */
  get ending(): Ending | undefined {
    return this.#ending;
  }

  get figures(): FeedFigures {
    const admittedAt = this.#admittedAt;
    return {
      waitedMs: admittedAt === undefined ? undefined : admittedAt - this.#startedAt!,
      timeToFirstTokenMs:
        this.#firstTokenAt === undefined ? undefined : this.#firstTokenAt - admittedAt!,
      gapMs: this.#gaps.summary(),
      abandoned: this.#abandoned,
      teardownError: this.#teardownError,
    };
  }

  /** A sink takes part from now on; it looks at `ending` itself. */
  attach(sink: Sink<T>): void {
    this.#sinks.add(sink);
  }

  /** A sink no longer takes part, and others do in its place. */
  release(sink: Sink<T>): void {
    this.#sinks.delete(sink);
  }

  /** The sink wants no more; the feed is over when it was the last one. */
  detach(sink: Sink<T>, ending: Ending): void {
    if (!this.#sinks.delete(sink)) return;
    if (this.#sinks.size > 0) this.pulled();
    else if (this.#close(ending)) this.#letGo(ending);
  }

  /** Enters the gate, or opens the source where there is none. */
  start(followsPosition: boolean): void {
    if (this.#state !== 'new') return;
    this.#state = 'waiting';
    this.#startedAt = this.#settings.time.now();
    this.#inContext(() => {
      if (this.#gate === undefined) void this.#admit(undefined);
      else this.#enter(this.#gate, followsPosition);
    });
  }

  /** Ends it from outside: all sinks are told, what they have not read is lost. False if none was. */
  stop(ending: Ending): boolean {
    const sinks = [...this.#sinks];
    this.#sinks.clear();
    const first = this.#close(ending);
    for (const sink of sinks) sink.stopped(ending);
    if (first) this.#letGo(ending);
    return first || sinks.length > 0;
  }

  /** The caller's signal, or the gate's, says that it is enough. */
  aborted(reason: unknown): void {
    this.stop({ outcome: isTimeout(reason) ? 'timeout' : 'cancelled', error: reason });
  }

  /** It is time to tell of a change of place. */
  moved(): void {
    if (this.#state !== 'waiting') return;
    for (const sink of this.#sinks) sink.moved();
  }

  /** A sink has room again. */
  pulled(): void {
    if (this.#resume === undefined || !this.#hasRoom()) return;
    const resume = this.#resume;
    this.#resume = undefined;
    this.#silentSince = this.#settings.time.now();
    this.#watch();
    resume();
  }

  /** The place in line as it is now, if there is one; sinks hear of the next change after that. */
  takePlace(): { position: number; estimatedWaitMs: number | undefined } | undefined {
    const place = this.#place;
    if (place === undefined) return undefined;
    if (!this.#asksPosition) this.#askPosition(this.#positions!);
    const { position } = place;
    if (position <= 0) return undefined;
    const { estimatedWaitMs } = place;
    return { position, estimatedWaitMs: estimatedWaitMs && Math.ceil(estimatedWaitMs) };
  }

  due(now: number): void {
    this.#deadline = undefined;
    if (this.#state === 'over') {
      this.#abandoned = !this.#sourceGone;
      this.#giveBack?.(this.#ending!);
      void this.#tellGone();
    } else {
      const { timeoutMs } = this.#settings;
      const phase = this.#firstTokenAt === undefined ? 'firstToken' : 'idle';
      if (this.#silentSince + this.#silenceLimit() <= now) {
        this.#timedOut(new StreamTimeoutError(phase, this.#silenceLimit()));
      } else if (this.#admittedAt! + timeoutMs <= now) {
        this.#timedOut(new StreamTimeoutError('total', timeoutMs));
      } else {
        this.#watch();
      }
    }
  }

  #enter(gate: AnyGate, followsPosition: boolean): void {
    this.#forGate = new AbortController();
    const options: Record<string, unknown> = {
      ...this.#gateOptions,
      signal: this.#forGate.signal,
    };
    // Not what a polluted `Object.prototype` has.
    const own = Object.hasOwn(this.#gateOptions, 'onTicket');
    const theirs = own ? this.#gateOptions['onTicket'] : nothing;
    // What is no function is for the gate to refuse.
    const canFollow = followsPosition && typeof theirs === 'function';
    if (canFollow && (gate[optionNames]?.has('onTicket') ?? true)) {
      options['onTicket'] = (ticket: PlaceInLine): void => {
        theirs(ticket);
        this.#follow(ticket);
      };
    }
    this.#gateGone = false;
    void (async () => {
      try {
        await gate.run((context) => {
          // A gate of ours calls in its caller's context and may add to it: its session, say. What
          // other gates call in may be anybody's.
          if (gate[optionNames] !== undefined) this.#inContext = captureContext();
          return this.#inContext(() => this.#admit(context));
        }, options);
      } catch (error) {
        this.#leftGate({ error });
        return;
      }
      this.#leftGate(undefined);
    })();
  }

  /** The task of the gate: settles when the source is let go of. */
  #admit(gateContext: TaskContext | undefined): Promise<void> | undefined {
    // Whoever has left while the gate let it through opens nothing.
    if (this.#state !== 'waiting') return undefined;
    this.#state = 'open';
    const now = this.#settings.time.now();
    this.#admittedAt = now;
    this.#silentSince = now;
    this.#unfollow();
    const held = this.#gate === undefined ? undefined : this.#hold();
    for (const sink of this.#sinks) sink.admitted();
    if (gateContext !== undefined) this.#heed(gateContext.signal);
    if (this.#ending !== undefined) return held;
    this.#watch();
    const own: TaskContext = { signal: this.#forSource.signal };
    const context = gateContext === undefined ? own : mergeContexts([gateContext, own]);
    this.#reader
      .read(context, (token) => this.#token(token))
      .then(
        () => this.#ended({ outcome: 'completed', error: undefined }),
        (error: unknown) => this.#ended({ outcome: 'failed', error }),
      );
    return held;
  }

  #hold(): Promise<void> {
    const held = new Promise<void>((resolve, reject) => {
      this.#giveBack = ({ outcome, error }) => {
        if (outcome === 'completed') resolve();
        else reject(error);
      };
    });
    held.catch(nothing);
    return held;
  }

  /** The gate's own signal is a reason to stop as good as the caller's. */
  #heed(signal: AbortSignal): void {
    if (signal.aborted) {
      this.aborted(signal.reason);
    } else {
      this.#gateSignal = signal;
      this.#settings.signals.add(signal, this);
    }
  }

  #token(value: T): Promise<void> | undefined {
    if (value !== '') {
      const now = this.#settings.time.now();
      if (this.#firstTokenAt !== undefined) this.#gaps.add(now - this.#silentSince);
      this.#silentSince = now;
      if (this.#firstTokenAt === undefined) {
        this.#firstTokenAt = now;
        this.#watch();
      }
    }
    this.#brought++;
    for (const sink of this.#sinks) sink.token(value);
    if (this.#hasRoom()) return undefined;
    this.#silentSince = Infinity;
    return new Promise((resolve) => {
      this.#resume = resolve;
    });
  }

  /** A slow sink holds the others up, at most until it is let go of for not reading. */
  #hasRoom(): boolean {
    for (const sink of this.#sinks) if (!sink.hasRoom) return false;
    return true;
  }

  #ended(ending: Ending): void {
    if (this.#state !== 'open') return;
    this.#sourceGone = this.#reader.isGone;
    this.#close(ending);
    for (const sink of this.#sinks) sink.ended(ending);
    this.#letGo(ending);
  }

  /** The gate's promise has settled: it refused, or failed, or has its place back. */
  #leftGate(refusal: { readonly error: unknown } | undefined): void {
    this.#gateGone = true;
    if (this.#state === 'over') {
      this.#checkGone();
    } else if (this.#state === 'waiting') {
      this.stop(refused(refusal ? refusal.error : new Error('The gate did not call its task.')));
    } else if (refusal !== undefined) {
      this.aborted(refusal.error);
    }
  }

  #timedOut(error: StreamTimeoutError): void {
    this.stop({ outcome: 'timeout', error });
  }

  /** The state after which nothing is read any more; false where it was that already. */
  #close(ending: Ending): boolean {
    if (this.#sinks.size === 0 && this.#signal !== undefined) {
      this.#settings.signals.remove(this.#signal, this);
    }
    if (this.#state === 'over') return false;
    this.#state = 'over';
    this.#ending = ending;
    if (this.#gateSignal !== undefined) this.#settings.signals.remove(this.#gateSignal, this);
    if (this.#deadline !== undefined) this.#settings.deadlines.remove(this.#deadline);
    this.#deadline = undefined;
    return true;
  }

  /** Runs code of others: the listeners of the source's signal, and what closes the source. */
  #letGo({ outcome, error }: Ending): void {
    this.#unfollow();
    if (outcome !== 'completed') {
      // To a gate, an abort is the caller's doing; that its task has failed it learns from the task,
      // as it does where a gate inside has stopped the task.
      if (outcome !== 'failed' && this.#gateSignal?.aborted !== true) this.#forGate?.abort(error);
      this.#forSource.abort(error);
    }
    if (!this.#sourceGone) {
      const closing = this.#inContext(() => this.#reader.close(error));
      void closing.then((failure) => {
        this.#sourceGone = true;
        this.#teardownError = failure;
        this.#checkGone();
      });
    }
    this.#checkGone();
    if (!this.#sourceGone || !this.#gateGone) {
      const { deadlines, time, teardownGraceMs } = this.#settings;
      const at = time.now() + teardownGraceMs;
      if (at < Infinity) this.#deadline = deadlines.add(this, at);
    }
  }

  #checkGone(): void {
    if (!this.#sourceGone) return;
    this.#giveBack?.(this.#ending!);
    if (!this.#gateGone) return;
    if (this.#deadline !== undefined) this.#settings.deadlines.remove(this.#deadline);
    this.#deadline = undefined;
    void this.#tellGone();
  }

  /**
   * A gate answers an abort at once, the caller's and its own, and has its place back later, when the
   * end of its task has come through it and the gates around it; they need no more than promises. So
   * it is where the grace is over.
   */
  async #tellGone(): Promise<void> {
    const signals = [this.#forGate?.signal, this.#gateSignal];
    if (this.#abandoned || signals.some((signal) => signal?.aborted)) await tick();
    this.#resolveGone(this.#ending!);
  }

  #silenceLimit(): number {
    const { firstTokenTimeoutMs, idleTimeoutMs } = this.#settings;
    return this.#firstTokenAt === undefined ? firstTokenTimeoutMs : idleTimeoutMs;
  }

  /** Limits that move on with each token need no other timer: what comes too early looks again. */
  #watch(): void {
    const { deadlines, timeoutMs } = this.#settings;
    const at = Math.min(this.#admittedAt! + timeoutMs, this.#silentSince + this.#silenceLimit());
    if (this.#deadline !== undefined) {
      if (this.#deadline.at <= at) return;
      deadlines.remove(this.#deadline);
    }
    this.#deadline = at < Infinity ? deadlines.add(this, at) : undefined;
  }

  #follow(ticket: PlaceInLine): void {
    if (this.#state !== 'waiting') return;
    this.#unfollow();
    this.#place = ticket;
    this.#positions = ticket.positions()[Symbol.asyncIterator]();
    this.#askPosition(this.#positions);
  }

  /** The iterator says when to look; the place itself is read when a sink is about to tell it. */
  #askPosition(positions: AsyncIterator<number>): void {
    this.#asksPosition = true;
    positions.next().then(({ done }) => {
      if (positions !== this.#positions) return;
      this.#asksPosition = false;
      if (done === true) this.#unfollow();
      else this.#settings.moves.enter(this);
    }, nothing);
  }

  #unfollow(): void {
    const positions = this.#positions;
    this.#place = undefined;
    this.#positions = undefined;
    positions?.return?.().then(undefined, nothing);
  }
}
