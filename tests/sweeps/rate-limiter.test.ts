import { getEventListeners } from 'node:events';

import { RateLimiter } from 'sluice/rate-limiter';
import { settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { HandClock } from '../support/hand-clock.ts';
import { place, type Placing, PLACINGS } from './sweep.ts';

const INTERVAL_MS = 10;

/**
 * One token per 10 ms, and none left. In line: the head (a `run` with a signal) and the second (an
 * `acquire`). The pivot is the timer that grants the head.
 */
class Scene {
  readonly clock = new HandClock();
  readonly limiter = new RateLimiter({ limit: 1, intervalMs: INTERVAL_MS, clock: this.clock });
  readonly quitter = new AbortController();
  readonly answers: string[] = [];
  readonly wrong: string[] = [];
  called = 0;
  granted = 0;
  givenBack = 0;

  constructor() {
    const { limiter } = this;
    limiter.tryAcquire();
    limiter.on('granted', () => this.granted++);
    limiter.on('settled', () => this.givenBack++);
    const { signal } = this.quitter;
    const task = (): void => {
      this.called++;
      if (signal.aborted) this.wrong.push('called after the abort');
    };
    this.#follow('head', limiter.run(task, { signal }));
    this.#follow('second', limiter.acquire());
  }

  /** Lets everything come to its end, and checks what is left. */
  async end(): Promise<void> {
    for (let i = 0; i < 10; i++) {
      await settle();
      this.clock.jump(INTERVAL_MS);
    }
    await this.limiter.idle();
    expect(this.wrong).toEqual([]);
    expect(this.clock.timers).toBe(0);
    expect(getEventListeners(this.quitter.signal, 'abort')).toEqual([]);
    expect(this.limiter.stats()).toMatchObject({ active: 0, waiting: 0 });
    expect(this.limiter.available()).toBe(1);
    expect(this.answers.length).toBe(2);
    // Every grant was used, or has come back.
    const used = this.called + this.answers.filter((answer) => answer === 'second ok').length;
    expect(this.granted - this.givenBack).toBe(used);
  }

  #follow(name: string, call: Promise<unknown>): void {
    call.then(
      () => this.answers.push(`${name} ok`),
      (error: unknown) =>
        this.answers.push(`${name} ${(error as { code?: string }).code ?? String(error)}`),
    );
  }
}

async function sweep(placing: Placing, action: (scene: Scene) => void): Promise<Scene> {
  const scene = new Scene();
  await place(
    placing,
    () => scene.clock.jump(INTERVAL_MS),
    () => action(scene),
  );
  await settle();
  return scene;
}

describe.each(PLACINGS)(
  'RateLimiter, around a grant, after $depth microtasks ($first)',
  (placing) => {
    it('an abort calls the task or gives its token on (H055, H056)', async () => {
      const scene = await sweep(placing, ({ quitter }) => quitter.abort('gone'));
      // One who gives up while the task runs gets its reason all the same.
      const answer = scene.answers.find((each) => each.startsWith('head'));
      expect(['head gone', scene.called === 1 ? 'head ok' : 'head gone']).toContain(answer);
      await scene.end();
      expect(scene.answers).toContain('second ok');
    });

    it('a close that rejects takes nothing back that was granted', async () => {
      const scene = await sweep(placing, ({ limiter }) => limiter.close({ waiting: 'reject' }));
      expect(scene.answers).toContain('second ERR_CLOSED');
      expect(scene.answers).toContain(scene.called === 1 ? 'head ok' : 'head ERR_CLOSED');
      await scene.end();
    });

    it('a pause, new limits and counts from upstream lose nobody', async () => {
      const scene = await sweep(placing, ({ limiter }) => {
        limiter.pause(5);
        limiter.configure({ intervalMs: 5 });
        limiter.sync({ remaining: 0, resetMs: 5 });
        limiter.configure({ intervalMs: INTERVAL_MS });
      });
      await scene.end();
      expect(scene.answers.toSorted()).toEqual(['head ok', 'second ok']);
    });
  },
);
