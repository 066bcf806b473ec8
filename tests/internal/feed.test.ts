import { describe, expect, it } from 'vitest';

import { type AnyGate, type Ending, Feed, type Sink } from '../../src/internal/feed.ts';
import { type OutletSettings, shareSettings } from '../../src/internal/outlet.ts';
import type { TokenSource } from '../../src/internal/source.ts';
import { Time } from '../../src/internal/time.ts';
import { ManualClock, settle } from '../../src/testing.ts';
import { catchUncaught } from '../support/uncaught.ts';

const CANCELLED: Ending = { outcome: 'cancelled', error: new Error('enough') };

interface Scene {
  readonly source?: TokenSource<string, object>;
  readonly gate?: AnyGate;
  readonly signal?: AbortSignal;
  readonly limits?: Partial<OutletSettings>;
}

/** Hears what a feed tells it. */
class Ear implements Sink<string> {
  readonly heard: string[] = [];
  hasRoom = true;

  moved(): void {
    this.heard.push('moved');
  }

  admitted(): void {
    this.heard.push('admitted');
  }

  token(value: string): void {
    this.heard.push(value);
  }

  ended({ outcome }: Ending): void {
    this.heard.push(`ended: ${outcome}`);
  }

  stopped({ outcome }: Ending): void {
    this.heard.push(`stopped: ${outcome}`);
  }
}

function fed({ source = [], gate, signal, limits }: Scene = {}): {
  clock: ManualClock;
  settings: OutletSettings;
  feed: Feed<string>;
  ear: Ear;
} {
  const clock = new ManualClock();
  const settings = shareSettings(new Time(clock), {
    firstTokenTimeoutMs: Infinity,
    idleTimeoutMs: Infinity,
    timeoutMs: Infinity,
    teardownGraceMs: 1000,
    heartbeatMs: Infinity,
    stallMs: Infinity,
    highWaterMark: 16,
    exposeErrors: false,
    ...limits,
  });
  const feed = new Feed<string>(settings, source, gate, {}, signal);
  const ear = new Ear();
  if (feed.ending === undefined) feed.attach(ear);
  return { clock, settings, feed, ear };
}

/** A source whose every answer is given by the test. */
class ByHand implements AsyncIterable<string> {
  readonly asked: PromiseWithResolvers<IteratorResult<string>>[] = [];
  readonly closed: PromiseWithResolvers<void> = Promise.withResolvers();
  opened = 0;
  isClosing = false;

  readonly open = (): this => {
    this.opened++;
    return this;
  };

  give(value: string): void {
    this.asked.shift()!.resolve({ done: false, value });
  }

  [Symbol.asyncIterator](): AsyncIterator<string> {
    return {
      next: () => {
        const answer = Promise.withResolvers<IteratorResult<string>>();
        this.asked.push(answer);
        return answer.promise;
      },
      return: async () => {
        this.isClosing = true;
        await this.closed.promise;
        return { done: true, value: undefined };
      },
    };
  }
}

/** A place in line that changes when the test says so. */
class Place {
  position = 3;
  estimatedWaitMs: number | undefined;
  asked = 0;
  isClosed = false;
  #answer: PromiseWithResolvers<IteratorResult<number>> | undefined;

  change(): void {
    this.#answer!.resolve({ done: false, value: this.position });
  }

  end(): void {
    this.#answer!.resolve({ done: true, value: undefined });
  }

  positions(): AsyncIterable<number> {
    return {
      [Symbol.asyncIterator]: () => ({
        next: () => {
          this.asked++;
          this.#answer = Promise.withResolvers();
          return this.#answer.promise;
        },
        return: async () => {
          this.isClosed = true;
          return { done: true, value: undefined };
        },
      }),
    };
  }
}

/** A gate that does what the test says, when it says so. */
class Doorman implements AnyGate {
  readonly #left: PromiseWithResolvers<unknown> = Promise.withResolvers();
  #task!: (context: { readonly signal: AbortSignal }) => unknown;
  #options: { signal?: AbortSignal; onTicket?: (place: object) => void } = {};
  task: 'not called' | 'pending' | 'fulfilled' | 'rejected' = 'not called';

  run(task: (context: { readonly signal: AbortSignal }) => unknown, options: object): unknown {
    this.#task = task;
    this.#options = options;
    return this.#left.promise;
  }

  get signal(): AbortSignal {
    return this.#options.signal!;
  }

  handOut(place: object): void {
    this.#options.onTicket!(place);
  }

  letIn(signal: AbortSignal = new AbortController().signal): void {
    const held = this.#task({ signal });
    this.task = 'pending';
    void Promise.resolve(held).then(
      () => (this.task = 'fulfilled'),
      () => (this.task = 'rejected'),
    );
  }

  leave(): void {
    this.#left.resolve(undefined);
  }

  refuse(error: unknown): void {
    this.#left.reject(error);
  }
}

