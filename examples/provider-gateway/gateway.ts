import { randomUUID } from 'node:crypto';

import type { ChatCompletion } from 'openai/resources/chat/completions';
import {
  type Session,
  SessionManager,
  type SessionManagerStats,
  type SessionRecord,
  type ShutdownReport,
  type TokenStream,
  TokenStreamer,
} from 'sluice';

import { Failover } from './failover.ts';
import {
  type AttemptContext,
  type AttemptOptions,
  Provider,
  type ProviderHealth,
} from './provider.ts';
import type { ChatRequest } from './request.ts';
import type { Settings } from './settings.ts';

/** A provider that is silent for longer in the middle of an answer has failed. */
const IDLE_TIMEOUT_MS = 10_000;

/** Of the metadata of sessions, what records may show. */
const LOG_KEYS = ['attempt', 'user', 'finishReason', 'completionTokens'];

/** So many ended attempts are remembered. */
const HISTORY = 200;

export interface CallOptions {
  /** The same for all attempts. */
  readonly requestId: string;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
  /** Called with the session of the attempt that a provider has let in. */
  readonly onSession: (session: Session) => void;
}

/** Two providers as one, with a session for each attempt to be answered by one of them. */
export class Gateway {
  readonly #sessions: SessionManager;
  readonly #providers: readonly Provider[];
  readonly #failover: Failover;
  readonly #streamer = new TokenStreamer({ idleTimeoutMs: IDLE_TIMEOUT_MS });
  readonly #drainMs: number;

  constructor({ providers, timeouts, maxMetadataBytes, drainMs, ...limits }: Settings) {
    this.#drainMs = drainMs;
    this.#sessions = new SessionManager({
      timeoutFor: ({ provider, model }) => timeouts.get(`${provider}/${model}`),
      maxMetadataBytes,
      logKeys: LOG_KEYS,
      history: HISTORY,
    });
    this.#providers = providers.map((provider) => new Provider(provider, limits, this.#sessions));
    this.#failover = new Failover(this.#providers);
  }

  /** The answer in one piece. Rejects as the providers refuse or fail, or with the signal's reason. */
  complete(request: ChatRequest, options: CallOptions): Promise<ChatCompletion> {
    return this.#failover.run(
      async (context) => {
        options.onSession(context.session);
        const parts: string[] = [];
        for await (const token of tokensOf(context)) parts.push(token);
        const { finishReason, usage } = context.upstream;
        return {
          id: `chatcmpl-${randomUUID()}`,
          object: 'chat.completion',
          created: Math.floor(Date.now() / 1000),
          model: request.model,
          choices: [
            {
              index: 0,
              message: { role: 'assistant', content: parts.join(''), refusal: null },
              logprobs: null,
              finish_reason: finishReason!,
            },
          ],
          ...(usage && { usage }),
        };
      },
      attemptOf(request, options),
    );
  }

  /** The answer token by token; fails before the first as `complete` does. */
  stream(request: ChatRequest, options: CallOptions): TokenStream<string> {
    return this.#streamer.stream(
      (context) => {
        options.onSession(context.session);
        return tokensOf(context);
      },
      { gate: this.#failover, ...attemptOf(request, options) },
    );
  }

  /** Of the last attempts that have ended, the latest first. */
  records(): SessionRecord[] {
    return [...this.#sessions.records()];
  }

  health(): {
    readonly sessions: SessionManagerStats;
    readonly providers: readonly ProviderHealth[];
  } {
    return {
      sessions: this.#sessions.stats(),
      providers: this.#providers.map((provider) => provider.health()),
    };
  }

  /** Refuses new requests; resolves when all answers are finished, or `drainMs` over. */
  shutdown(): Promise<ShutdownReport> {
    return this.#sessions.shutdown({ drainMs: this.#drainMs });
  }
}

function attemptOf(
  request: ChatRequest,
  { requestId, signal }: CallOptions,
): AttemptOptions & { readonly signal: AbortSignal } {
  return { request, requestId, metadata: request.metadata, signal };
}

/** The tokens of an answer; how it ended is kept with the session. */
async function* tokensOf({ upstream, session }: AttemptContext): AsyncGenerator<string> {
  yield* upstream.tokens();
  session.metadata.set('finishReason', upstream.finishReason);
  session.metadata.set('completionTokens', upstream.usage?.completion_tokens ?? null);
}
