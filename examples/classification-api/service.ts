import {
  AdmissionQueue,
  type AdmissionQueueStats,
  compose,
  SessionManager,
  type ShutdownReport,
} from 'sluice';
import { type HealthReport, healthReport } from 'sluice/http';

import type { Classification } from './bayes.ts';
import { Model } from './model.ts';
import type { Settings } from './settings.ts';

/** What `GET /health` asks the model, and how long it waits for the answer. */
const PROBE = ['Is anybody there?'];
const PROBE_TIMEOUT_MS = 5000;
const PROBE_PRIORITY = 1;

export interface CallOptions {
  /** From 1, the most urgent, to 5; undefined is that. */
  readonly priority: number | undefined;
  /** Whose it is. */
  readonly key: string;
  readonly requestId: string;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
}

/** How the line is, for load balancers and people. */
export interface QueueHealth {
  /** `busy`: who comes now has to wait; `full`: is refused; `draining`: shutting down. */
  readonly status: 'ok' | 'busy' | 'full' | 'draining';
  readonly workers: number;
  readonly active: number;
  readonly waiting: number;
  readonly waitingByPriority: readonly number[];
  readonly maxWaiting: number;
  /** What somebody of the least priority would wait; null while nothing is known. */
  readonly estimatedWaitMs: number | null;
  readonly totals: Readonly<
    Record<'completed' | 'failed' | 'cancelled' | 'timedOut' | 'refused', number>
  >;
  /** Null before the first. */
  readonly meanWaitMs: number | null;
  readonly meanRunMs: number | null;
}

/**
 * A session for each request, which bounds the whole of it and is waited for by a shutdown, and in
 * it a place in line for one of few workers.
 */
export class Service {
  readonly #model: Model;
  readonly #sessions: SessionManager;
  readonly #queue: AdmissionQueue;
  readonly #gate;
  readonly #drainMs: number;
  #probe: Promise<object> | undefined;

  constructor({ modelURL, workers, maxWaiting, timeoutMs, drainMs }: Settings) {
    this.#model = new Model(modelURL);
    this.#sessions = new SessionManager({ timeoutMs });
    this.#queue = new AdmissionQueue({ concurrency: workers, maxWaiting, priorities: 5 });
    this.#gate = compose(this.#sessions, this.#queue);
    this.#drainMs = drainMs;
  }

  /**
   * What each text is about. Rejects with a Failure of the model's, `ERR_QUEUE_FULL`,
   * `ERR_SESSION_TIMEOUT`, `ERR_CLOSED`, or the signal's reason.
   */
  classify(texts: readonly string[], options: CallOptions): Promise<readonly Classification[]> {
    return this.#gate.run(({ signal }) => this.#model.classify(texts, signal), options);
  }

  stats(): AdmissionQueueStats {
    return this.#queue.stats();
  }

  /** Asks the model, before everybody else in line; once for all who want to know at the time. */
  health(): Promise<HealthReport> {
    const model = (): Promise<object> =>
      (this.#probe ??= this.#ask().finally(() => {
        this.#probe = undefined;
      }));
    return healthReport({ model, queue: this.#queue, sessions: this.#sessions });
  }

  queueHealth(): QueueHealth {
    const { concurrency, active, waiting, maxWaiting, waitingByPriority, ...stats } = this.stats();
    const { completed, failed, cancelled, timedOut, refused } = stats;
    return {
      status: this.#sessions.stats().closed
        ? 'draining'
        : active < concurrency
          ? 'ok'
          : waiting < maxWaiting
            ? 'busy'
            : 'full',
      workers: concurrency,
      active,
      waiting,
      waitingByPriority,
      maxWaiting,
      estimatedWaitMs: rounded(this.#queue.estimateWaitMs()),
      totals: { completed, failed, cancelled, timedOut, refused },
      meanWaitMs: rounded(stats.waitMs.mean),
      meanRunMs: rounded(stats.runMs.mean),
    };
  }

  /** Refuses new requests; resolves when those that were accepted are done, or `drainMs` over. */
  shutdown(): Promise<ShutdownReport> {
    return this.#sessions.shutdown({ drainMs: this.#drainMs });
  }

  async #ask(): Promise<object> {
    await this.#gate.run(({ signal }) => this.#model.classify(PROBE, signal), {
      priority: PROBE_PRIORITY,
      timeoutMs: PROBE_TIMEOUT_MS,
    });
    return { ok: true };
  }
}

function rounded(ms: number | undefined): number | null {
  return ms === undefined ? null : Math.round(ms);
}
