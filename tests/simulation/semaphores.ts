import {
  type AcquireOptions,
  type Permit,
  Semaphore,
  type SemaphoreContext,
  type SemaphoreEvents,
  type SemaphoreGauges,
  type SemaphoreOptions,
  type SemaphoreRunOptions,
} from '../../src/semaphore.ts';
import { Call, type Verdict, Watch } from './calls.ts';
import type { ClockView, Sim } from './sim.ts';

export class PermitCall extends Call {
  permit: Permit | undefined;
  overheldAt = Infinity;
}

const IDS = { most: 'S1', active: 'S2', order: 'S3', head: 'S3', once: 'S4' };

class SemaphoreWatch extends Watch<PermitCall> {
  readonly #of: WatchedSemaphore;
  readonly #maxWaiting: number;
  /** What the events alone tell, where they are listened to. */
  replay: { readonly waiting: Map<number, number>; readonly held: Map<number, number> } | undefined;

  constructor(sim: Sim, name: string, clock: ClockView, of: WatchedSemaphore, maxWaiting: number) {
    super(sim, name, clock, IDS);
    this.#of = of;
    this.#maxWaiting = maxWaiting;
    this.room = of.capacity;
  }

  verdictOn({ weight = 1, signal, waitTimeoutMs }: AcquireOptions): Verdict {
    const of = this.#of;
    if (of.isClosed) return 'ERR_CLOSED';
    if (signal?.aborted === true) return 'aborted';
    if (weight > of.capacity) return 'ERR_EXCEEDS_CAPACITY';
    if (of.waiting === 0 && weight <= of.capacity - of.active) return 'grant';
    if (of.waiting >= this.#maxWaiting) return 'ERR_QUEUE_FULL';
    return waitTimeoutMs === 0 ? 'ERR_WAIT_TIMEOUT' : 'wait';
  }

  come(options: SemaphoreRunOptions = {}): PermitCall {
    const call = new PermitCall(
      this.nextId(),
      this.verdictOn(options),
      options.weight ?? 1,
      0,
      options,
      this.sim.now,
      this.sim.context.getStore(),
    );
    this.arrived(call);
    return call;
  }

  override check(): void {
    const of = this.#of;
    if (of.available !== Math.max(0, of.capacity - of.active)) this.fail('S2', 'available');
    if (of.active < 0 || of.waiting < 0) this.fail('S2', 'less than nothing');
    if (of.waiting > this.#maxWaiting) this.fail('S4', 'too many wait');
    const { replay } = this;
    if (replay === undefined) return;
    const held = sum(replay.held.values());
    if (held !== of.active || replay.waiting.size !== of.waiting) {
      this.fail(
        'I9',
        `events say ${held} active and ${replay.waiting.size} waiting, it says ${of.active} and ${of.waiting}`,
      );
    }
  }

  override checkAtRest(): void {
    super.checkAtRest();
    const of = this.#of;
    const { live, waiting, sim, clock } = this;
    this.room = Math.max(of.capacity, 0);
    if (live !== of.active) this.fail('S2', `${live} are out, it says ${of.active}`);
    if (waiting.length !== of.waiting) {
      this.fail('S4', `${waiting.length} wait, it says ${of.waiting}`);
    }
    const impossible = waiting.find(({ weight }) => weight > of.capacity);
    if (impossible !== undefined) this.fail('S4', `${impossible.id} waits for what can never be`);
    const [head] = waiting;
    if (head !== undefined && head.weight <= of.capacity - live) {
      this.fail('S3', `${head.id} waits for ${head.weight}, ${of.capacity - live} are free`);
    }
    let deadlines = 0;
    let holds = 0;
    for (const call of this.calls) {
      const { waitTimeoutMs = Infinity, runTimeoutMs = Infinity } = call.limits;
      if (
        call.waits ? waitTimeoutMs < Infinity : call.holds(sim.now) && isTimed(call, runTimeoutMs)
      ) {
        deadlines = 1;
      }
      if (
        call.holds(sim.now) &&
        call.startedAt! + of.maxHoldMs > sim.now &&
        of.maxHoldMs < Infinity
      ) {
        holds = 1;
      }
    }
    if (clock.armed !== deadlines + holds) {
      this.fail('I8', `${clock.armed} timers, ${deadlines + holds} needed`);
    }
  }
}

/** Whether its end, or that of its grace, is waited for. */
export function isTimed(call: Call, runTimeoutMs: number): boolean {
  return call.answeredAt === undefined ? runTimeoutMs < Infinity : call.graceEndsAt < Infinity;
}

function sum(numbers: Iterable<number>): number {
  let total = 0;
  for (const number of numbers) total += number;
  return total;
}

/** A semaphore that tells its ledger of every call, whoever makes it. */
export class WatchedSemaphore extends Semaphore {
  readonly watch: SemaphoreWatch;
  readonly maxHoldMs: number;
  isClosed = false;

  constructor(sim: Sim, name: string, clock: ClockView, options: SemaphoreOptions, heard: boolean) {
    super({ ...options, clock });
    this.maxHoldMs = options.maxHoldMs ?? Infinity;
    this.watch = new SemaphoreWatch(sim, name, clock, this, options.maxWaiting ?? Infinity);
    if (heard) this.#listen();
  }

  /** An `acquire` whose permit the world gives back. */
  hold(options: AcquireOptions): PermitCall {
    const call = this.watch.come(options);
    const before = this.#gauges();
    const promise = this.acquire(options);
    this.#checkEffect(call, before);
    this.watch.follow(
      call,
      promise.then((permit) => {
        this.#got(call, permit);
        return permit;
      }),
    );
    return call;
  }

  tryHold(weight: number): PermitCall | undefined {
    const call = this.watch.come({ weight, waitTimeoutMs: 0 });
    this.watch.calls.delete(call);
    const permit = this.tryAcquire(weight);
    if ((permit !== undefined) !== (call.verdict === 'grant')) {
      this.watch.fail('S3', `tryAcquire does not do as expected: ${call.verdict}`);
    }
    if (permit === undefined) return undefined;
    this.watch.calls.add(call);
    this.#got(call, permit);
    call.answeredAt = this.watch.sim.now;
    return call;
  }

  giveBack(call: PermitCall): void {
    const { permit } = call;
    if (permit === undefined) return;
    const first = !call.over;
    this.watch.sim.log(`semaphore ${call.id} gives back`);
    this.watch.ended(call, true, permit);
    if (permit.released === first) this.watch.fail('S4', 'released is wrong');
    if (permit.release() !== first) this.watch.fail('S4', 'a permit comes back other than once');
  }

  override run<T>(
    task: (context: SemaphoreContext) => T | PromiseLike<T>,
    options?: SemaphoreRunOptions,
  ): Promise<T> {
    const call = this.watch.come(options);
    const before = this.#gauges();
    const promise = super.run(this.watch.tap(call, task), options);
    this.#checkEffect(call, before);
    this.watch.follow(call, promise);
    return promise;
  }

  override resize(capacity: number): void {
    this.watch.sim.log(`semaphore of ${capacity}`);
    const { acts } = this.watch.sim;
    this.watch.room = Math.max(this.watch.room, capacity);
    for (const call of this.watch.calls) {
      if (call.weight > capacity) call.allowed = 'ERR_EXCEEDS_CAPACITY';
    }
    super.resize(capacity);
    // It may have been changed again by a callback.
    if (this.watch.sim.acts === acts && this.capacity !== capacity) {
      this.watch.fail('S1', `its capacity is ${this.capacity}, not ${capacity}`);
    }
  }

  override close(options?: { readonly waiting?: 'finish' | 'reject' | undefined }): void {
    this.isClosed = true;
    if (options?.waiting === 'reject') this.watch.rejectsWaiting = true;
    super.close(options);
  }

  #got(call: PermitCall, permit: Permit): void {
    this.watch.begun(call);
    call.outcome = { ok: true, value: permit };
    call.permit = permit;
    if (permit.weight !== call.weight) this.watch.fail('S2', 'a permit of another weight');
  }

  #gauges(): { readonly acts: number; readonly active: number; readonly waiting: number } {
    return { acts: this.watch.sim.acts, active: this.active, waiting: this.waiting };
  }

