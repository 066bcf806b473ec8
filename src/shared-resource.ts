import type { Clock } from './clock.ts';
import { ClosedError, WaitTimeoutError } from './errors.ts';
import type { Gate, TaskContext } from './gate.ts';
import { abortOf, AbortWatch } from './internal/abort.ts';
import {
  abortSignal,
  callable,
  invariant,
  msOrInfinity,
  positiveInteger,
  readOptions,
} from './internal/assert.ts';
import { captureContext } from './internal/context.ts';
import { type Deadline, Deadlines } from './internal/deadlines.ts';
import { deliver, Emitter, heard, post } from './internal/emitter.ts';
import { uninterrupted } from './internal/execution.ts';
import { Line, type Slotted } from './internal/line.ts';
import { type FallbackContext, type Instance, type Load, Loader } from './internal/loader.ts';
import { optionNames } from './internal/options.ts';
import { Run, type RunLimits, Runs } from './internal/runs.ts';
import { type Summary, Tally } from './internal/tally.ts';
import { Time } from './internal/time.ts';

export type { FallbackContext } from './internal/loader.ts';

/** What can be changed by `configure`. */
export interface SharedResourceSettings<T> {
  /** Makes the resource. Its signal is aborted when the load is cancelled or out of time. */
  readonly load: (context: TaskContext) => T | PromiseLike<T>;
  /**
   * Makes another one, when there is none and `load` has failed or is out of time. Its context has
   * the `cause` as well.
   */
  readonly fallback?: ((context: FallbackContext) => T | PromiseLike<T>) | undefined;
  /** Ends what was loaded while this was set: called once, after the last user has left. */
  readonly dispose?: ((resource: T) => unknown) | undefined;
  /** How many may use it at once: a positive integer. Default 10. */
  readonly maxUsers?: number | undefined;
  /** The longest wait of a caller who says nothing else, in ms. Default 30 000. */
  readonly accessTimeoutMs?: number | undefined;
  /** How long a load may take, and the fallback after it, in ms. Default 300 000. */
  readonly loadTimeoutMs?: number | undefined;
}

