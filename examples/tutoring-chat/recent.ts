import type { AdmissionQueue } from 'sluice';

const EVERY_MS = 2000;

/** Five minutes. */
const SAMPLES = 150;

/** How full a queue has been lately, the oldest sample first. */
export interface RecentGauges {
  readonly everyMs: number;
  readonly active: readonly number[];
  readonly waiting: readonly number[];
}

/** Looks at a queue every now and then, for a chart of its last minutes. */
export class Recent {
  readonly #queue: AdmissionQueue;
  readonly #active: number[] = [];
  readonly #waiting: number[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(queue: AdmissionQueue) {
    this.#queue = queue;
    this.#timer = setInterval(() => this.#sample(), EVERY_MS).unref();
    this.#sample();
  }

  gauges(): RecentGauges {
    return { everyMs: EVERY_MS, active: [...this.#active], waiting: [...this.#waiting] };
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #sample(): void {
    this.#active.push(this.#queue.active);
    this.#waiting.push(this.#queue.waiting);
    if (this.#active.length > SAMPLES) {
      this.#active.shift();
      this.#waiting.shift();
    }
  }
}
