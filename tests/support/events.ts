import type { AdmissionQueueEvents } from 'sluice/admission-queue';
import type { RateLimiterEvents } from 'sluice/rate-limiter';
import type { SemaphoreEvents } from 'sluice/semaphore';

/** All but `position`. */
export const QUEUE_EVENTS = [
  'queued',
  'started',
  'completed',
  'failed',
  'cancelled',
  'timedOut',
  'shed',
  'refused',
  'overrun',
  'saturated',
  'idle',
  'paused',
  'resumed',
  'resized',
  'closed',
] as const satisfies (keyof AdmissionQueueEvents)[];

export const SEMAPHORE_EVENTS = [
  'queued',
  'acquired',
  'released',
  'cancelled',
  'timedOut',
  'refused',
  'overheld',
  'overrun',
  'resized',
  'saturated',
  'idle',
  'closed',
] as const satisfies (keyof SemaphoreEvents)[];

export const LIMITER_EVENTS = [
  'queued',
  'granted',
  'limited',
  'refused',
  'cancelled',
  'timedOut',
  'settled',
  'paused',
  'resumed',
  'configured',
  'idle',
  'closed',
] as const satisfies (keyof RateLimiterEvents)[];

/** The events of these names that happen from now on, in order. */
export function record<Name extends string>(
  emitter: { on(name: Name, listener: (payload: object) => void): unknown },
  names: readonly Name[],
): [name: Name, payload: object][] {
  const events: [Name, object][] = [];
  for (const name of names) emitter.on(name, (payload) => events.push([name, payload]));
  return events;
}
