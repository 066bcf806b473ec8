import { setTimeout as sleep } from 'node:timers/promises';

import { type ModelServer, startModelServer } from '../../examples/model-server/server.ts';
import {
  type Fault,
  FAULTS,
  type FaultyProxy,
  startFaultyProxy,
} from '../../examples/support/faulty-proxy.ts';
import type { Random } from './random.ts';

/** The part of the requests with which something goes wrong. */
const FAULTY = 0.15;

const DECODE_MS_PER_TOKEN = 2;

/** A model server that is restarted now and then, behind a proxy that spoils some of its answers. */
export class Upstream {
  readonly faults = new Map<Fault | 'restarts', number>();
  readonly #proxy: FaultyProxy;
  #model: ModelServer;
  #peak = 0;

  private constructor(model: ModelServer, proxy: FaultyProxy, random: Random) {
    this.#model = model;
    this.#proxy = proxy;
    proxy.plan = () => {
      if (random.next() >= FAULTY) return undefined;
      const fault = random.pick(FAULTS);
      this.#count(fault);
      return fault;
    };
  }

  static async start(random: Random): Promise<Upstream> {
    const model = await startModel();
    return new Upstream(model, await startFaultyProxy(model.url), random);
  }

  get url(): string {
    return this.#proxy.url;
  }

  /** Requests that somebody still waits for, here or at the model. */
  get open(): number {
    return this.#proxy.open + this.#model.stats().active;
  }

  /** The most that the model ever had at once. */
  get peak(): number {
    return Math.max(this.#peak, this.#model.stats().peak);
  }

  /** Restarts the model every now and then, in the middle of what it does, until the signal. */
  async restart(random: Random, ended: AbortSignal): Promise<void> {
    for (;;) {
      await sleep(random.between(5000, 25_000), undefined, { signal: ended }).catch(() => {});
      if (ended.aborted) return;
      this.#peak = this.peak;
      await this.#model.close();
      await sleep(random.between(0, 1000));
      this.#model = await startModel();
      this.#proxy.target = this.#model.url;
      this.#count('restarts');
    }
  }

  async close(): Promise<void> {
    await this.#proxy.close();
    await this.#model.close();
  }

  #count(fault: Fault | 'restarts'): void {
    this.faults.set(fault, (this.faults.get(fault) ?? 0) + 1);
  }
}

/** It would take more than it should get, and counts. */
function startModel(): Promise<ModelServer> {
  const decodeMsPerToken = DECODE_MS_PER_TOKEN;
  return startModelServer({ port: 0, parallel: 100, prefillMsPerToken: 0.1, decodeMsPerToken });
}
