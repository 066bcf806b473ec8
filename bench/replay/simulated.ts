import { AdmissionQueue, compose, SessionManager, TokenStreamer } from 'sluice';
import { ManualClock } from 'sluice/testing';

import type { Call, Pace } from '../trace.ts';
import { follow, type Outcome } from './outcome.ts';
import type { Run } from './report.ts';

interface SimulationOptions {
  readonly speed: number;
  readonly pace: Pace;
  readonly concurrency: number;
  readonly maxWaiting: number;
}

/** The same through the primitives that the chat is made of, in virtual time. */
export async function simulate(
  calls: readonly Call[],
  { speed, pace, concurrency, maxWaiting }: SimulationOptions,
): Promise<Run> {
  const clock = new ManualClock();
  const model = new SimulatedModel(clock, pace);
  const sessions = new SessionManager({ timeoutMs: Infinity, clock });
  const queue = new AdmissionQueue({ concurrency, maxWaiting, clock });
  sessions.observe(queue);
  const gate = compose(sessions, queue);
  const streamer = new TokenStreamer({ clock });
  const now = (): number => clock.now();
  const sent: Promise<Outcome>[] = [];
  for (const call of calls) {
    await clock.advance(Math.max(0, call.atMs / speed - clock.now()));
    sent.push(follow(() => streamer.stream(() => model.tokens(call), { gate }), now));
  }
  await clock.runAll(Infinity);
  return { outcomes: await Promise.all(sent), concurrency, peak: model.peak, rejected: undefined };
}

/** Takes as long as the model server does, and counts how many it has at once. */
class SimulatedModel {
  readonly #clock: ManualClock;
  readonly #pace: Pace;
  #active = 0;
  #peak = 0;

  constructor(clock: ManualClock, pace: Pace) {
    this.#clock = clock;
    this.#pace = pace;
  }

  get peak(): number {
    return this.#peak;
  }

  async *tokens({ contextTokens, generatedTokens }: Call): AsyncGenerator<string, void, void> {
    const { prefillMsPerToken, decodeMsPerToken } = this.#pace;
    this.#active += 1;
    this.#peak = Math.max(this.#peak, this.#active);
    try {
      await this.#sleep(contextTokens * prefillMsPerToken);
      for (let index = 0; index < Math.max(generatedTokens, 1); index += 1) {
        if (index > 0) await this.#sleep(decodeMsPerToken);
        yield '?';
      }
    } finally {
      this.#active -= 1;
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#clock.setTimeout(resolve, ms);
    });
  }
}
