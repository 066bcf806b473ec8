import {
  AdmissionQueue,
  type Clock,
  type Gate,
  RateLimiter,
  Semaphore,
  SharedResource,
  type TaskContext,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';

/** The options that every gate understands. */
interface CommonOptions {
  readonly signal?: AbortSignal | undefined;
  readonly waitTimeoutMs?: number | undefined;
}

/** What a gate with a line in front of it has, whichever it is. */
export interface LinedGate extends Gate<TaskContext, CommonOptions>, AsyncDisposable {
  readonly active: number;
  readonly waiting: number;
  on(event: string, listener: (payload: Readonly<Record<string, unknown>>) => void): this;
  off(event: string, listener: (payload: Readonly<Record<string, unknown>>) => void): this;
  stats(): Readonly<Record<string, unknown>>;
  close(options?: { readonly waiting?: 'finish' | 'reject' }): unknown;
}

/** A gate whose only place, or token, is taken. */
export interface Scene {
  readonly clock: ManualClock;
  readonly gate: LinedGate;
  /** Lets the next in line in: what is taken comes back. */
  free(): Promise<void>;
}

/** A gate with room for one, by its name; those who wait do so without end. */
const GATES = {
  Semaphore: (clock: Clock) => new Semaphore({ capacity: 1, clock }),
  AdmissionQueue: (clock: Clock) =>
    new AdmissionQueue({ concurrency: 1, maxWaiting: Infinity, clock }),
  RateLimiter: (clock: Clock) => new RateLimiter({ limit: 1, intervalMs: 1000, clock }),
  SharedResource: (clock: Clock) =>
    new SharedResource({ load: () => 'loaded', maxUsers: 1, accessTimeoutMs: Infinity, clock }),
} as const;

export type GateName = keyof typeof GATES;

export const GATE_NAMES = Object.keys(GATES) as readonly GateName[];

/** Those whose places are held until a task has settled: all but the one that counts starts. */
export const HOLDING_NAMES: readonly GateName[] = GATE_NAMES.filter(
  (name) => name !== 'RateLimiter',
);

/** A gate with room for one, in which nothing has happened but that a resource is loaded. */
export async function freeGate(
  name: GateName,
  clock: Clock = new ManualClock(),
): Promise<LinedGate> {
  const gate = GATES[name](clock);
  if (gate instanceof SharedResource) await gate.preload();
  return gate as unknown as LinedGate;
}

/** The same, taken. */
export async function takenGate(name: GateName): Promise<Scene> {
  const clock = new ManualClock();
  const gate = await freeGate(name, clock);
  const { promise, resolve } = Promise.withResolvers<void>();
  void gate.run(() => promise);
  return {
    clock,
    gate,
    free: async () => {
      resolve();
      await settle();
      if (name === 'RateLimiter') await clock.advance(1000);
    },
  };
}
