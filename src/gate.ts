import { callable, readOptions } from './internal/assert.ts';
import { optionNames } from './internal/options.ts';

/** What every gate hands to the task that it lets through. */
export interface TaskContext {
  /**
   * Aborted when the task should stop: the caller gave up, a time limit ran out, or whatever the
   * gate has as a reason. Made when first read.
   */
  readonly signal: AbortSignal;
}

/** Anything that admits work: `run` calls the task when its turn has come. */
export interface Gate<Context extends TaskContext = TaskContext, Options extends object = object> {
  /**
   * Calls `task` once there is room and settles as it does; rejects without calling it when the
   * caller is refused, gives up or runs out of time. Never throws synchronously.
   */
  run<T>(task: (context: Context) => T | PromiseLike<T>, options?: Options): Promise<T>;
}

/** The options that every gate understands. */
export interface RunOptions {
  /** Ends the wait, or aborts the task's own signal; the call rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
}

type AnyGate = Gate<never, never>;
type ContextOf<G> = G extends Gate<infer Context, never> ? Context : never;
type OptionsOf<G> = G extends Gate<never, infer Options> ? Options : never;
type Intersection<U> = (U extends unknown ? (of: U) => void : never) extends (of: infer I) => void
  ? I
  : never;

/** All contexts of several gates in one, and all their options in one. */
export type ComposedGate<Gates extends readonly AnyGate[]> = Gate<
  Intersection<ContextOf<Gates[number]>> & TaskContext,
  Intersection<OptionsOf<Gates[number]>> & RunOptions
>;

/**
 * Several gates as one, outermost first: `compose(sessions, queue, limiter)` enters a session, waits
 * in the queue, then for the limiter, and calls the task with everything they hand out in one
 * context. Each gate gets those of the options that it understands; a name that none understands is
 * a TypeError. The signal of each gate's context is the `signal` option of the next one in, so that
 * whatever ends an outer gate's hold also ends the waits and the task inside.
 *
 * Whether the task finishes, fails or is aborted half-way through the gates, every gate that was
 * entered gets its place back, innermost first.
 *
 * @example
 * ```ts
 * const gate = compose(queue, limiter);
 * await gate.run(({ signal, ticket, lease }) => callModel({ signal }), { priority: 1, cost: 3 });
 * ```
 */
export function compose<const Gates extends readonly [AnyGate, ...AnyGate[]]>(
  ...gates: Gates
): ComposedGate<Gates> {
  const checked: readonly unknown[] = gates;
  if (checked.length === 0) throw new TypeError('Expected at least one gate to compose.');
  for (const gate of checked) {
    const run = (gate as Record<'run', unknown> | undefined)?.run;
    callable('run of each gate', run as () => unknown);
  }
  return new Composition(checked as readonly NamedGate[]) as unknown as ComposedGate<Gates>;
}

/**
 * `fn` behind a gate: the same parameters, `this` and result, as a promise. `options` are the gate's,
 * or a function that makes them from the arguments of each call.
 *
 * @example
 * ```ts
 * const embed = wrap(limiter, (text: string) => model.embed(text), (text) => ({ cost: text.length }));
 * ```
 */
export function wrap<This, Args extends unknown[], Result, Options extends object>(
  gate: Gate<never, Options>,
  fn: (this: This, ...args: Args) => Result | PromiseLike<Result>,
  options?: Options | ((...args: Args) => Options | undefined),
): (this: This, ...args: Args) => Promise<Result> {
  callable('fn', fn);
  return function (this: This, ...args: Args): Promise<Result> {
    try {
      const given = typeof options === 'function' ? options(...args) : options;
      return gate.run(() => fn.apply(this, args), given);
    } catch (error) {
      return Promise.reject(error);
    }
  };
}

type LooseOptions = Record<string, unknown>;
type NamedGate = Gate<TaskContext, LooseOptions> & {
  readonly [optionNames]?: ReadonlySet<string> | undefined;
};

class Composition implements Gate<TaskContext, LooseOptions> {
  readonly #gates: readonly NamedGate[];

  /** Undefined when a gate that is not of ours takes part: it may understand anything. */
  readonly [optionNames]: ReadonlySet<string> | undefined;

  constructor(gates: readonly NamedGate[]) {
    this.#gates = [...gates];
    const names = gates.map((gate) => gate[optionNames]);
    this[optionNames] = names.includes(undefined)
      ? undefined
      : new Set(names.flatMap((set) => [...set!]));
  }

  run<T>(task: (context: TaskContext) => T | PromiseLike<T>, options?: LooseOptions): Promise<T> {
    try {
      callable('task', task);
      const all = readOptions('the composed gate', options, this[optionNames]);
      return this.#enter(0, [], task, all);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #enter<T>(
    index: number,
    contexts: readonly TaskContext[],
    task: (context: TaskContext) => T | PromiseLike<T>,
    options: LooseOptions,
  ): Promise<T> {
    const gate = this.#gates[index]!;
    const own: LooseOptions = {};
    for (const [name, value] of Object.entries(options)) {
      if (gate[optionNames]?.has(name) ?? true) own[name] = value;
    }
    const outer = contexts.at(-1);
    if (outer !== undefined) own['signal'] = outer.signal;
    return gate.run((context) => {
      const entered = [...contexts, context];
      return index + 1 === this.#gates.length
        ? task(merge(entered))
        : this.#enter(index + 1, entered, task, options);
    }, own);
  }
}

/** One context with everything of all of them, inner ones first; nothing is read until asked for. */
function merge(contexts: readonly TaskContext[]): TaskContext {
  if (contexts.length === 1) return contexts[0]!;
  const merged = {};
  for (const context of contexts) {
    for (
      let holder: object = context;
      holder !== null && holder !== Object.prototype;
      holder = Object.getPrototypeOf(holder) as object
    ) {
      for (const name of Object.getOwnPropertyNames(holder)) {
        if (name === 'constructor') continue;
        Object.defineProperty(merged, name, {
          get: () => (context as unknown as LooseOptions)[name],
          enumerable: true,
          configurable: true,
        });
      }
    }
  }
  return merged as TaskContext;
}
