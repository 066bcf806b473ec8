import {
  type Environment,
  HOUR,
  httpURLIn,
  type NumberRule,
  numbersIn,
} from '../support/environment.ts';

/** How the service is to run: what `readSettings` makes of the environment. Times are in ms. */
export interface Settings extends Readonly<Record<NumberName, number>> {
  /** Of the model's API, up to and with `/v1`. */
  readonly baseURL: string;
  readonly apiKey: string;
  readonly model: string;
}

type NumberName = keyof typeof NUMBERS;

const NUMBERS = {
  /** On 127.0.0.1; 0 takes a free one. */
  port: { variable: 'DOCUMENT_PORT', standard: 3002, min: 0, max: 65_535 },
  /** Documents that are worked on at once. */
  documents: { variable: 'DOCUMENT_CONCURRENCY', standard: 15, min: 1, max: 1000 },
  /** Documents that may wait. */
  maxWaiting: { variable: 'DOCUMENT_MAX_WAITING', standard: 100, min: 0, max: 100_000 },
  /** Requests to the model at once, whatever documents they are for. */
  modelCalls: { variable: 'DOCUMENT_MODEL_CALLS', standard: 10, min: 1, max: 1000 },
  /** What the model's API grants, in any window of a minute. */
  callsPerMinute: {
    variable: 'DOCUMENT_MODEL_CALLS_PER_MINUTE',
    standard: 6000,
    min: 2,
    max: 1_000_000,
  },
  /** The longest answer of one step, in tokens. */
  maxTokens: { variable: 'DOCUMENT_MAX_TOKENS', standard: 60, min: 1, max: 100_000 },
  maxTextBytes: { variable: 'DOCUMENT_MAX_TEXT_BYTES', standard: 65_536, min: 1, max: 1_000_000 },
  /** The longest wait in line. */
  waitTimeoutMs: { variable: 'DOCUMENT_WAIT_TIMEOUT_MS', standard: 60_000, min: 1, max: HOUR },
  /** The longest that all the steps of a document may take, … */
  documentTimeoutMs: { variable: 'DOCUMENT_TIMEOUT_MS', standard: 120_000, min: 1, max: HOUR },
  /** … and the longest silence of the model in one of them. */
  callTimeoutMs: { variable: 'DOCUMENT_MODEL_TIMEOUT_MS', standard: 30_000, min: 1, max: HOUR },
  /** How long what is known of the model's health is good for, and what a check may take. */
  healthTtlMs: { variable: 'DOCUMENT_HEALTH_TTL_MS', standard: 5000, min: 0, max: HOUR },
  healthTimeoutMs: { variable: 'DOCUMENT_HEALTH_TIMEOUT_MS', standard: 2000, min: 1, max: HOUR },
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
    model: env['DOCUMENT_MODEL'] || LOCAL_MODEL,
  };
}

/** Where the environment says that the model is. */
export function baseURLIn(env: Environment): string | undefined {
  return httpURLIn(env, 'OPENAI_BASE_URL');
}