describe('Feed', () => {
  it('is over at once where its signal is aborted already, and enters and opens nothing', async () => {
    const source = new ByHand();
    const gate = new Doorman();
    const reason = new Error('gone');
    const { feed } = fed({ source: source.open, gate, signal: AbortSignal.abort(reason) });
    expect(feed.ending).toEqual({ outcome: 'cancelled', error: reason });
    feed.start(true);
    await settle();
    expect([source.opened, gate.task, feed.startedAt]).toEqual([0, 'not called', undefined]);
    await feed.gone;
  });

  it('has no time to the first token where there was none', async () => {
    const { feed, ear } = fed();
    feed.start(true);
    await feed.gone;
    expect(ear.heard).toEqual(['admitted', 'ended: completed']);
    expect(feed.figures).toMatchObject({ waitedMs: 0, timeToFirstTokenMs: undefined });
  });

  it('gives a source that is behind no gate a signal, and nothing else', async () => {
    const seen: unknown[] = [];
    const source = (context: object): string[] => {
      seen.push(Object.keys(context), 'session' in context);
      return [];
    };
    const { feed } = fed({ source });
    feed.start(true);
    await feed.gone;
    expect(seen).toEqual([['signal'], false]);
  });

  describe('.stop()', () => {
    it('is heard by somebody or by nobody, and says which', async () => {
      const waiting = fed({ source: ['a'] });
      waiting.feed.start(true);
      await waiting.feed.gone;
      // All has come, and the sink may still be reading.
      expect(waiting.feed.stop(CANCELLED)).toBe(true);
      expect(waiting.ear.heard.at(-1)).toBe('stopped: cancelled');
      expect(waiting.feed.stop(CANCELLED)).toBe(false);

      const unheard = fed();
      unheard.feed.release(unheard.ear);
      expect(unheard.feed.stop(CANCELLED)).toBe(true);
      expect(unheard.feed.stop(CANCELLED)).toBe(false);
    });

    it('gives the place back when the source has let go, be it at its end before or not', async () => {
      const source = new ByHand();
      const gate = new Doorman();
      const { feed } = fed({ source, gate });
      feed.start(true);
      gate.letIn();
      await settle();
      feed.stop(CANCELLED);
      await settle();
      expect(source.isClosing).toBe(true);
      source.asked[0]!.resolve({ done: true, value: undefined });
      await settle();
      expect(gate.task).toBe('pending');
      source.closed.resolve();
      await settle();
      expect(gate.task).toBe('rejected');
    });

    it('keeps no place that comes after it', async () => {
      const source = new ByHand();
      const gate = new Doorman();
      const { feed } = fed({ source: source.open, gate });
      feed.start(true);
      feed.stop(CANCELLED);
      await settle();
      gate.letIn();
      await settle();
      expect([gate.task, source.opened]).toEqual(['fulfilled', 0]);
    });
  });

  describe('at a gate', () => {
    it('goes on where the gate does not wait for its task', async () => {
      using uncaught = catchUncaught();
      const source = new ByHand();
      const gate = new Doorman();
      const { feed, ear } = fed({ source, gate });
      feed.start(true);
      gate.letIn();
      gate.leave();
      await settle();
      source.give('a');
      await settle();
      source.asked[0]!.resolve({ done: true, value: undefined });
      expect(await feed.gone).toEqual({ outcome: 'completed', error: undefined });
      expect(ear.heard).toEqual(['admitted', 'a', 'ended: completed']);
      expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
    });

    it('is cancelled where the gate gives up while the source flows', async () => {
      const source = new ByHand();
      const gate = new Doorman();
      const { feed, ear } = fed({ source, gate });
      feed.start(true);
      gate.letIn();
      const error = new Error('no more');
      gate.refuse(error);
      await settle();
      expect(feed.ending).toEqual({ outcome: 'cancelled', error });
      expect(ear.heard).toEqual(['admitted', 'stopped: cancelled']);
      source.closed.resolve();
      await feed.gone;
    });

    it('fails where the gate lets nobody in', async () => {
      const gate = new Doorman();
      const { feed } = fed({ gate });
      feed.start(true);
      gate.leave();
      expect(await feed.gone).toEqual({
        outcome: 'failed',
        error: new Error('The gate did not call its task.'),
      });
    });

    it('leaves no rejection to nobody where the gate does not look at its task', async () => {
      using uncaught = catchUncaught();
      const gate: AnyGate = {
        run: (task) => {
          task({ signal: new AbortController().signal });
          return new Promise(() => {});
        },
      };
      const { feed, clock } = fed({ gate });
      feed.start(true);
      feed.stop(CANCELLED);
      await clock.advance(1000);
      await settle();
      expect(await feed.gone).toBe(CANCELLED);
      expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
    });
  });

  describe('in line', () => {
    it('asks for the next change once, and again when its place was looked at', async () => {
      const gate = new Doorman();
      const place = new Place();
      const { feed, ear } = fed({ gate });
      feed.start(true);
      gate.handOut(place);
      expect(place.asked).toBe(1);
      for (let i = 0; i < 3; i++) {
        expect(feed.takePlace()).toEqual({ position: 3, estimatedWaitMs: undefined });
      }
      expect(place.asked).toBe(1);
      place.change();
      await settle();
      expect([ear.heard, place.asked]).toEqual([['moved'], 1]);
      Object.assign(place, { position: 2, estimatedWaitMs: 10.5 });
      expect(feed.takePlace()).toEqual({ position: 2, estimatedWaitMs: 11 });
      expect(place.asked).toBe(2);
    });

    it('has no place before it is handed one, nor at or behind the front of the line', () => {
      const gate = new Doorman();
      const place = new Place();
      const { feed } = fed({ gate });
      feed.start(true);
      expect(feed.takePlace()).toBeUndefined();
      gate.handOut(place);
      for (const position of [0, -1]) {
        place.position = position;
        expect(feed.takePlace()).toBeUndefined();
      }
      place.position = 1;
      expect(feed.takePlace()).toMatchObject({ position: 1 });
    });

    it('has no place any more when its changes are at their end, and asks for none', async () => {
      const gate = new Doorman();
      const place = new Place();
      const { feed, ear } = fed({ gate });
      feed.start(true);
      gate.handOut(place);
      place.end();
      await settle();
      expect(feed.takePlace()).toBeUndefined();
      expect([place.asked, ear.heard]).toEqual([1, []]);
    });

    it('follows the latest place that it is handed, and lets go of the one before', async () => {
      const gate = new Doorman();
      const [first, second] = [new Place(), new Place()];
      second.position = 7;
      const { feed, ear } = fed({ gate });
      feed.start(true);
      gate.handOut(first);
      gate.handOut(second);
      expect([first.isClosed, second.isClosed]).toEqual([true, false]);
      first.change();
      await settle();
      expect(ear.heard).toEqual([]);
      expect(feed.takePlace()).toMatchObject({ position: 7 });
      second.change();
      await settle();
      expect(ear.heard).toEqual(['moved']);
    });

    it('does not follow a place that comes too late', () => {
      const gate = new Doorman();
      const place = new Place();
      const { feed } = fed({ gate, source: new ByHand() });
      feed.start(true);
      gate.letIn();
      gate.handOut(place);
      expect([feed.takePlace(), place.asked]).toEqual([undefined, 0]);
      feed.stop(CANCELLED);
      gate.handOut(place);
      expect(place.asked).toBe(0);
    });

    it('lets go of its place when it is let in, and when it is stopped', async () => {
      for (const how of ['let in', 'stopped']) {
        const gate = new Doorman();
        const place = new Place();
        const { feed } = fed({ gate, source: new ByHand() });
        feed.start(true);
        gate.handOut(place);
        if (how === 'let in') gate.letIn();
        else feed.stop(CANCELLED);
        expect([feed.takePlace(), place.isClosed]).toEqual([undefined, true]);
      }
    });

    it('takes changes that cannot be closed', async () => {
      const gate = new Doorman();
      const next = (): Promise<never> => new Promise(() => {});
      const positions = (): object => ({ [Symbol.asyncIterator]: () => ({ next }) });
      const { feed, ear } = fed({ gate });
      feed.start(true);
      gate.handOut({ position: 1, positions });
      gate.letIn();
      gate.leave();
      await feed.gone;
      expect(ear.heard).toEqual(['admitted', 'ended: completed']);
    });

    it('tells nobody of a change whose turn comes when the line is over', async () => {
      const gate = new Doorman();
      const place = new Place();
      const { feed, ear, settings, clock } = fed({ gate, source: new ByHand() });
      feed.start(true);
      gate.handOut(place);
      // Others use up the turns of the next milliseconds.
      for (let i = 0; i < 64; i++) settings.moves.enter({ moved() {} });
      place.change();
      await settle();
      gate.letIn();
      await clock.advance(5);
      expect(ear.heard).toEqual(['admitted']);
    });
  });

  describe('minds the time', () => {
    it('with one timer, that of the limit which may be reached first', async () => {
      const source = new ByHand();
      const limits = { timeoutMs: 1000, idleTimeoutMs: 100 };
      const { feed, clock } = fed({ source, limits });
      feed.start(true);
      await settle();
      expect(clock.timers).toBe(1);
      source.give('a');
      await settle();
      expect(clock.timers).toBe(1);
      await clock.advance(99);
      expect(feed.ending).toBeUndefined();
      await clock.advance(1);
      expect(feed.ending).toMatchObject({ outcome: 'timeout', error: { phase: 'idle' } });
    });

    it('gives a source that is stuck the whole of its grace', async () => {
      const source = new ByHand();
      const limits = { timeoutMs: 1000, idleTimeoutMs: 100, teardownGraceMs: 5000 };
      const { feed, clock } = fed({ source, limits });
      let isGone = false;
      void feed.gone.then(() => (isGone = true));
      feed.start(true);
      await settle();
      source.give('a');
      await settle();
      await clock.advance(100);
      await clock.advance(4999);
      expect([isGone, feed.figures.abandoned]).toEqual([false, false]);
      await clock.advance(1);
      expect([isGone, feed.figures.abandoned]).toEqual([true, true]);
      expect(clock.timers).toBe(0);
    });
  });
});
