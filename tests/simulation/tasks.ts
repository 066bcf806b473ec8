import { Fault, type Sim } from './sim.ts';

const KINDS = [
  'value',
  'throw',
  'resolve',
  'reject',
  'later',
  'laterFails',
  'held',
  'heldFails',
  'thenable',
  'twice',
  'badThen',
  'ownThen',
] as const;

/** What a task does with the abort of its signal. */
const REACTIONS = ['stop', 'stopLater', 'ignore'] as const;

type Kind = (typeof KINDS)[number];

/** What the library calls: a task that ends in one of many ways, good and bad. */
export class Task {
  readonly kind: Kind;
  readonly #sim: Sim;
  readonly #reaction: (typeof REACTIONS)[number];
  readonly #readsSignal: boolean;
  readonly #hops: number;
  readonly #ms: number;
  readonly value: unknown;
  #finish: ((ok: boolean, value: unknown) => void) | undefined;

  constructor(sim: Sim) {
    const { random } = sim;
    this.#sim = sim;
    this.kind = random.chance(0.45) ? 'held' : random.pick(KINDS);
    this.#reaction = random.pick(REACTIONS);
    this.#readsSignal = random.chance(0.7);
    this.#hops = random.below(6);
    this.#ms = random.within(0, 12);
    this.value = /[tT]hrow|[fF]ails|reject|badThen/.test(this.kind)
      ? new Fault(`of a task: ${this.kind}`)
      : { of: this.kind };
  }

  get fails(): boolean {
    return this.value instanceof Fault;
  }

  start(context: { readonly signal: AbortSignal }): unknown {
    if (this.#readsSignal) this.#listen(context.signal);
    this.#sim.reenter();
    if (this.kind === 'value') return this.value;
    if (this.kind === 'throw') throw this.value;
    return this.#pending();
  }

  /** The world says that it is over. */
  finish(): void {
    this.#sim.held.delete(this);
    this.#finish?.(!this.fails, this.value);
  }

  #listen(signal: AbortSignal): void {
    this.#sim.onAbort(signal, () => {
      this.#sim.reenter();
      if (this.#reaction === 'stop') this.#finish?.(false, signal.reason);
      else if (this.#reaction === 'stopLater') {
        this.#sim.clock.setTimeout(() => this.#finish?.(false, signal.reason), this.#ms);
      }
      this.#sim.perhapsThrow(0.05);
    });
  }

  #pending(): unknown {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#finish = (ok, value) => {
      this.#sim.held.delete(this);
      if (ok) resolve(value);
      else reject(value);
    };
    const settle = (): void => this.finish();
    switch (this.kind) {
      case 'resolve':
      case 'reject':
        void after(this.#hops, settle);
        break;
      case 'later':
      case 'laterFails':
        this.#sim.clock.setTimeout(settle, this.#ms);
        break;
      case 'held':
      case 'heldFails':
        this.#sim.held.add(this);
        break;
      default:
        return this.#hostile(promise, settle);
    }
    return promise;
  }

  /** Things to wait for that keep no rules; `promise` settles when they first do. */
  #hostile(promise: Promise<unknown>, settle: () => void): unknown {
    promise.then(undefined, () => {});
    if (this.kind === 'ownThen') {
      const own = Promise.resolve(this.value);
      return Object.assign(own, {
        then: (ok: (value: unknown) => unknown, no: (error: unknown) => unknown) =>
          Promise.prototype.then.call(
            own,
            (value: unknown) => {
              void ok(value);
              return ok(value);
            },
            no,
          ),
      });
    }
    const { value, kind } = this;
    const thenable =
      kind === 'badThen'
        ? {
            get then(): never {
              settle();
              throw value;
            },
          }
        : {
            then: (ok: (value: unknown) => void, no: (error: unknown) => void): void => {
              settle();
              ok(value);
              if (kind === 'thenable') return;
              ok({ second: true });
              no(new Fault('after the settlement'));
              throw new Fault('after the settlement');
            },
          };
    this.#sim.settlements.set(thenable, promise);
    return thenable;
  }
}

/** Calls `what` after so many microtasks. */
export async function after(hops: number, what: () => void): Promise<void> {
  for (let i = 0; i < hops; i++) await Promise.resolve();
  what();
}
