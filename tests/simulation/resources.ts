import {
  type ResourceAcquireOptions,
  type ResourceContext,
  type ResourceHandle,
  type ResourceRunOptions,
  SharedResource,
  type SharedResourceOptions,
  type SharedResourceSettings,
} from '../../src/shared-resource.ts';
import { Call, type Verdict, Watch } from './calls.ts';
import { Fault, type ClockView, type Sim } from './sim.ts';
import { after } from './tasks.ts';

/** What is loaded. */
export interface Thing {
  readonly number: number;
}

/** One thing on its way from its load to its end. */
interface Life {
  users: number;
  disposedAt: number | undefined;
}

class HandleCall extends Call {
  handle: ResourceHandle<Thing> | undefined;
  thing: Thing | undefined;
}

const IDS = { most: 'L3', active: 'L3', order: 'L3', head: 'L3', once: 'L4' };

class ResourceWatch extends Watch<HandleCall> {
  readonly #of: WatchedResource;
  maxUsers: number;
  /** Which errors callers may get because a load failed. */
  readonly failures = new Set<unknown>();
  readonly lives = new Map<Thing, Life>();
  /** Functions that load and run. */
  loading = 0;
  cancelled = false;
  loadTimeouts = false;
  #made = 0;

  constructor(sim: Sim, name: string, clock: ClockView, of: WatchedResource, maxUsers: number) {
    super(sim, name, clock, IDS);
    this.#of = of;
    this.maxUsers = maxUsers;
    this.room = maxUsers;
  }

  come(options: ResourceRunOptions, accessTimeoutMs: number): HandleCall {
    const call = new HandleCall(
      this.nextId(),
      this.#verdict(options),
      1,
      0,
      { waitTimeoutMs: accessTimeoutMs, ...options },
      this.sim.now,
      this.sim.context.getStore(),
    );
    this.arrived(call);
    return call;
  }

  override allows(call: HandleCall, code: string): boolean {
    if (!call.waits) return false;
    if (code === 'ERR_LOAD_CANCELLED') return this.cancelled;
    return code === 'ERR_LOAD_TIMEOUT' && this.loadTimeouts;
  }

  override check(): void {
    const of = this.#of;
    if (of.active < 0 || of.waiting < 0) this.fail('L3', 'less than nothing');
  }

