import { ClosedError, LoadCancelledError, LoadTimeoutError } from '../errors.ts';
import type { TaskContext } from '../gate.ts';
import { Awaiters } from './awaiters.ts';
import type { InContext } from './context.ts';
import type { Deadline, Deadlines } from './deadlines.ts';
import { Execution } from './execution.ts';
import type { Time } from './time.ts';

/** What the fallback is told: why the load failed. */
export interface FallbackContext extends TaskContext {
  readonly cause: unknown;
}

export interface LoaderSettings<T> {
  load: (context: TaskContext) => T | PromiseLike<T>;
  fallback: ((context: FallbackContext) => T | PromiseLike<T>) | undefined;
  dispose: ((resource: T) => unknown) | undefined;
  loadTimeoutMs: number;
  loadGraceMs: number;
}

/** What a loader tells its owner. All of it in a consistent state; `deliver` ends the turn. */
export interface LoaderHost {
  /** There is an instance to hand out. */
  ready(): void;
  /** Whoever waits for one gets `reasonOf()`, each an error of its own where it is one of ours. */
  failed(reasonOf: () => unknown): void;
  loading(fallback: boolean): void;
  loaded(loadMs: number, fallback: boolean): void;
  loadFailed(error: unknown, loadMs: number, fallback: boolean): void;
  /** A function that was given up has not settled in its grace and is not waited for any longer. */
  loadOverrun(ranMs: number): void;
  disposed(): void;
  disposeFailed(error: unknown): void;
  deliver(): void;
}

/** What was loaded, and what it takes to be rid of it: the `dispose` of when it was loaded. */
export class Instance<T> {
  readonly value: T;
  readonly dispose: ((resource: T) => unknown) | undefined;
  users = 0;
  retired = false;

  constructor(value: T, dispose: ((resource: T) => unknown) | undefined) {
    this.value = value;
    this.dispose = dispose;
  }
}

/** One way to an instance, which everybody who needs one goes together: a load, then the fallback. */
class Flight<T> {
  started = false;
  readonly passengers: { resolve: () => void; reject: (reason: unknown) => void }[] = [];
  /** Why the load failed, when it has. */
  failure: { readonly cause: unknown; readonly reasonOf: () => unknown } | undefined;
  /** What is called next then. */
  fallback: LoaderSettings<T>['fallback'];
}

class Context implements FallbackContext {
  readonly cause: unknown;
  readonly #load: Execution;

  constructor(load: Execution, cause: unknown) {
    this.#load = load;
    this.cause = cause;
  }

  get signal(): AbortSignal {
    return this.#load.signal;
  }
}

/** One call of a function that loads. */
export class Load<T> extends Execution {
  readonly startedAt: number;
  readonly timeoutMs: number;
  readonly dispose: ((resource: T) => unknown) | undefined;
  readonly fallback: boolean;
  deadline: Deadline | undefined;
  /** Whether what it brings is not wanted any more. */
  abandoned = false;
  readonly #over: (load: Load<T>, ok: boolean, value: unknown) => void;

  constructor(
    startedAt: number,
    { dispose, loadTimeoutMs }: LoaderSettings<T>,
    fallback: boolean,
    over: (load: Load<T>, ok: boolean, value: unknown) => void,
  ) {
    super();
    this.startedAt = startedAt;
    this.timeoutMs = loadTimeoutMs;
    this.dispose = dispose;
    this.fallback = fallback;
    this.#over = over;
  }

  protected override settled(ok: boolean, value: unknown): void {
    this.#over(this, ok, value);
  }
}

/**
 * Sees to it that there is one instance when one is needed, and no more than one: a function that
 * loads is called only when none runs and when whatever was swapped out or came too late has been
 * disposed of. At a reload, the instance in service is the other one that there may be.
 *
 * A load that is cancelled or out of time fails at once for those who wait for it, but the next one
 * starts when its function has settled, or `loadGraceMs` later: two loads at once would need twice
 * what one needs. What an abandoned load brings after all is disposed of.
 */
export class Loader<T> {
  readonly settings: LoaderSettings<T>;
  readonly #time: Time;
  readonly #deadlines: Pick<Deadlines<Load<T>>, 'add' | 'remove'>;
  readonly #home: InContext;
  readonly #host: LoaderHost;
  readonly #gone = new Awaiters();
  /** The one in service. */
  #current: Instance<T> | undefined;
  /** Those that are still used, or being disposed of, but not handed out any more. */
  readonly #leaving = new Set<Instance<T>>();
  #flight: Flight<T> | undefined;
  /** After it: a reload that was asked for when the flight had started. */
  #next: Flight<T> | undefined;
  /** The function that runs, be it abandoned. */
  #load: Load<T> | undefined;

  constructor(
    settings: LoaderSettings<T>,
    time: Time,
    deadlines: Pick<Deadlines<Load<T>>, 'add' | 'remove'>,
    home: InContext,
    host: LoaderHost,
  ) {
    this.settings = settings;
    this.#time = time;
    this.#deadlines = deadlines;
    this.#home = home;
    this.#host = host;
  }

  get current(): Instance<T> | undefined {
    return this.#current;
  }

  /** Whether a load runs that is wanted, or waits for its turn. */
  get loading(): boolean {
    return this.#flight !== undefined;
  }

  /** Whether there is nothing at all: no instance and no function that could bring one. */
  get empty(): boolean {
    return this.#current === undefined && this.#leaving.size === 0 && this.#load === undefined;
  }

