import { settle } from '../../src/testing.ts';
import { Fault, Sim, type Violation } from './sim.ts';
import { World } from './world.ts';

export interface RunResult {
  readonly seed: number;
  /** How many were made; where something was found, the number of the step that it was found at. */
  readonly steps: number;
  /** Of everything that happened, in order. */
  readonly hash: string;
  readonly violation: Violation | undefined;
  /** The latest things that happened. */
  readonly trace: readonly string[];
}

/** How many rounds everything may take to come to its end. */
const MAX_ROUNDS = 300;

/**
 * Makes so many steps, each an action or a move of the clock, and checks after each. The steps are
 * those of worlds one after the other: each lasts some hundred steps and is then brought to its end.
 * The same seed gives the same run. Nothing else may run in the process meanwhile.
 */
export async function simulate(
  seed: number,
  steps: number,
  only?: ReadonlySet<string>,
): Promise<RunResult> {
  const sim = new Sim(seed, only);
  using _ = catchUncaught(sim);
  // Most of the time would go into the stacks of errors that are thrown on purpose.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  let made = 0;
  try {
    while (made < steps && sim.violation === undefined) {
      const world = new World(sim);
      const end = Math.min(steps, made + sim.random.within(30, 300));
      while (made < end && sim.violation === undefined) {
        await step(sim, world);
        made++;
      }
      for (let round = 0; sim.violation === undefined; round++) {
        made++;
        if (round === MAX_ROUNDS || world.windDown(round)) {
          world.checkAtEnd();
          break;
        }
        while (sim.violation === undefined && world.letGo()) await settle();
        await sim.clock.advance(round < 10 ? 5 : 50 * round);
        world.checkAtRest();
      }
    }
  } catch (error) {
    sim.inspect(error);
    sim.fail('I6', `something throws: ${String(error)}`);
  }
  Error.stackTraceLimit = stackTraceLimit;
  return { seed, steps: made, hash: sim.hash, violation: sim.violation, trace: sim.tail };
}

async function step(sim: Sim, world: World): Promise<void> {
  const { random } = sim;
  if (random.chance(0.72)) {
    world.act();
  } else {
    const ms = random.pick([0, 1, 1, 1, 2, 3, 5, 8, 13, 30]);
    sim.log(`+${ms} ms`);
    await sim.clock.advance(ms);
  }
  if (random.chance(0.8)) {
    await settle();
    world.checkAtRest();
  } else {
    for (let hops = random.below(6); hops > 0; hops--) await Promise.resolve();
    world.check();
  }
}

/** What reaches the process must have been thrown by a callback, which is the only way to see it. */
function catchUncaught(sim: Sim): Disposable {
  const names = ['uncaughtException', 'unhandledRejection'] as const;
  const theirs = names.map((name) => process.listeners(name as 'uncaughtException'));
  const onException = (error: unknown): void => {
    if (sim.thrown.delete(error)) return;
    sim.inspect(error);
    sim.fail('I6', `uncaught: ${error instanceof Error ? error.stack : String(error)}`);
  };
  const onRejection = (reason: unknown): void => {
    sim.inspect(reason);
    const isFault = reason instanceof Fault;
    sim.fail('Q6', `unhandled rejection: ${isFault ? 'Fault ' : ''}${String(reason)}`);
  };
  for (const name of names) process.removeAllListeners(name);
  process.on('uncaughtException', onException).on('unhandledRejection', onRejection);
  return {
    [Symbol.dispose](): void {
      process.off('uncaughtException', onException).off('unhandledRejection', onRejection);
      for (const [index, name] of names.entries()) {
        for (const listener of theirs[index]!) process.on(name as 'uncaughtException', listener);
      }
    },
  };
}
