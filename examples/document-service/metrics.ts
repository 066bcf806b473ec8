import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { AdmissionQueue, LimitStats, RateLimiter, Semaphore } from 'sluice';

interface Gauges {
  readonly active: number;
  readonly waiting: number;
  readonly capacity: number;
}

const BUCKETS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

/**
 * What queues, semaphores and rate limiters do, for Prometheus. Durations and counts are told by their
 * events, as they happen; gauges are read from `stats()` when they are asked for.
 */
export class GateMetrics {
  readonly #gates = new Map<string, () => Gauges>();
  readonly #limiters = new Map<string, () => readonly LimitStats[]>();
  readonly #wait: Histogram<'gate'>;
  readonly #run: Histogram<'gate' | 'outcome'>;
  readonly #refused: Counter<'gate' | 'code'>;
  readonly #left: Counter<'gate' | 'outcome'>;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#wait = new Histogram({
      name: 'sluice_wait_seconds',
      help: 'How long those waited who got in.',
      labelNames: ['gate'],
      buckets: BUCKETS,
      registers,
    });
    this.#run = new Histogram({
      name: 'sluice_run_seconds',
      help: 'How long those held their place who got in.',
      labelNames: ['gate', 'outcome'],
      buckets: BUCKETS,
      registers,
    });
    this.#refused = new Counter({
      name: 'sluice_refused_total',
      help: 'Callers who were not let in, by the code of the refusal.',
      labelNames: ['gate', 'code'],
      registers,
    });
    this.#left = new Counter({
      name: 'sluice_left_total',
      help: 'Callers who left the line before their turn.',
      labelNames: ['gate', 'outcome'],
      registers,
    });
    const gates = this.#gates;
    for (const [gauge, help] of [
      ['active', 'Places that are taken.'],
      ['waiting', 'Callers in line.'],
      ['capacity', 'Places that there are.'],
    ] as const) {
      const metric = new Gauge({
        name: `sluice_${gauge}`,
        help,
        labelNames: ['gate'],
        registers: [],
        collect() {
          for (const [gate, read] of gates) this.set({ gate }, read()[gauge]);
        },
      });
      registry.registerMetric(metric);
    }
    const limiters = this.#limiters;
    for (const [gauge, help] of [
      ['limit', 'Tokens that come in per interval.'],
      ['available', 'Tokens that are there.'],
      ['debt', 'Tokens that are owed.'],
    ] as const) {
      const metric = new Gauge({
        name: `sluice_rate_${gauge}`,
        help,
        labelNames: ['gate', 'limit'],
        registers: [],
        collect() {
          for (const [gate, read] of limiters) {
            for (const limit of read()) {
              this.set({ gate, limit: limit.name ?? 'default' }, limit[gauge]);
            }
          }
        },
      });
      registry.registerMetric(metric);
    }
  }

  queue(gate: string, queue: AdmissionQueue): void {
    this.#gates.set(gate, () => {
      const { active, waiting, concurrency: capacity } = queue.stats();
      return { active, waiting, capacity };
    });
    queue.on('started', ({ waitedMs }) => this.#wait.observe({ gate }, waitedMs / 1000));
    queue.on('refused', ({ code = 'aborted' }) => this.#refused.inc({ gate, code }));
    queue.on('shed', () => this.#left.inc({ gate, outcome: 'shed' }));
    for (const outcome of ['completed', 'failed', 'cancelled', 'timedOut'] as const) {
      queue.on(outcome, ({ ranMs }) => {
        if (ranMs === undefined) this.#left.inc({ gate, outcome });
        else this.#run.observe({ gate, outcome }, ranMs / 1000);
      });
    }
  }

  semaphore(gate: string, semaphore: Semaphore): void {
    const startedAt = new Map<number, number>();
    this.#gates.set(gate, () => semaphore.stats());
    semaphore.on('acquired', ({ id, waitedMs }) => {
      startedAt.set(id, performance.now());
      this.#wait.observe({ gate }, waitedMs / 1000);
    });
    semaphore.on('released', ({ id }) => {
      // Unknown where it was taken before anybody listened.
      const heldMs = performance.now() - (startedAt.get(id) ?? Number.NaN);
      startedAt.delete(id);
      if (heldMs >= 0) this.#run.observe({ gate, outcome: 'released' }, heldMs / 1000);
    });
    semaphore.on('refused', ({ code = 'aborted' }) => this.#refused.inc({ gate, code }));
    for (const outcome of ['cancelled', 'timedOut'] as const) {
      semaphore.on(outcome, () => this.#left.inc({ gate, outcome }));
    }
  }

  limiter<Name extends string>(gate: string, limiter: RateLimiter<Name>): void {
    this.#limiters.set(gate, () => limiter.stats().limits);
    limiter.on('granted', ({ waitedMs }) => this.#wait.observe({ gate }, waitedMs / 1000));
    limiter.on('limited', () => this.#refused.inc({ gate, code: 'ERR_RATE_LIMITED' }));
    limiter.on('refused', ({ code = 'aborted' }) => this.#refused.inc({ gate, code }));
    for (const outcome of ['cancelled', 'timedOut'] as const) {
      limiter.on(outcome, () => this.#left.inc({ gate, outcome }));
    }
  }
}
