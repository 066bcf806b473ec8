import {
  BrokenCircuitError,
  circuitBreaker,
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  handleWhen,
} from 'cockatiel';
import type { Gate, TaskContext } from 'sluice';

import { Failure } from './failure.ts';

export interface CircuitOptions {
  /** So many faults in a row open it. */
  readonly faults: number;
  /** After so long one request is let through to see how it goes. */
  readonly openMs: number;
}

/** A gate with a circuit breaker around it: `state` is for health checks. */
export interface Circuit<Context extends TaskContext, Options extends object> extends Gate<
  Context,
  Options
> {
  readonly state: 'closed' | 'halfOpen' | 'open';
}

/**
 * cockatiel's circuit breaker around a gate: while a provider is down, nobody waits for it. What
 * counts is whether the task that the gate let through met with a fault of the provider.
 */
export function circuitAround<Context extends TaskContext, Options extends object>(
  gate: Gate<Context, Options>,
  { faults, openMs }: CircuitOptions,
): Circuit<Context, Options> {
  const breaker: CircuitBreakerPolicy = circuitBreaker(
    // What is no fault closes a circuit that is half open, even a client that left: it has to be an
    // answer.
    handleWhen(
      (error) =>
        (error instanceof Failure && error.fault) || breaker.state === CircuitState.HalfOpen,
    ),
    { breaker: new ConsecutiveBreaker(faults), halfOpenAfter: openMs },
  );
  const down = (cause?: unknown): Failure =>
    new Failure(503, 'ERR_PROVIDER_DOWN', 'The provider is down.', {
      retryAfterMs: openMs,
      cause,
    });
  return {
    get state() {
      if (breaker.state === CircuitState.Closed) return 'closed';
      return breaker.state === CircuitState.HalfOpen ? 'halfOpen' : 'open';
    },
    async run(task, options) {
      // The breaker would keep all others waiting for the one that is let through.
      if (breaker.state === CircuitState.HalfOpen) throw down();
      try {
        return await breaker.execute(() => gate.run(task, options));
      } catch (error) {
        throw error instanceof BrokenCircuitError ? down(error) : error;
      }
    },
  };
}
