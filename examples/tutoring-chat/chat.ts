import {
  AdmissionQueue,
  type AdmissionQueueStats,
  compose,
  SessionManager,
  type ShutdownReport,
  type TicketStatus,
  type TokenStream,
  TokenStreamer,
} from 'sluice';

import { HttpFailure } from './http.ts';
import { Model } from './model.ts';
import { PRIORITIES, type Question } from './questions.ts';
import { Recent, type RecentGauges } from './recent.ts';
import type { Settings } from './settings.ts';

/** A model that is silent for longer in the middle of an answer has failed. */
const IDLE_TIMEOUT_MS = 30_000;

/** A question with the id of its place in line, which nobody knows but who asked it. */
export interface Asked extends Question {
  readonly id: string;
}

interface Answer {
  readonly id: string;
  readonly answer: string;
  /** From the question to its turn. */
  readonly waitedMs: number;
}

/** Where a question is: 1 = next, 0 = being answered, -1 = finished, -2 = unknown. */
interface Place {
  readonly id: string;
  readonly position: number;
  /** These three while it is not finished; the estimate once there is enough to go by. */
  readonly estimatedWaitMs: number | undefined;
  readonly waitedMs: number | undefined;
  readonly status: TicketStatus | undefined;
}

export interface ChatStats extends AdmissionQueueStats {
  /** What somebody who asks now would wait. */
  readonly estimatedWaitMs: number | undefined;
  readonly recent: RecentGauges;
}

export interface Chat {
  answer(asked: Asked, signal: AbortSignal): Promise<Answer>;
  stream(asked: Asked): TokenStream<string>;
  place(id: string): Place;
  /** Ends the wait or the answer. False where nobody waits for it any more. */
  cancel(id: string): boolean;
  stats(): ChatStats;
  readonly closed: boolean;
  /** Takes no more questions; resolves when all that were taken are answered, or `drainMs` over. */
  drain(): Promise<ShutdownReport>;
}

/**
 * A model behind one line: a session for each question, which bounds the whole of it, and in it a
 * place in line, then one of few at the model. A stream holds both from its first read to its last
 * token, or until its visitor is gone.
 */
export function openChat(settings: Settings): Chat {
  const { concurrency, maxWaiting, waitTimeoutMs, answerTimeoutMs } = settings;
  const model = new Model(settings);

  const sessions = new SessionManager({ timeoutMs: settings.sessionTimeoutMs });
  const queue = new AdmissionQueue({
    concurrency,
    maxWaiting,
    priorities: PRIORITIES,
    waitTimeoutMs,
    runTimeoutMs: answerTimeoutMs,
  });
  sessions.observe(queue);
  const gate = compose(sessions, queue);

  // Whatever the model fails with has a message that is meant for visitors.
  const streamer = new TokenStreamer({ idleTimeoutMs: IDLE_TIMEOUT_MS, exposeErrors: true });
  const recent = new Recent(queue);
  let closed = false;

  return {
    answer(asked, signal) {
      const { id, priority } = asked;
      return gate.run(
        async ({ session, signal: own }) => {
          const waitedMs = Math.round(session.phases.allocated ?? 0);
          return { id, answer: await model.answer(asked, own), waitedMs };
        },
        { id, requestId: id, model: settings.model, priority, signal },
      );
    },

    stream(asked) {
      const { id, priority } = asked;
      return streamer.stream(({ signal }) => model.tokens(asked, signal), {
        gate,
        id,
        requestId: id,
        model: settings.model,
        priority,
      });
    },

    place(id) {
      const ticket = queue.get(id);
      return {
        id,
        position: queue.position(id),
        estimatedWaitMs: ticket?.estimatedWaitMs,
        waitedMs: ticket?.toJSON().waitedMs,
        status: ticket?.status,
      };
    },

    cancel(id) {
      return queue.cancel(id, new HttpFailure(409, 'ERR_CANCELLED', 'The question was cancelled.'));
    },

    stats() {
      return {
        ...queue.stats(),
        estimatedWaitMs: queue.estimateWaitMs(),
        recent: recent.gauges(),
      };
    },

    get closed() {
      return closed;
    },

    async drain() {
      closed = true;
      const report = await sessions.shutdown({ drainMs: settings.drainMs });
      recent.stop();
      return report;
    },
  };
}