  /** What a call has done when it returns, unless something else happened in it. */
  #checkEffect(call: PermitCall, before: { acts: number; active: number; waiting: number }): void {
    if (this.watch.sim.acts !== before.acts) return;
    const { verdict } = call;
    const joined = verdict === 'wait' ? 1 : 0;
    if (this.waiting !== before.waiting + joined) {
      this.watch.fail(
        'S4',
        `${call.id} (${verdict}): ${before.waiting} waited, then ${this.waiting}`,
      );
    }
    const taken =
      verdict === 'grant' && !(call.over && call.outcome?.ok === false) ? call.weight : 0;
    if (call.startedAt === undefined && this.active !== before.active + taken) {
      this.watch.fail(
        'S2',
        `${call.id} (${verdict}): ${before.active} active, then ${this.active}`,
      );
    }
  }

  #listen(): void {
    const { watch } = this;
    const waiting = new Map<number, number>();
    const held = new Map<number, number>();
    watch.replay = { waiting, held };
    const on = <Name extends keyof SemaphoreEvents>(
      name: Name,
      apply: (event: SemaphoreEvents[Name]) => void,
    ): void => {
      this.on(name, (event) => {
        apply(event);
        const gauges: SemaphoreGauges = event;
        if (gauges.active !== sum(held.values()) || gauges.waiting !== waiting.size) {
          watch.fail('I9', `the event ${name} says ${gauges.active} and ${gauges.waiting}`);
        }
        // Nothing else has happened that was not told: then everything has to hold.
        const [weight = Infinity] = waiting.values();
        const isLatest = waiting.size === this.waiting && sum(held.values()) === this.active;
        if (isLatest && weight <= this.available) {
          watch.fail('S3', `a listener of ${name} sees one who waits for what is there`);
        }
      });
    };
    const leaves = ({ id }: { readonly id: number }): void => {
      if (!waiting.delete(id)) watch.fail('I9', 'one leaves the line who was not in it');
    };
    on('queued', ({ id, weight }) => waiting.set(id, weight));
    on('acquired', ({ id, weight }) => {
      const [first] = waiting.keys();
      if (first !== undefined && first !== id) watch.fail('S3', `${id} is let in before ${first}`);
      waiting.delete(id);
      held.set(id, weight);
    });
    on('released', ({ id }) => {
      if (!held.delete(id)) watch.fail('I9', 'a release of what was not held');
    });
    on('cancelled', leaves);
    on('timedOut', leaves);
    on('refused', () => {});
    on('overheld', ({ id }) => {
      if (!held.has(id)) watch.fail('I9', 'overheld is what is not held');
    });
    on('overrun', () => {});
    on('resized', () => {});
    on('saturated', ({ available }) => {
      if (available !== 0) watch.fail('I9', 'saturated, and something is available');
    });
    on('idle', ({ active, waiting: left }) => {
      if (active > 0 || left > 0) watch.fail('I9', 'idle, and somebody is there');
    });
    on('closed', () => {});
  }
}