  /** An instance is needed: the host hears `ready` or `failed`, unless there is one. */
  want(): void {
    if (this.#current !== undefined) return;
    this.#flight ??= new Flight();
    this.#advance();
  }

  /** Resolves when there is an instance. */
  preload(): Promise<void> {
    if (this.#current !== undefined) return Promise.resolve();
    return this.#board((this.#flight ??= new Flight()));
  }

  /** Resolves when one is in service whose load began after this call. */
  reload(): Promise<void> {
    if (this.#flight?.started === true) return this.#board((this.#next ??= new Flight()));
    return this.#board((this.#flight ??= new Flight()));
  }

  /** Gives up what is being loaded. False where nothing is. */
  cancel(reasonOf: () => unknown = () => new LoadCancelledError()): boolean {
    if (this.#flight === undefined) return false;
    const load = this.#load;
    const running = load !== undefined && !load.abandoned;
    if (running) this.#abandon(load);
    for (const flight of [this.#flight, this.#next]) {
      for (const { reject } of flight?.passengers ?? []) reject(reasonOf());
    }
    this.#flight = this.#next = undefined;
    if (this.#current === undefined) this.#host.failed(reasonOf);
    if (running) load.abort(reasonOf());
    return true;
  }

  /** Takes everything out of service. Resolves when nothing is left of it. */
  async close(): Promise<void> {
    this.cancel(() => new ClosedError('The shared resource'));
    const current = this.#current;
    this.#current = undefined;
    if (current !== undefined) this.#retire(current);
    this.#host.deliver();
    if (!this.empty) await this.#gone.wait();
  }

  /** A user of the instance has left. */
  left(instance: Instance<T>): void {
    instance.users--;
    if (instance.retired && instance.users === 0) void this.#dispose(instance);
  }

  /** The deadline of the load has come: the end of its time, or of its grace. */
  expire(load: Load<T>): void {
    load.deadline = undefined;
    if (load.abandoned) {
      this.#load = undefined;
      this.#host.loadOverrun(this.#time.now() - load.startedAt);
      this.#advance();
    } else {
      const reasonOf = (): unknown => new LoadTimeoutError(load.timeoutMs);
      const reason = reasonOf();
      this.#abandon(load);
      this.#failed(load, reason, reasonOf);
      load.abort(reason);
    }
  }

  #board(flight: Flight<T>): Promise<void> {
    const boarded = new Promise<void>((resolve, reject) => {
      flight.passengers.push({ resolve, reject });
    });
    this.#advance();
    return boarded;
  }

  /** Starts what is to be loaded next, unless something has to be over before. */
  #advance(): void {
    const flight = this.#flight;
    if (this.empty) this.#gone.release();
    if (flight === undefined || this.#load !== undefined || this.#leaving.size > 0) return;
    flight.started = true;
    const { failure } = flight;
    const load = new Load<T>(this.#time.now(), this.settings, failure !== undefined, this.#over);
    this.#load = load;
    if (load.timeoutMs < Infinity) {
      load.deadline = this.#deadlines.add(load, load.startedAt + load.timeoutMs);
    }
    this.#host.loading(load.fallback);
    const call = flight.fallback ?? this.settings.load;
    this.#home(() => load.perform(call, new Context(load, failure?.cause)));
  }

  readonly #over = (load: Load<T>, ok: boolean, value: unknown): void => {
    if (load.deadline !== undefined) this.#deadlines.remove(load.deadline);
    if (this.#load === load) this.#load = undefined;
    if (load.abandoned) {
      if (ok) this.#retire(new Instance(value as T, load.dispose));
    } else if (ok) {
      this.#arrived(load, value as T);
    } else {
      this.#failed(load, value, () => value);
    }
    this.#advance();
    this.#host.deliver();
  };

  #arrived(load: Load<T>, value: T): void {
    const { passengers } = this.#flight!;
    const previous = this.#current;
    this.#flight = this.#next;
    this.#next = undefined;
    this.#current = new Instance(value, load.dispose);
    this.#host.loaded(this.#time.now() - load.startedAt, load.fallback);
    for (const { resolve } of passengers) resolve();
    this.#host.ready();
    if (previous !== undefined) this.#retire(previous);
  }

  /** What the load failed of is told when the fallback has failed as well, where there is one. */
  #failed(load: Load<T>, cause: unknown, reasonOf: () => unknown): void {
    const flight = this.#flight!;
    this.#host.loadFailed(cause, this.#time.now() - load.startedAt, load.fallback);
    flight.failure ??= { cause, reasonOf };
    // An instance in service is better than a fallback.
    if (!load.fallback && this.#current === undefined) flight.fallback = this.settings.fallback;
    if (!load.fallback && flight.fallback !== undefined) return;
    this.#flight = this.#next;
    this.#next = undefined;
    for (const { reject } of flight.passengers) reject(flight.failure.reasonOf());
    if (this.#current === undefined) this.#host.failed(flight.failure.reasonOf);
  }

  /** From now on nobody waits for the load. */
  #abandon(load: Load<T>): void {
    const { loadGraceMs } = this.settings;
    if (load.deadline !== undefined) this.#deadlines.remove(load.deadline);
    load.deadline = undefined;
    load.abandoned = true;
    if (loadGraceMs < Infinity) {
      load.deadline = this.#deadlines.add(load, this.#time.now() + loadGraceMs);
    }
  }

  #retire(instance: Instance<T>): void {
    instance.retired = true;
    this.#leaving.add(instance);
    if (instance.users === 0) void this.#dispose(instance);
  }

  async #dispose(instance: Instance<T>): Promise<void> {
    const { dispose, value } = instance;
    try {
      await this.#home(() => dispose?.(value));
      this.#leaving.delete(instance);
      this.#host.disposed();
    } catch (error) {
      this.#leaving.delete(instance);
      this.#host.disposeFailed(error);
    }
    this.#advance();
    this.#host.deliver();
  }
}
