import OpenAI from 'openai';
import {
  AdmissionQueue,
  compose,
  type Gate,
  type SessionContext,
  type SessionManager,
  type SessionOptions,
  type TaskContext,
} from 'sluice';

import { type Circuit, circuitAround, type CircuitOptions } from './breaker.ts';
import { Failure } from './failure.ts';
import type { ChatRequest } from './request.ts';
import type { ProviderSettings } from './settings.ts';
import { Upstream } from './upstream.ts';

/** For a task that a provider has let in. */
export interface AttemptContext extends SessionContext {
  readonly upstream: Upstream;
}

export interface AttemptOptions extends Pick<SessionOptions, 'requestId' | 'metadata' | 'signal'> {
  readonly request: ChatRequest;
}

export interface ProviderHealth {
  readonly name: string;
  readonly circuit: 'closed' | 'halfOpen' | 'open';
  readonly active: number;
  readonly waiting: number;
}

interface ConnectionOptions {
  readonly request: ChatRequest;
  readonly signal?: AbortSignal | undefined;
}

/**
 * One provider as a gate: in a session of its own, behind its circuit breaker, in line for one of
 * its places, and let in when the provider has sent its first token.
 */
export class Provider implements Gate<AttemptContext, AttemptOptions> {
  readonly name: string;
  readonly #queue: AdmissionQueue;
  readonly #circuit: Circuit<TaskContext & { readonly upstream: Upstream }, ConnectionOptions>;
  readonly #gate;

  constructor(
    { name, baseURL, apiKey, concurrency, maxWaiting }: ProviderSettings,
    { firstTokenMs, ...circuit }: CircuitOptions & { readonly firstTokenMs: number },
    sessions: SessionManager,
  ) {
    this.name = name;
    // To try again is for us to decide, and how long it may take, too.
    const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
    this.#queue = new AdmissionQueue({ concurrency, maxWaiting });
    sessions.observe(this.#queue);
    this.#circuit = circuitAround(
      compose(this.#queue, connection(client, firstTokenMs, sessions)),
      circuit,
    );
    this.#gate = compose(sessions, this.#circuit);
  }

  run<T>(
    task: (context: AttemptContext) => T | PromiseLike<T>,
    options: AttemptOptions,
  ): Promise<T> {
    const { name: provider } = this;
    return this.#gate.run(task, { ...options, provider, model: options.request.model });
  }

  health(): ProviderHealth {
    const { active, waiting } = this.#queue;
    return { name: this.name, circuit: this.#circuit.state, active, waiting };
  }
}

/** Lets a task in when the provider has begun to answer, and hangs up when the session is over. */
function connection(
  client: OpenAI,
  firstTokenMs: number,
  sessions: SessionManager,
): Gate<TaskContext & { readonly upstream: Upstream }, ConnectionOptions> {
  return {
    async run(task, options) {
      const { request, signal } = options!;
      const call = new AbortController();
      const stop = (): void => call.abort(signal?.reason);
      signal?.addEventListener('abort', stop);
      const timer = setTimeout(() => {
        const message = `The provider has sent nothing for ${firstTokenMs} ms.`;
        call.abort(new Failure(504, 'ERR_PROVIDER_SLOW', message, { fault: true }));
      }, firstTokenMs);
      const session = sessions.current();
      session?.defer(() => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', stop);
        call.abort();
      });
      session?.mark('callStart');
      const upstream = await Upstream.open(client, request, call.signal);
      clearTimeout(timer);
      const result = await task({ signal: call.signal, upstream });
      session?.mark('callEnd');
      return result;
    },
  };
}
