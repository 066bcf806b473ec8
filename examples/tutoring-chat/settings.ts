import {
  type Environment,
  HOUR,
  httpURLIn,
  type NumberRule,
  numbersIn,
} from '../support/environment.ts';

/** How the chat is to run: what `readSettings` makes of the environment. Times are in ms. */
export interface Settings extends Readonly<Record<NumberName, number>> {
  /** Of the model's API, up to and with `/v1`. */
  readonly baseURL: string;
  readonly apiKey: string;
  readonly model: string;
  /** Where the line is kept over a restart; empty: nowhere. */
  readonly stateFile: string;
}

type NumberName = keyof typeof NUMBERS;

const NUMBERS = {
  /** On 127.0.0.1; 0 takes a free one. */
  port: { variable: 'CHAT_PORT', standard: 3000, min: 0, max: 65_535 },
  /** Questions that are answered at once. */
  concurrency: { variable: 'CHAT_CONCURRENCY', standard: 5, min: 1, max: 1000 },
  /** Questions that may wait. */
  maxWaiting: { variable: 'CHAT_MAX_WAITING', standard: 1000, min: 0, max: 1_000_000 },
  /** What the model's API grants, in any window of a minute. */
  requestsPerMinute: {
    variable: 'CHAT_REQUESTS_PER_MINUTE',
    standard: 6000,
    min: 2,
    max: 1_000_000,
  },
  /** The longest answer, in tokens. */
  maxTokens: { variable: 'CHAT_MAX_TOKENS', standard: 150, min: 1, max: 100_000 },
  /** The longest that a question may take to arrive. */
  bodyTimeoutMs: { variable: 'CHAT_BODY_TIMEOUT_MS', standard: 10_000, min: 1, max: HOUR },
  /** The longest wait in line. */
  waitTimeoutMs: { variable: 'CHAT_WAIT_TIMEOUT_MS', standard: HOUR / 2, min: 1, max: 24 * HOUR },
  /** The longest that an answer may take. */
  answerTimeoutMs: { variable: 'CHAT_ANSWER_TIMEOUT_MS', standard: 120_000, min: 1, max: HOUR },
  /** The longest from a question to the end of its answer. */
  sessionTimeoutMs: { variable: 'CHAT_SESSION_TIMEOUT_MS', standard: HOUR, min: 1, max: 24 * HOUR },
  /** How long a shutdown waits for those who are in line or being answered. */
  drainMs: { variable: 'CHAT_DRAIN_MS', standard: 300_000, min: 0, max: 24 * HOUR },
} as const satisfies Readonly<Record<string, NumberRule>>;

/** The model of `examples/model-server`. */
const LOCAL_MODEL = 'trigram';

/**
 * The settings in the environment; an empty variable counts as none. `baseURL` is for when there is
 * no `OPENAI_BASE_URL`. Throws an error that names the variable and its value.
 */
export function readSettings(env: Environment, baseURL: string): Settings {
  return {
    ...numbersIn(env, NUMBERS),
    baseURL: baseURLIn(env) ?? baseURL,
    apiKey: env['OPENAI_API_KEY'] || 'none',
    model: env['CHAT_MODEL'] || LOCAL_MODEL,
    stateFile: env['CHAT_STATE_FILE'] ?? '',
  };
}

/** Where the environment says that the model is. */
export function baseURLIn(env: Environment): string | undefined {
  return httpURLIn(env, 'OPENAI_BASE_URL');
}