/** The settings, and what cannot be changed later. */
export interface SharedResourceOptions<T> extends SharedResourceSettings<T> {
  /**
   * How long a load that was given up may still run before the next one may start, in ms. After it
   * there may be two at once: `loadOverrun`. Default Infinity: until it has settled.
   */
  readonly loadGraceMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

/** How long one call waits, and what ends the wait. */
export interface ResourceAcquireOptions {
  /** Ends the wait; the call rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
  /** The longest wait in ms; `ERR_WAIT_TIMEOUT` after it. 0: now or not at all. Default `accessTimeoutMs`. */
  readonly waitTimeoutMs?: number | undefined;
}

/** The same for a task, and how long it may use the resource. */
export interface ResourceRunOptions extends ResourceAcquireOptions {
  /** The longest use in ms: then its signal is aborted and the call rejects with `ERR_RUN_TIMEOUT`. */
  readonly runTimeoutMs?: number | undefined;
  /** How long after an abort or a timeout a use that does not settle still counts, in ms. Default Infinity. */
  readonly graceMs?: number | undefined;
}

/** The right to use the resource, until it is released. */
export interface ResourceHandle<T> {
  readonly resource: T;
  readonly released: boolean;
  /** Ends the use. True the first time, false and without effect ever after. */
  release(): boolean;
  /** The same as `release`, for `using`. */
  [Symbol.dispose](): void;
}

/** What a task is given: its signal, and the resource. */
export interface ResourceContext<T> extends TaskContext {
  readonly resource: T;
}

/** Gauges now, and counters since construction. */
export interface SharedResourceStats {
  readonly active: number;
  readonly waiting: number;
  readonly maxUsers: number;
  /** Whether there is one to use. */
  readonly loaded: boolean;
  /** Whether one is being loaded, or will be when what was there before is gone. */
  readonly loading: boolean;
  readonly closed: boolean;
  /** When a user last came, in ms of the clock. */
  readonly lastAccessAt: number | undefined;
  /** How many callers came to use it, had to queue for that, … since construction. */
  readonly acquired: number;
  readonly queued: number;
  readonly released: number;
  readonly refused: number;
  readonly cancelled: number;
  readonly timedOut: number;
  readonly overrun: number;
  /** How many loads and fallbacks began, failed, outlived their grace; what was disposed of. */
  readonly loads: number;
  readonly loadFailures: number;
  readonly loadOverruns: number;
  readonly disposed: number;
  readonly disposeFailures: number;
  /** How long those who had to queue and came to use it had waited, in ms. */
  readonly waitMs: Summary;
  /** How long the loads took that succeeded, in ms. */
  readonly loadMs: Summary;
}

/** What the events about callers carry: the gauges after the change. */
export interface ResourceGauges {
  readonly active: number;
  readonly waiting: number;
}
/** `id` tells the callers of one resource apart: the same in all events about one. */
export interface ResourceEvent extends ResourceGauges {
  readonly id: number;
}
/** `waitedMs`: from its call to its use, or to when it left. */
export interface ResourceWaitedEvent extends ResourceEvent {
  readonly waitedMs: number;
}
/** `ranMs`: from the start of the use. */
export interface ResourceRanEvent extends ResourceEvent {
  readonly ranMs: number;
}
/** A call that did not get into the line. */
export interface ResourceRefusedEvent extends ResourceGauges {
  /** The `code` of the error, or undefined where the caller's signal was aborted already. */
  readonly code: string | undefined;
}
/** Which of the two began: the load or its fallback. */
export interface ResourceLoadEvent {
  /** Whether it is, or was, the fallback. */
  readonly fallback: boolean;
}
/** `loadMs`: how long it took. */
export interface ResourceLoadedEvent extends ResourceLoadEvent {
  readonly loadMs: number;
}
/** `error`: what it threw or rejected with, or `ERR_LOAD_TIMEOUT`. */
export interface ResourceLoadFailedEvent extends ResourceLoadedEvent {
  readonly error: unknown;
}

/**
 * Each `acquire` or `run`: `queued` or not, then `acquired` and `released`, or one of the ways to
 * leave; or `refused` alone. Each load: `loading`, then `loaded` and in the end `disposed`, or
 * `loadFailed`.
 */
export interface SharedResourceEvents {
  /** Has to wait. */
  queued: ResourceEvent;
  /** Came to use it, after `waitedMs` (0 for those who did not queue). */
  acquired: ResourceWaitedEvent;
  released: ResourceEvent;
  /** Left the line because its signal was aborted, the load failed or was cancelled, or it was closed. */
  cancelled: ResourceWaitedEvent;
  /** Left the line because of `waitTimeoutMs` or `accessTimeoutMs`. */
  timedOut: ResourceWaitedEvent;
  /** Did not get into the line at all. */
  refused: ResourceRefusedEvent;
  /** A use that did not settle within `graceMs` of its abort counts no more. */
  overrun: ResourceRanEvent;
  loading: ResourceLoadEvent;
  loaded: ResourceLoadedEvent;
  /** It threw, rejected, was out of time. A load that was cancelled is not heard of again. */
  loadFailed: ResourceLoadFailedEvent;
  /** A load that was given up and has not settled in its grace is not waited for any longer. */
  loadOverrun: { readonly ranMs: number };
  disposed: ResourceGauges;
  disposeFailed: { readonly error: unknown };
  /** Everything is gone. */
  closed: ResourceGauges;
}

const SETTINGS = [
  'load',
  'fallback',
  'dispose',
  'maxUsers',
  'accessTimeoutMs',
  'loadTimeoutMs',
] as const;
const CONFIGURE_OPTIONS = new Set<string>(SETTINGS);
const OPTIONS = new Set<string>([...SETTINGS, 'loadGraceMs', 'clock']);
const ACQUIRE_OPTIONS = new Set(['signal', 'waitTimeoutMs']);
const RUN_OPTIONS = new Set(['signal', 'waitTimeoutMs', 'runTimeoutMs', 'graceMs']);

/** The options of one call, checked. */
interface Call extends RunLimits {
  readonly waitTimeoutMs: number | undefined;
}

const DEFAULTS: Call = {
  signal: undefined,
  waitTimeoutMs: undefined,
  runTimeoutMs: Infinity,
  graceMs: Infinity,
};

class Waiter<T> implements Slotted {
  slot = 0;
  readonly id: number;
  readonly since: number;
  readonly call: Call;
  deadline: Deadline | undefined;
  resolve!: (handle: Handle<T>) => void;
  reject!: (reason: unknown) => void;

