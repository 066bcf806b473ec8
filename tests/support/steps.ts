import { fc } from '@fast-check/vitest';
import { type ManualClock, settle } from 'sluice/testing';

type Outcome = 'ok' | 'failed';

interface Finishing {
  finish?: (outcome: Outcome) => void;
}

/** A primitive and its model, side by side. */
interface SideBySide<Call extends Finishing> {
  readonly clock: ManualClock;
  readonly model: {
    now: number;
    /** When something is due next by itself. */
    readonly nextAt: number;
    tick(): void;
    abort(signal: AbortSignal): void;
    finish(call: Call, outcome: Outcome): void;
  };
  readonly controllers: AbortController[];
  readonly calls: readonly Call[];
  /** Compares what is to be seen at once. */
  check(): void;
  /** Compares what is to be seen when everything that needs no time has happened. */
  settled(): Promise<void>;
}

/** Something that happens within one turn. */
interface Act<System> {
  readonly name: string;
  readonly act: (system: System) => void;
}

type Step<System extends object> = fc.AsyncCommand<System, System>;

interface Steps<System extends object> {
  act(name: string, does: (system: System) => void): Act<System>;
  /** A turn of the event loop, in which several things happen. */
  turn(acts: fc.Arbitrary<Act<System>>, maxLength: number): fc.Arbitrary<Step<System>>;
  /** One of the signals is aborted; most are replaced by a new one then. */
  readonly abort: fc.Arbitrary<Act<System>>;
  /** One of the tasks that run ends. */
  readonly finish: fc.Arbitrary<Step<System>>;
  /** Time passes. */
  readonly advance: fc.Arbitrary<Step<System>>;
}

/** What happens to a primitive and to its model, as commands of fast-check. */
export function stepsOf<Call extends Finishing, System extends SideBySide<Call>>(
  signals: number,
  span: fc.Arbitrary<number>,
): Steps<System> {
  const act = (name: string, does: (system: System) => void): Act<System> => ({ name, act: does });
  const step = (name: string, run: (system: System) => Promise<void>): Step<System> => ({
    check: () => true,
    run,
    toString: () => name,
  });
  return {
    act,
    turn: (one, maxLength) =>
      fc.array(one, { minLength: 1, maxLength, size: 'max' }).map((acts) =>
        step(acts.map(({ name }) => name).join(' & '), async (system) => {
          for (const each of acts) {
            each.act(system);
            system.check();
          }
          await system.settled();
        }),
      ),
    abort: fc.tuple(fc.nat(signals - 1), fc.nat(4)).map(([which, stays]) =>
      act(`abort(${which}${stays === 0 ? ', stays' : ''})`, ({ controllers, model }) => {
        const controller = controllers[which]!;
        if (!controller.signal.aborted) {
          controller.abort(`aborted ${which}`);
          model.abort(controller.signal);
        }
        if (stays > 0) controllers[which] = new AbortController();
      }),
    ),
    finish: fc.tuple(fc.nat(), fc.constantFrom<Outcome[]>('ok', 'failed')).map(([which, outcome]) =>
      step(`finish ${which} ${outcome}`, async (system) => {
        const running = system.calls.filter((call) => call.finish !== undefined);
        const call = running[which % running.length];
        if (call === undefined) return;
        call.finish!(outcome);
        delete call.finish;
        await settle();
        system.model.finish(call, outcome);
        await system.settled();
      }),
    ),
    advance: span.map((forMs) =>
      step(`advance ${forMs}`, async (system) => {
        const { model, clock } = system;
        const end = model.now + forMs;
        while (model.nextAt <= end) {
          model.now = model.nextAt;
          model.tick();
        }
        model.now = end;
        await clock.advance(forMs);
        await system.settled();
      }),
    ),
  };
}

/** Counts the answers of `idle` and its like. */
export function awaitIdle(
  system: { idleCalls: number; idleAnswers: number },
  promise: Promise<void>,
): void {
  system.idleCalls++;
  void promise.then(() => system.idleAnswers++);
}

/** `arbitrary` once in so many times, else nothing. */
export function onceIn<T>(times: number, arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.oneof(
    { weight: times - 1, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary },
  );
}

/** Options as they may stand in the name of a step. */
export function show(options: object): string {
  return Object.entries(options)
    .filter(([, value]) => value !== undefined && value !== Infinity)
    .map(([name, value]) => `${name}: ${value}`)
    .join(', ');
}
