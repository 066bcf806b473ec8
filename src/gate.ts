import { tellAnswered } from './internal/answered.ts';
import { callable, readOptions, withMethods } from './internal/assert.ts';
import { mergeContexts } from './internal/merge.ts';
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

/** What every gate can be taken for: a gate is the more special the more its context has. */
type AnyGate = Gate<TaskContext, never>;
type ContextOf<G> = G extends Gate<infer Context, never> ? Context : never;
type OptionsOf<G> = G extends Gate<TaskContext, infer Options> ? Options : never;
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
 * context; of two things of one name, the inner gate's counts. Each gate gets those of the options
 * that it understands (a `waitTimeoutMs` limits each wait by itself); a name that none understands
 * is a TypeError. The signal of each gate's context is the `signal` option of the next one in, so
 * that whatever ends an outer gate's hold also ends the waits and the task inside.
 *
 * Whether the task finishes, fails or is aborted half-way through the gates, every gate that was
 * entered gets its place back, innermost first. A task that has been called keeps every place until
 * it has settled, even where its caller was answered before. Such an answer goes past the gates around
 * the one that gives it, which hear of it when the task has settled: what tries again belongs around the
 * composed gate, not into it.
 *
 * @example
 * ```ts
 * const gate = compose(queue, limiter);
 * await gate.run(({ signal, lease }) => callModel(prompt, { signal }), { priority: 1, cost: 3 });
 * ```
 */
export function compose<const Gates extends readonly [AnyGate, ...AnyGate[]]>(
  ...gates: Gates
): ComposedGate<Gates> {
  const checked: readonly unknown[] = gates;
  if (checked.length === 0) throw new TypeError('Expected at least one gate to compose.');
  for (const gate of checked) withMethods('gate', gate, 'run');
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
  gate: Gate<TaskContext, Options>,
  fn: (this: This, ...args: Args) => Result | PromiseLike<Result>,
  options?: NoInfer<Options> | ((...args: Args) => NoInfer<Options> | undefined),
): (this: This, ...args: Args) => Promise<Result> {
  withMethods('gate', gate, 'run');
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
    this.#gates = gates;
    const names = gates.map((gate) => gate[optionNames]);
    this[optionNames] = names.includes(undefined)
      ? undefined
      : new Set(names.flatMap((set) => [...set!]));
  }

  run<T>(task: (context: TaskContext) => T | PromiseLike<T>, options?: LooseOptions): Promise<T> {
    return new Promise((resolve, reject) => {
      callable('task', task);
      const all = readOptions('the composed gate', options, this[optionNames]);

      /** Goes through the gate at `index` and all behind it; settles when none of them is held. */
      const enter = async (index: number, contexts: readonly TaskContext[]): Promise<T> => {
        const gate = this.#gates[index];
        if (gate === undefined) return task(mergeContexts(contexts) as TaskContext);
        const inside = new Set<Promise<T>>();
        const pass = (context: TaskContext): Promise<T> => {
          const going = enter(index + 1, [...contexts, context]).finally(() =>
            inside.delete(going),
          );
          inside.add(going);
          return going;
        };
        const answer = (ok: boolean, value: unknown): void => {
          if (inside.size === 0) return;
          if (ok) resolve(value as T);
          else reject(value);
          tellAnswered(contexts, ok, value);
        };
        try {
          const value = await gate.run(pass, optionsFor(gate, all, contexts.at(-1)?.signal));
          answer(true, value);
          return value;
        } catch (error) {
          answer(false, error);
          throw error;
        } finally {
          // A gate answers at once when the caller gives up or time runs out, and keeps its own place
          // until the task has settled. So must the gates around it. One that is not of ours may
          // also have an answer before that, or call the task again.
          while (inside.size > 0) await Promise.allSettled(inside);
        }
      };
      enter(0, []).then(resolve, reject);
    });
  }
}

/** Those of all options that the gate understands, with the signal of the gate around it. */
function optionsFor(
  gate: NamedGate,
  all: LooseOptions,
  signal: AbortSignal | undefined,
): LooseOptions {
  const names = gate[optionNames];
  const own = Object.fromEntries(
    Object.entries(all).filter(([name]) => names === undefined || names.has(name)),
  );
  return signal === undefined ? own : { ...own, signal };
}
