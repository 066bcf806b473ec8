import { access, constants, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

import type { TicketRecord } from 'sluice';

import type { Exchange } from './history.ts';
import { questionOf, type Question } from './questions.ts';

/** A place in line as it was, and what is asked there. */
export interface SavedQuestion extends Question {
  readonly id: string;
  readonly student: string | undefined;
  readonly enqueuedAt: number;
}

/** What one process leaves to the next. */
export interface State {
  /** In the order in which they are to be answered. */
  readonly questions: readonly SavedQuestion[];
  readonly history: readonly (readonly [student: string, exchanges: readonly Exchange[]])[];
}

/** What is in the file. */
interface Saved {
  readonly version: 1;
  readonly tickets: readonly TicketRecord[];
  readonly history: State['history'];
}

const EMPTY: State = { questions: [], history: [] };

/**
 * Nothing where there is no such file yet. Rejects with an error that names a file that is no state, or
 * that could not be written: at the end it would be too late to hear of that.
 */
export async function readState(file: string): Promise<State> {
  if (file === '') return EMPTY;
  try {
    await access(dirname(file), constants.W_OK);
  } catch (cause) {
    const message = `Expected CHAT_STATE_FILE ${file} to be in a directory that can be written to.`;
    throw new TypeError(message, { cause });
  }
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return EMPTY;
    throw error;
  }
  try {
    const { version, tickets, history } = JSON.parse(text) as Saved;
    if ((version as number) !== 1) throw new TypeError(`Expected version 1, got ${version}.`);
    return { questions: tickets.map(questionIn), history: history.map(studentIn) };
  } catch (cause) {
    const message = `Expected CHAT_STATE_FILE ${file} to be what a chat has saved. Move it away.`;
    throw new TypeError(message, { cause });
  }
}

/** The file is the old one or the new one at any time. Does nothing where there is to be no file. */
export async function writeState(
  file: string,
  tickets: readonly TicketRecord[],
  history: State['history'],
): Promise<void> {
  if (file === '') return;
  const saved: Saved = { version: 1, tickets, history };
  const next = `${file}.next`;
  // What students ask is nobody else's business.
  await writeFile(next, JSON.stringify(saved), { mode: 0o600, flush: true });
  await rename(next, file);
}

function questionIn({ id, key, priority, metadata, enqueuedAt }: TicketRecord): SavedQuestion {
  if (!Number.isFinite(enqueuedAt)) {
    throw new TypeError(`Expected \`enqueuedAt\` to be a number, got ${String(enqueuedAt)}.`);
  }
  const question = questionOf({ ...(metadata as object), priority });
  return { ...question, id: textOf(id), student: key && textOf(key), enqueuedAt };
}

function studentIn([student, exchanges]: State['history'][number]): State['history'][number] {
  return [
    textOf(student),
    exchanges.map(({ id, question, answer, answeredAt }) => ({
      id: textOf(id),
      question: textOf(question),
      answer: textOf(answer),
      answeredAt: textOf(answeredAt),
    })),
  ];
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  throw new TypeError(`Expected a string, got ${JSON.stringify(value)}.`);
}
