import { AsyncLocalStorage } from 'node:async_hooks';

import type { Clock } from '../../src/clock.ts';
import { InvariantError } from '../../src/errors.ts';
import { ManualClock } from '../../src/testing.ts';
import { Random } from './random.ts';

/** A promise of the library that did not hold. */
export interface Violation {
  /** Of docs/invariants.md, or I1 to I10: see docs/simulation.md. */
  readonly id: string;
  readonly message: string;
}

/** An error that the simulation throws on purpose. */
export class Fault extends Error {
  override readonly name = 'Fault';
}

const TRACE = 60;

/** What everything in one simulation shares: chance, time, the trace, the first violation. */
export class Sim {
  readonly random: Random;
  readonly clock: ManualClock = new ManualClock();
  /** Everything that the world calls is called with a token of its own in here. */
  readonly context: AsyncLocalStorage<object> = new AsyncLocalStorage();
  /** When what is no promise of the platform settles, by its maker. */
  readonly settlements: WeakMap<object, Promise<unknown>> = new WeakMap();
  /** Tasks that settle when the world says so. */
  readonly held: Set<{ finish(): void }> = new Set();
  /** Faults that were thrown where they have to surface as uncaught exceptions. */
  readonly thrown: Set<unknown> = new Set();
  /** The signals that calls were made with, while anybody may listen to them. */
  readonly signals: Set<AbortSignal> = new Set();
  /** How many listeners on a signal are the world's. */
  readonly ownListeners: WeakMap<AbortSignal, number> = new WeakMap();
  violation: Violation | undefined;
  /** What led to the violation. */
  tail: readonly string[] = [];
  /** How many things the world has done: who sees it change was interrupted. */
  acts = 0;
  /** Whether faults are still injected: not while everything is being brought to its end. */
  stormy = true;
  /** Does something, where user code is being called. */
  reenter: () => void = () => {};
  readonly #only: ReadonlySet<string> | undefined;
  readonly #trace: string[] = [];
  #logged = 0;
  #hash = 0x811c9dc5;

  /** `only`: the promises of which anything is said; of all where it is not given. */
  constructor(seed: number, only?: ReadonlySet<string>) {
    this.random = new Random(seed);
    this.#only = only;
  }

  get now(): number {
    return this.clock.now();
  }

  /** Of everything that was logged: two runs of one seed have the same. */
  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0');
  }

  #latest(): string[] {
    const start = Math.max(0, this.#logged - TRACE);
    return Array.from(
      { length: this.#logged - start },
      (_, index) => this.#trace[(start + index) % TRACE]!,
    );
  }

  log(what: string): void {
    const entry = `${this.clock.now()} ${what}`;
    this.#trace[this.#logged++ % TRACE] = entry;
    let hash = this.#hash;
    for (let i = 0; i < entry.length; i++) hash = Math.imul(hash ^ entry.charCodeAt(i), 0x01000193);
    this.#hash = hash;
  }

  /** Only the first one counts: what comes after it may follow from it. */
  fail(id: string, message: string): void {
    if (this.violation !== undefined || this.#only?.has(id) === false) return;
    this.log(`${id} is broken: ${message}`);
    this.violation = { id, message };
    this.tail = this.#latest();
  }

  /** An error of the library that says itself which promise it has found broken. */
  inspect(error: unknown): void {
    if (error instanceof InvariantError) this.fail(error.invariant, error.message);
  }

  /** Listens to a signal for the world. */
  onAbort(signal: AbortSignal, listener: () => void): void {
    this.ownListeners.set(signal, (this.ownListeners.get(signal) ?? 0) + 1);
    signal.addEventListener('abort', listener);
  }

  /** Throws, in some place where that must not matter, with some probability. */
  perhapsThrow(probability: number): void {
    if (!this.stormy || !this.random.chance(probability)) return;
    const fault = new Fault('thrown by a callback');
    this.thrown.add(fault);
    throw fault;
  }
}

/** The clock as one primitive sees it, which tells its timers from those of the others. */
export class ClockView implements Clock {
  readonly #sim: Sim;
  readonly #early: boolean;
  readonly #back: boolean;
  #reading = -Infinity;
  readonly #live = new Map<object, unknown>();
  /** How many timers were set since the last drained state. */
  set = 0;

  /**
   * `early`: timers may fire a ms early. `back`: a reading may be lower than one before, for a
   * moment. Primitives have to cope with both.
   */
  constructor(sim: Sim, faults: { readonly early: boolean; readonly back: boolean }) {
    this.#sim = sim;
    this.#early = faults.early;
    this.#back = faults.back;
  }

  /** How many timers are armed. */
  get armed(): number {
    return this.#live.size;
  }

  now(): number {
    const now = this.#sim.now;
    if (this.#back && this.#reading === now && now > 9 && this.#sim.random.chance(0.05)) {
      return now - this.#sim.random.within(1, 9);
    }
    this.#reading = now;
    return now;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    if (++this.set > 2000) {
      this.#sim.fail('I8', 'a timer is armed over and over again at one instant');
      return {};
    }
    if (!(ms >= 0 && ms < 2 ** 31)) this.#sim.fail('I8', `a timer of ${ms} ms`);
    const handle = {};
    const delay = this.#early && ms >= 2 && this.#sim.random.chance(0.3) ? ms - 1 : ms;
    const timer = this.#sim.clock.setTimeout(() => {
      this.#live.delete(handle);
      callback();
    }, delay);
    this.#live.set(handle, timer);
    return handle;
  }

  clearTimeout(handle: unknown): void {
    this.#sim.clock.clearTimeout(this.#live.get(handle as object));
    this.#live.delete(handle as object);
  }
}
