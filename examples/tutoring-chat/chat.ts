import {
  AdmissionQueue,
  type AdmissionQueueStats,
  ClosedError,
  compose,
  type Replay,
  SessionManager,
  type ShutdownReport,
  type TicketRecord,
  type TicketStatus,
  type TokenStream,
  TokenStreamer,
} from 'sluice';

import { type Exchange, History } from './history.ts';
import { HttpFailure } from '../support/http.ts';
import { Model } from './model.ts';
import { PRIORITIES, type Question } from './questions.ts';
import { Recent, type RecentGauges } from './recent.ts';
import type { Settings } from './settings.ts';
import { type SavedQuestion, type State, writeState } from './state.ts';

/** A model that is silent for longer in the middle of an answer has failed. */
const IDLE_TIMEOUT_MS = 30_000;

/** How long a question of before a restart can be asked for when it is answered. */
const KEEP_MS = 300_000;

/** A question with the id of its place in line, which nobody knows but who asked it. */
export interface Asked extends Question {
  readonly id: string;
  /** Who asked, as far as they say: what answers are kept under. */
  readonly student: string | undefined;
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
  /** A question of before the restart, after the token with that index, if any. */
  restored(id: string, lastEventId: string | undefined): TokenStream<string> | undefined;
  /** What a student asked and was told, the oldest first. */
  history(student: string): readonly Exchange[];
  place(id: string): Place;
  /** Ends the wait or the answer. False where nobody waits for it any more. */
  cancel(id: string): boolean;
  stats(): ChatStats;
  readonly closed: boolean;
  /**
   * Takes no more questions; resolves when all that were taken are answered, or `drainMs` over. With
   * a file for the state only what is being answered is finished: the line goes into the file.
   */
  drain(): Promise<ShutdownReport>;
  /** Cuts the questions of before the restart short, as no connection has to be there for them. */
  cut(): void;
}

/**
 * A model behind one line: a session for each question, which bounds the whole of it, and in it a
 * place in line, then one of few at the model. A stream holds both from its first read to its last
 * token, or until its visitor is gone.
 *
 * The questions in `state` are in line, in their old places, when this returns. They are answered
 * whether anybody has come back for them or not: who comes later finds the answer in the history.
 */
export function openChat(settings: Settings, state: State): Chat {
  const { concurrency, maxWaiting, waitTimeoutMs, answerTimeoutMs, stateFile } = settings;
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
  const history = new History();
  const restored = new Map<string, Replay<string>>();
  let closed = false;

  /** What the gates are to know. The metadata is what a record needs to be asked again. */
  const optionsOf = ({ id, student, question, priority, maxTokens }: Asked) => ({
    id,
    requestId: id,
    key: student,
    model: settings.model,
    priority,
    metadata: { question, ...(maxTokens !== undefined && { maxTokens }) },
  });

  const keep = ({ id, student, question }: Asked, answer: string): void => {
    if (student === undefined) return;
    history.add(student, { id, question, answer, answeredAt: new Date().toISOString() });
  };

  async function* tokens(asked: Asked, signal: AbortSignal): AsyncGenerator<string, void, void> {
    let answer = '';
    for await (const token of model.tokens(asked, history.of(asked.student), signal)) {
      answer += token;
      yield token;
    }
    keep(asked, answer);
  }

  const restore = ({ enqueuedAt, ...asked }: SavedQuestion): void => {
    const options = { gate, ...optionsOf(asked), enqueuedAt };
    const replay = streamer
      .stream(({ signal }) => tokens(asked, signal), options)
      .replay({ graceMs: KEEP_MS });
    restored.set(asked.id, replay);
    void replay.expired.then(() => restored.delete(asked.id));
    // A stream is in line from its first read, and goes on while it is read.
    void readAll(replay.from());
  };

  /** The places of all in line, who are told to come back, and of those who are being answered. */
  const putDown = (): Map<string, TicketRecord> => {
    const records = new Map<string, TicketRecord>();
    for (const ticket of queue.tickets()) {
      records.set(ticket.id, ticket.toJSON());
      if (ticket.status === 'waiting') {
        ticket.cancel(restarting());
      } else {
        const forget = (reason?: unknown): void => {
          // What the shutdown has cut short is to be asked again.
          if (!(reason instanceof ClosedError)) records.delete(ticket.id);
        };
        ticket.result.then(() => forget(), forget);
      }
    }
    return records;
  };

  for (const [student, exchanges] of state.history) {
    for (const exchange of exchanges) history.add(student, exchange);
  }
  for (const saved of state.questions) restore(saved);

  return {
    answer(asked, signal) {
      const { id, student } = asked;
      return gate.run(
        async ({ session, signal: own }) => {
          const waitedMs = Math.round(session.phases.allocated ?? 0);
          const answer = await model.answer(asked, history.of(student), own);
          keep(asked, answer);
          return { id, answer, waitedMs };
        },
        { ...optionsOf(asked), signal },
      );
    },

    stream(asked) {
      return streamer.stream(({ signal }) => tokens(asked, signal), { gate, ...optionsOf(asked) });
    },

    restored: (id, lastEventId) => restored.get(id)?.from(lastEventId),

    history: (student) => history.of(student),

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
      const ended = sessions.shutdown({ drainMs: settings.drainMs });
      const records = stateFile === '' ? new Map<string, TicketRecord>() : putDown();
      // Before the last answers too: whoever is in a hurry ends the process in the middle of them.
      await writeState(stateFile, [...records.values()], history.toJSON());
      const report = await ended;
      await writeState(stateFile, [...records.values()], history.toJSON());
      recent.stop();
      return report;
    },

    cut() {
      for (const ticket of queue.tickets()) {
        if (restored.has(ticket.id)) ticket.cancel(new ClosedError('The chat'));
      }
    },
  };
}

function restarting(): HttpFailure {
  const message = 'The server restarts. Your place in line is kept: come back with your id.';
  return new HttpFailure(503, 'ERR_RESTARTING', message, { 'retry-after': '5' });
}

async function readAll(stream: TokenStream<string>): Promise<void> {
  const events = stream[Symbol.asyncIterator]();
  let read = await events.next();
  while (read.done !== true) read = await events.next();
}