  constructor(id: number, since: number, call: Call) {
    this.id = id;
    this.since = since;
    this.call = call;
  }
}

class Handle<T> implements ResourceHandle<T> {
  readonly id: number;
  readonly instance: Instance<T>;
  #giveBack: ((handle: Handle<T>) => void) | undefined;

  constructor(id: number, instance: Instance<T>, giveBack: (handle: Handle<T>) => void) {
    this.id = id;
    this.instance = instance;
    this.#giveBack = giveBack;
  }

  get resource(): T {
    return this.instance.value;
  }

  get released(): boolean {
    return this.#giveBack === undefined;
  }

  release(): boolean {
    const giveBack = this.#giveBack;
    if (giveBack === undefined) return false;
    this.#giveBack = undefined;
    giveBack(this);
    return true;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

function release(handle: { release(): boolean }): void {
  handle.release();
}

class Context<T> implements ResourceContext<T> {
  readonly resource: T;
  readonly #run: Run<Handle<T>> | undefined;
  #signal: AbortSignal | undefined;

  constructor(resource: T, run: Run<Handle<T>> | undefined) {
    this.resource = resource;
    this.#run = run;
  }

  /** Where nothing can interrupt the use, a signal that never aborts. */
  get signal(): AbortSignal {
    return (this.#signal ??= this.#run?.signal ?? new AbortController().signal);
  }
}

type Subject<T> = Waiter<T> | Run<Handle<T>> | Load<T>;

/**
 * One thing that is slow to load and used by many: a model, an index, a connection.
 *
 * It is loaded when it is first needed, once, however many need it; they wait in line, and are served
 * in order when it is there. At most `maxUsers` use it at a time. When a load fails and there is no
 * fallback, or that fails too, everybody who waited gets what the load failed of, and the next caller
 * tries again. Callers run out of their own time with `ERR_WAIT_TIMEOUT`, a load runs out of its with
 * `ERR_LOAD_TIMEOUT`.
 *
 * `reload` puts a new one into its place: those who use the old one go on, those who come get the new
 * one, and the old one is disposed of after its last user. There are never more than these two, so a
 * load waits for whatever was there before to be gone.
 *
 * `load`, `fallback` and `dispose` are called in the async context in which the resource was made, as
 * they are no part of anybody's request; what uses it, in that of its caller. O(1) per caller, with a
 * time limit O(log waiting). One that uses the resource while it uses it may wait for itself for ever.
 *
 * @example
 * ```ts
 * const model = new SharedResource({
 *   load: ({ signal }) => loadModel('minilm', { signal }),
 *   dispose: (loaded) => loaded.unload(),
 *   maxUsers: 10,
 * });
 * const vector = await model.run(({ resource, signal }) => resource.embed(text, { signal }));
 * ```
 *
 * Whenever no method of this class is on the stack:
 *
 * - L1  No more than one function that loads runs, unless one has outlived `loadGraceMs`, and beside
 *     the resource in service there is at most one more, being loaded or on its way out.
 * - L2  What was loaded is disposed of exactly once, when it is out of service and nobody uses it.
 * - L3  active <= maxUsers, unless `configure` has lowered that; if anybody waits, then for a load or
 *     for one of `maxUsers` to leave.
 * - L4  A caller is settled exactly once, and is in line if and only if it has not been settled.
 */
export class SharedResource<T>
  extends Emitter<SharedResourceEvents>
  implements Gate<ResourceContext<T>, ResourceRunOptions>, AsyncDisposable
{
  /** @internal */
  readonly [optionNames]: ReadonlySet<string> = RUN_OPTIONS;

  readonly #time: Time;
  #maxUsers: number;
  #accessTimeoutMs: number;
  #active = 0;
  #isClosed = false;
  #closing: Promise<void> | undefined;
  #lastId = 0;
  #lastAccessAt: number | undefined;

  readonly #loader: Loader<T>;
  readonly #line = new Line<Waiter<T>>();
  readonly #signals = new AbortWatch<Waiter<T> | Run<Handle<T>>>((subjects, reason) =>
    this.#aborted(subjects, reason),
  );
  readonly #deadlines: Deadlines<Subject<T>>;
  readonly #giveBack = (handle: Handle<T>): void => this.#returned(handle);
  readonly #runs: Runs<Handle<T>>;

  readonly #waitMs = new Tally();
  readonly #loadMs = new Tally();
  #acquired = 0;
  #queued = 0;
  #released = 0;
  #refused = 0;
  #cancelled = 0;
  #timedOut = 0;
  #overrun = 0;
  #loads = 0;
  #loadFailures = 0;
  #loadOverruns = 0;
  #disposed = 0;
  #disposeFailures = 0;

  /** Throws a `TypeError` or a `RangeError` that names a bad option. */
  constructor(options: SharedResourceOptions<T>) {
    super();
    const given = readOptions('SharedResource', options, OPTIONS);
    const { maxUsers = 10, accessTimeoutMs = 30_000 } = given;
    const { loadTimeoutMs = 300_000, loadGraceMs = Infinity } = given;
    this.#time = new Time(given.clock);
    this.#deadlines = new Deadlines(this.#time, (due, now) => this.#expired(due, now));
    this.#maxUsers = positiveInteger('maxUsers', maxUsers);
    this.#accessTimeoutMs = msOrInfinity('accessTimeoutMs', accessTimeoutMs);
    this.#loader = new Loader(
      {
        load: callable('load', given.load),
        fallback: optional('fallback', given.fallback),
        dispose: optional('dispose', given.dispose),
        loadTimeoutMs: msOrInfinity('loadTimeoutMs', loadTimeoutMs),
        loadGraceMs: msOrInfinity('loadGraceMs', loadGraceMs),
      },
      this.#time,
      this.#deadlines,
      captureContext(),
      {
        ready: () => this.#pump(),
        failed: (reasonOf) => this.#rejectAll(reasonOf),
        loading: (fallback) => {
          this.#loads++;
          if (heard(this, 'loading')) post(this, 'loading', { fallback });
        },
        loaded: (loadMs, fallback) => {
          this.#loadMs.add(loadMs);
          if (heard(this, 'loaded')) post(this, 'loaded', { loadMs, fallback });
        },
        loadFailed: (error, loadMs, fallback) => {
          this.#loadFailures++;
          if (heard(this, 'loadFailed')) post(this, 'loadFailed', { error, loadMs, fallback });
        },
        loadOverrun: (ranMs) => {
          this.#loadOverruns++;
          if (heard(this, 'loadOverrun')) post(this, 'loadOverrun', { ranMs });
        },
        disposed: () => {
          this.#disposed++;
          if (heard(this, 'disposed')) post(this, 'disposed', this.#gauges());
        },
        disposeFailed: (error) => {
          this.#disposeFailures++;
          if (heard(this, 'disposeFailed')) post(this, 'disposeFailed', { error });
        },
        deliver: () => deliver(this),
      },
    );
    this.#runs = new Runs(this.#time, this.#signals, this.#deadlines, release, (handle, ranMs) =>
      this.#outran(handle, ranMs),
    );
  }

  /** How many use it. Above `maxUsers` after that was lowered. */
  get active(): number {
    return this.#active;
  }

  /** How many callers wait. */
  get waiting(): number {
    return this.#line.length;
  }

  /** Whether nothing is loaded or being loaded: `Keyed` forgets no other. */
  get full(): boolean {
    return this.#loader.empty && !this.#loader.loading;
  }

  /**
   * Takes the right to use the resource, which is loaded first where necessary. Rejects with
   * `signal.reason`, with `ERR_CLOSED`, `ERR_WAIT_TIMEOUT`, `ERR_LOAD_TIMEOUT`, `ERR_LOAD_CANCELLED`
   * or with whatever the load failed of; then nothing is held.
   */
  acquire(options?: ResourceAcquireOptions): Promise<ResourceHandle<T>> {
    try {
      const call =
        options === undefined ? DEFAULTS : this.#read('acquire', options, ACQUIRE_OPTIONS);
      return Promise.resolve(this.#admit(call));
    } catch (error) {
      return Promise.reject(error);
    } finally {
      deliver(this);
    }
  }

  /**
   * Calls `use` with the resource, which is released when what it returns has settled, and settles as
   * it does. Rejects as `acquire`, and with `ERR_RUN_TIMEOUT`. When `signal` is aborted meanwhile, the
   * call rejects with its reason at once and the own signal of `use` is aborted, but it counts as a
   * user until it has settled or `graceMs` is over.
   */
  run<R>(
    use: (context: ResourceContext<T>) => R | PromiseLike<R>,
    options?: ResourceRunOptions,
  ): Promise<R> {
    let admitted: Handle<T> | Promise<Handle<T>>;
    let call = DEFAULTS;
    try {
      callable('use', use);
      if (options !== undefined) call = this.#read('run', options, RUN_OPTIONS);
      admitted = this.#admit(call);
    } catch (error) {
      deliver(this);
      return Promise.reject(error);
    }
    deliver(this);
    // The reaction runs in the async context of this call, not in that of whoever makes room.
    return admitted instanceof Handle
      ? this.#perform(use, admitted, call)
      : admitted.then((handle) => this.#perform(use, handle, call));
  }

  /** Loads it if there is none. Resolves when there is one; rejects as the load does. */
  preload(): Promise<void> {
    return this.#unlessClosed(() => this.#loader.preload());
  }

  /**
   * Loads it anew and puts that into its place. Resolves when it is there. When the load fails the old
   * one stays, and the call rejects with what the load failed of; the fallback is only for when there
   * is none. While a load runs already, another one follows it.
   */
  reload(): Promise<void> {
    return this.#unlessClosed(() => this.#loader.reload());
  }

  /**
   * Gives up the load that runs or is to come: its signal is aborted, and everybody who waits for it
   * gets `ERR_LOAD_CANCELLED`. The next caller starts another. False where nothing is being loaded.
   */
  cancelLoading(): boolean {
    const cancelled = this.#loader.cancel();
    deliver(this);
    return cancelled;
  }

  /**
   * Changes settings; those that are not given stay. `load`, `fallback`, `dispose` and
   * `loadTimeoutMs` count from the next load on, `accessTimeoutMs` for the next callers, `maxUsers`
   * at once: upwards, waiters come in; downwards, nobody is sent away. Throws for a bad value, and
   * changes nothing then.
   */
  configure(settings: Partial<SharedResourceSettings<T>>): void {
    const given = readOptions('configure', settings, CONFIGURE_OPTIONS);
    const { settings: loading } = this.#loader;
    const { load = loading.load, loadTimeoutMs = loading.loadTimeoutMs } = given;
    const { maxUsers = this.#maxUsers, accessTimeoutMs = this.#accessTimeoutMs } = given;
    const next = {
      load: callable('load', load),
      fallback: optional('fallback', given.fallback) ?? loading.fallback,
      dispose: optional('dispose', given.dispose) ?? loading.dispose,
      loadTimeoutMs: msOrInfinity('loadTimeoutMs', loadTimeoutMs),
    };
    positiveInteger('maxUsers', maxUsers);
    this.#accessTimeoutMs = msOrInfinity('accessTimeoutMs', accessTimeoutMs);
    this.#maxUsers = maxUsers;
    Object.assign(loading, next);
    this.#pump();
    deliver(this);
  }

  /**
   * Takes no new callers from now on and gives up a load; who waits gets `ERR_CLOSED`. Resolves when
   * the last user has left and what was loaded is disposed of, however long `dispose` takes. Every call
   * gets the same promise.
   */
  close(): Promise<void> {
    if (this.#closing === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>();
      // Before it begins: what it calls may ask for it, too.
      this.#closing = promise;
      resolve(this.#close());
    }
    return this.#closing;
  }

  /** The same as `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A snapshot: gauges now, counters since construction. O(1). */
  stats(): SharedResourceStats {
    return {
      ...this.#gauges(),
      maxUsers: this.#maxUsers,
      loaded: this.#loader.current !== undefined,
      loading: this.#loader.loading,
      closed: this.#isClosed,
      lastAccessAt: this.#lastAccessAt,
      acquired: this.#acquired,
      queued: this.#queued,
      released: this.#released,
      refused: this.#refused,
      cancelled: this.#cancelled,
      timedOut: this.#timedOut,
      overrun: this.#overrun,
      loads: this.#loads,
      loadFailures: this.#loadFailures,
      loadOverruns: this.#loadOverruns,
      disposed: this.#disposed,
      disposeFailures: this.#disposeFailures,
      waitMs: this.#waitMs.summary(),
      loadMs: this.#loadMs.summary(),
    };
  }

  #read(where: string, options: ResourceRunOptions, known: ReadonlySet<string>): Call {
    const given = readOptions(where, options, known);
    const { signal, waitTimeoutMs, runTimeoutMs = Infinity, graceMs = Infinity } = given;
    return {
      signal: signal === undefined ? undefined : abortSignal('signal', signal),
      waitTimeoutMs:
        waitTimeoutMs === undefined ? undefined : msOrInfinity('waitTimeoutMs', waitTimeoutMs),
      runTimeoutMs: msOrInfinity('runTimeoutMs', runTimeoutMs),
      graceMs: msOrInfinity('graceMs', graceMs),
    };
  }

  /** The verdict on a caller: the right to use it, a wait for that, or a throw. */
  #admit(call: Call): Handle<T> | Promise<Handle<T>> {
    const { signal, waitTimeoutMs = this.#accessTimeoutMs } = call;
    if (this.#isClosed) throw this.#refuse(new ClosedError('The shared resource'));
    if (signal?.aborted === true) {
      this.#refuse(undefined);
      throw signal.reason;
    }
    const { current } = this.#loader;
    // With room and something to use, nobody waits (L3).
    if (current !== undefined && this.#active < this.#maxUsers) {
      return this.#take(++this.#lastId, current, this.#time.now(), 0);
    }
    if (waitTimeoutMs === 0) throw this.#refuse(new WaitTimeoutError(0));
    return this.#wait(call, waitTimeoutMs);
  }

  #refuse<E extends { readonly code: string } | undefined>(error: E): E {
    this.#refused++;
    if (heard(this, 'refused')) post(this, 'refused', { code: error?.code, ...this.#gauges() });
    return error;
  }

  #wait(call: Call, waitTimeoutMs: number): Promise<Handle<T>> {
    const now = this.#time.read();
    const waiter = new Waiter<T>(++this.#lastId, now, call);
    if (call.signal !== undefined) this.#signals.add(call.signal, waiter);
    this.#line.push(waiter);
    this.#queued++;
    if (waitTimeoutMs < Infinity)
      waiter.deadline = this.#deadlines.add(waiter, now + waitTimeoutMs);
    if (heard(this, 'queued')) post(this, 'queued', { id: waiter.id, ...this.#gauges() });
    const turn = new Promise<Handle<T>>((resolve, reject) => {
      waiter.resolve = resolve;
      waiter.reject = reject;
    });
    // Last: it may call `load`.
    this.#loader.want();
    return turn;
  }

  #take(id: number, instance: Instance<T>, now: number, waitedMs: number): Handle<T> {
    instance.users++;
    this.#active++;
    invariant(this.#active <= this.#maxUsers, 'L3');
    this.#acquired++;
    this.#lastAccessAt = now;
    if (heard(this, 'acquired')) post(this, 'acquired', { id, waitedMs, ...this.#gauges() });
    return new Handle(id, instance, this.#giveBack);
  }

  #returned({ id, instance }: Handle<T>): void {
    this.#active--;
    this.#released++;
    if (heard(this, 'released')) post(this, 'released', { id, ...this.#gauges() });
    this.#pump();
    this.#loader.left(instance);
    deliver(this);
  }

  /** Lets the first in line in for as long as there is something to use and room (L3). */
  #pump(): void {
    const { current } = this.#loader;
    if (current === undefined) return;
    for (
      let head = this.#line.first;
      head !== undefined && this.#active < this.#maxUsers;
      head = this.#line.first
    ) {
      const now = this.#time.now();
      const waitedMs = now - head.since;
      this.#leave(head);
      this.#waitMs.add(waitedMs);
      head.resolve(this.#take(head.id, current, now, waitedMs));
    }
  }

  /** Out of the line and out of everything that could call it again (L4). */
  #leave(waiter: Waiter<T>): void {
    this.#line.remove(waiter);
    if (waiter.call.signal !== undefined) this.#signals.remove(waiter.call.signal, waiter);
    if (waiter.deadline !== undefined) this.#deadlines.remove(waiter.deadline);
  }

  #cancel(waiter: Waiter<T>, reason: unknown): void {
    this.#leave(waiter);
    this.#cancelled++;
    waiter.reject(reason);
    if (heard(this, 'cancelled')) post(this, 'cancelled', this.#aboutWait(waiter));
  }

  #rejectAll(reasonOf: () => unknown): void {
    for (const waiter of this.#line) this.#cancel(waiter, reasonOf());
  }

  #aborted(subjects: ReadonlySet<Waiter<T> | Run<Handle<T>>>, reason: unknown): void {
    const runs: Run<Handle<T>>[] = [];
    for (const subject of subjects) {
      if (subject instanceof Run) runs.push(subject);
      else this.#cancel(subject, reason);
    }
    for (const run of runs) this.#runs.interrupt(run, reason);
    deliver(this);
  }

  #expired(due: readonly Subject<T>[], now: number): void {
    const runs: Run<Handle<T>>[] = [];
    for (const subject of due) {
      if (subject instanceof Run) runs.push(subject);
      else if (subject instanceof Waiter) this.#timeOut(subject, now);
      else if (isDue(subject, now)) this.#loader.expire(subject);
    }
    for (const run of runs) if (isDue(run, now)) this.#runs.expire(run, now);
    deliver(this);
  }

  /** Its time is over, unless the end of a load, which came before that, has answered it. */
  #timeOut(waiter: Waiter<T>, now: number): void {
    if (!this.#line.has(waiter)) return;
    this.#leave(waiter);
    this.#timedOut++;
    waiter.reject(new WaitTimeoutError(now - waiter.since));
    if (heard(this, 'timedOut')) post(this, 'timedOut', this.#aboutWait(waiter));
  }

  #outran(handle: Handle<T>, ranMs: number): void {
    if (handle.released) return;
    this.#overrun++;
    if (heard(this, 'overrun')) post(this, 'overrun', { id: handle.id, ranMs, ...this.#gauges() });
    handle.release();
  }

  #perform<R>(
    use: (context: ResourceContext<T>) => R | PromiseLike<R>,
    handle: Handle<T>,
    call: Call,
  ): Promise<R> {
    const { signal, runTimeoutMs } = call;
    const aborted = signal && abortOf(signal);
    if (aborted !== undefined) {
      handle.release();
      return Promise.reject(aborted.reason);
    }
    const { value } = handle.instance;
    if (signal !== undefined || runTimeoutMs < Infinity) {
      return this.#runs.perform(use, (run) => new Context(value, run), handle, call);
    }
    return uninterrupted(use, new Context(value, undefined), release, handle);
  }

  #unlessClosed(act: () => Promise<void>): Promise<void> {
    if (this.#isClosed) return Promise.reject(new ClosedError('The shared resource'));
    const done = act();
    deliver(this);
    return done;
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    this.#rejectAll(() => new ClosedError('The shared resource'));
    await this.#loader.close();
    if (heard(this, 'closed')) post(this, 'closed', this.#gauges());
    deliver(this);
  }

  #gauges(): ResourceGauges {
    return { active: this.#active, waiting: this.#line.length };
  }

  #aboutWait({ id, since }: Waiter<T>): ResourceWaitedEvent {
    return { id, waitedMs: this.#time.now() - since, ...this.#gauges() };
  }
}

/** What was called for another one may have ended this one, or given it a new deadline. */
function isDue({ deadline }: { readonly deadline: Deadline | undefined }, now: number): boolean {
  return (deadline?.at ?? Infinity) <= now;
}

function optional<F extends (...args: never[]) => unknown>(
  name: string,
  fn: F | undefined,
): F | undefined {
  return fn === undefined ? undefined : callable(name, fn);
}