  override checkAtRest(): void {
    super.checkAtRest();
    const of = this.#of;
    this.room = this.maxUsers;
    const { live, waiting } = this;
    if (live !== of.active) this.fail('L3', `${live} use it, it says ${of.active}`);
    if (waiting.length !== of.waiting)
      this.fail('L4', `${waiting.length} wait, it says ${of.waiting}`);
    const { loaded, loading } = of.stats();
    if (waiting.length > 0 && loaded && live < this.maxUsers) {
      this.fail('L3', `${waiting[0]!.id} waits though there is room`);
    }
    if (waiting.length > 0 && !loaded && !loading) this.fail('L4', 'they wait for nothing');
    const inUse = [...this.lives.values()].filter(({ disposedAt }) => disposedAt === undefined);
    if (inUse.length + this.loading > 2 + this.#of.stats().loadOverruns)
      this.fail('L1', `${inUse.length} are there`);
  }

  override checkAtEnd(): void {
    super.checkAtEnd();
    for (const [{ number }, { disposedAt }] of this.lives) {
      if (disposedAt === undefined) this.fail('L2', `${number} is not disposed of`);
    }
  }

  /** A function that loads. */
  load(context: { readonly signal: AbortSignal }): Thing | Promise<Thing> {
    const { sim } = this;
    const { random } = sim;
    if (++this.loading > 1 + this.#of.stats().loadOverruns)
      this.fail('L1', `${this.loading} loads at once`);
    const over = (fails: boolean): Thing => {
      this.loading--;
      if (fails) {
        const failure = new Fault('of a load');
        this.failures.add(failure);
        throw failure;
      }
      const thing = { number: ++this.#made };
      this.lives.set(thing, { users: 0, disposedAt: undefined });
      return thing;
    };
    const fails = sim.stormy && random.chance(0.3);
    const kind = random.below(4);
    if (kind === 0) return over(fails);
    if (kind === 1) return after(random.below(4), () => {}).then(() => over(fails));
    return new Promise((resolve) => {
      let isOver = false;
      const settle = (stopped: boolean): void => {
        if (isOver) return;
        isOver = true;
        // What it throws is what this rejects with.
        resolve(Promise.resolve(fails || stopped).then(over));
      };
      if (random.chance(0.5)) sim.onAbort(context.signal, () => settle(true));
      sim.clock.setTimeout(() => settle(false), random.within(0, 60));
    });
  }

  dispose(thing: Thing): unknown {
    const life = this.lives.get(thing);
    if (life === undefined) this.fail('L2', 'something foreign is disposed of');
    else if (life.disposedAt !== undefined) this.fail('L2', `${thing.number} is disposed of twice`);
    else {
      if (this.#users(thing) > 0)
        this.fail('L2', `${thing.number} is disposed of while it is used`);
      life.disposedAt = this.sim.now;
    }
    if (this.sim.random.chance(0.2)) throw new Fault('of dispose');
    return this.sim.random.chance(0.5) ? after(3, () => {}) : undefined;
  }

  uses(call: HandleCall, thing: Thing): void {
    call.thing = thing;
    if (this.lives.get(thing)?.disposedAt !== undefined) {
      this.fail('L2', `${thing.number} is used after its end`);
    }
  }

  #users(thing: Thing): number {
    let users = 0;
    for (const call of this.calls) {
      if (call.thing === thing && call.holds(this.sim.now)) users++;
    }
    return users;
  }

  #verdict({ signal, waitTimeoutMs }: ResourceAcquireOptions): Verdict {
    const of = this.#of;
    if (of.isClosed) return 'ERR_CLOSED';
    if (signal?.aborted === true) return 'aborted';
    if (of.active < this.maxUsers && of.stats().loaded) return 'grant';
    return waitTimeoutMs === 0 ? 'ERR_WAIT_TIMEOUT' : 'wait';
  }
}

export class WatchedResource extends SharedResource<Thing> {
  readonly watch: ResourceWatch;
  readonly #accessTimeoutMs: number;
  isClosed = false;

  constructor(
    sim: Sim,
    name: string,
    clock: ClockView,
    options: Omit<SharedResourceOptions<Thing>, 'load'> & { readonly hasFallback: boolean },
  ) {
    const { hasFallback, ...rest } = options;
    let watch: ResourceWatch | undefined;
    super({
      ...rest,
      clock,
      load: (context) => watch!.load(context),
      ...(hasFallback && { fallback: (context) => watch!.load(context) }),
      dispose: (thing) => watch!.dispose(thing),
    });
    this.#accessTimeoutMs = options.accessTimeoutMs ?? 30_000;
    watch = new ResourceWatch(sim, name, clock, this, options.maxUsers ?? 10);
    this.watch = watch;
    watch.loadTimeouts = (options.loadTimeoutMs ?? 300_000) < Infinity;
  }

  hold(options: ResourceAcquireOptions): HandleCall {
    const call = this.watch.come(options, this.#accessTimeoutMs);
    const promise = this.acquire(options).then((handle) => {
      this.watch.begun(call);
      call.outcome = { ok: true, value: handle };
      call.handle = handle;
      this.watch.uses(call, handle.resource);
      return handle;
    });
    this.#follow(call, promise);
    return call;
  }

  giveBack(call: HandleCall): void {
    if (call.handle === undefined) return;
    const first = !call.over;
    this.watch.ended(call, true, call.handle);
    if (call.handle.release() !== first)
      this.watch.fail('L4', 'a handle comes back other than once');
  }

  override run<R>(
    use: (context: ResourceContext<Thing>) => R | PromiseLike<R>,
    options: ResourceRunOptions = {},
  ): Promise<R> {
    const { watch } = this;
    const call = watch.come(options, this.#accessTimeoutMs);
    const promise = super.run(
      watch.tap(call, (context: ResourceContext<Thing>) => {
        watch.uses(call, context.resource);
        return use(context);
      }),
      options,
    );
    this.#follow(call, promise);
    return promise;
  }

  override cancelLoading(): boolean {
    this.watch.cancelled = true;
    return super.cancelLoading();
  }

  override configure(settings: Partial<SharedResourceSettings<Thing>>): void {
    const { maxUsers } = settings;
    if (maxUsers !== undefined) {
      this.watch.maxUsers = maxUsers;
      this.watch.room = Math.max(this.watch.room, maxUsers);
    }
    super.configure(settings);
  }

  override close(): Promise<void> {
    this.isClosed = true;
    this.watch.rejectsWaiting = true;
    return super.close();
  }

  /** What a load fails of is what its callers get. */
  #follow(call: HandleCall, promise: Promise<unknown>): void {
    this.watch.follow(
      call,
      promise.catch((error: unknown) => {
        if (this.watch.failures.has(error) && call.waits)
          call.outcome = { ok: false, value: error };
        throw error;
      }),
    );
  }
}
