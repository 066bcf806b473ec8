import { HttpFailure } from '../support/http.ts';

/** What a visitor wants to know. */
export interface Question {
  readonly question: string;
  /** From 1, the most urgent, to `PRIORITIES`, the default. */
  readonly priority: number;
  /** The longest answer that is wanted, in tokens; the chat's own limit holds all the same. */
  readonly maxTokens: number | undefined;
}

export const PRIORITIES = 5;

/** In UTF-8. */
export const MAX_QUESTION_BYTES = 8192;

/** The question in the body of a request; throws an HttpFailure (400) that says what is wrong. */
export function parseQuestion(body: Uint8Array): Question {
  return questionOf(parseJson(body));
}

/** The same of what the body says. */
export function questionOf(value: unknown): Question {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw bad('Expected the body to be a JSON object such as {"question":"Why is the sky blue?"}.');
  }
  const { question, priority = PRIORITIES, maxTokens } = value as Readonly<Record<string, unknown>>;
  if (typeof question !== 'string') throw bad('Expected `question` to be a string.');
  if (question.trim() === '') throw bad('Expected `question` not to be empty.');
  const bytes = Buffer.byteLength(question);
  if (bytes > MAX_QUESTION_BYTES) {
    throw bad(`Expected \`question\` to take at most ${MAX_QUESTION_BYTES} bytes, got ${bytes}.`);
  }
  if (
    !Number.isInteger(priority) ||
    (priority as number) < 1 ||
    (priority as number) > PRIORITIES
  ) {
    const got = JSON.stringify(priority).slice(0, 64);
    throw bad(`Expected \`priority\` to be an integer from 1 to ${PRIORITIES}, got ${got}.`);
  }
  if (maxTokens !== undefined && !(Number.isSafeInteger(maxTokens) && (maxTokens as number) >= 1)) {
    const got = JSON.stringify(maxTokens).slice(0, 64);
    throw bad(`Expected \`maxTokens\` to be a positive integer, got ${got}.`);
  }
  return { question, priority: priority as number, maxTokens: maxTokens as number | undefined };
}

function parseJson(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw bad('Expected the body to be JSON in UTF-8.');
  }
}

function bad(message: string): HttpFailure {
  return new HttpFailure(400, 'ERR_BAD_REQUEST', message);
}
