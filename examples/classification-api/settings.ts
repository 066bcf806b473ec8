import {
  type Environment,
  HOUR,
  type NumberRule,
  numbersIn,
  quote,
} from '../support/environment.ts';

/** How the API is to run: what `readSettings` makes of the environment. Times are in ms. */
export interface Settings extends Readonly<Record<NumberName, number>> {
  /** Of the classifier, without a path. */
  readonly modelURL: string;
  /** Users by their keys. Where there are none, everybody may come and is counted by address. */
  readonly users: ReadonlyMap<string, string>;
}

type NumberName = keyof typeof NUMBERS;

const MANY = 1_000_000;

const NUMBERS = {
  /** On 127.0.0.1; 0 takes a free one. */
  port: { variable: 'CLASSIFY_PORT', standard: 3000, min: 0, max: 65_535 },
  /** Requests that are with the model at once. */
  workers: { variable: 'CLASSIFY_WORKERS', standard: 50, min: 1, max: 10_000 },
  /** Requests that may wait. */
  maxWaiting: { variable: 'CLASSIFY_MAX_WAITING', standard: 1000, min: 0, max: MANY },
  /** Requests of all users in a second, and how many may come at once. */
  perSecond: { variable: 'CLASSIFY_PER_SECOND', standard: 100, min: 1, max: MANY },
  burst: { variable: 'CLASSIFY_BURST', standard: 200, min: 1, max: MANY },
  /** The same for each user, and how many users are told apart at once. */
  userPerSecond: { variable: 'CLASSIFY_USER_PER_SECOND', standard: 20, min: 1, max: MANY },
  userBurst: { variable: 'CLASSIFY_USER_BURST', standard: 40, min: 1, max: MANY },
  maxUsers: { variable: 'CLASSIFY_MAX_USERS', standard: 10_000, min: 1, max: MANY },
  /** The longest from a request to its answer. */
  timeoutMs: { variable: 'CLASSIFY_TIMEOUT_MS', standard: 30_000, min: 1, max: HOUR },
  /** How long a shutdown waits for what was accepted. */
  drainMs: { variable: 'CLASSIFY_DRAIN_MS', standard: 35_000, min: 0, max: HOUR },
} as const satisfies Readonly<Record<string, NumberRule>>;

/**
 * The settings in the environment; an empty variable counts as none. `modelURL` is for when there is
 * no `CLASSIFY_MODEL_URL`. Throws an error that names the variable and its value.
 */
export function readSettings(env: Environment, modelURL: string): Settings {
  return {
    ...numbersIn(env, NUMBERS),
    modelURL: modelURLIn(env) ?? modelURL,
    users: usersIn(env),
  };
}

/** Where the environment says that the classifier is. */
export function modelURLIn(env: Environment): string | undefined {
  const text = env['CLASSIFY_MODEL_URL'] || undefined;
  if (text === undefined) return undefined;
  if (/^https?:$/.test(URL.parse(text)?.protocol ?? '')) return text.replace(/\/+$/, '');
  throw new TypeError(`Expected CLASSIFY_MODEL_URL to be a URL, got ${quote(text)}.`);
}

/** `ada=key,bob=key` */
function usersIn(env: Environment): Map<string, string> {
  const pairs = (env['CLASSIFY_KEYS'] || undefined)?.split(',') ?? [];
  return new Map(
    pairs.map((pair) => {
      const [, user, key] = /^\s*([\w.-]+)=(\S+)\s*$/.exec(pair) ?? [];
      // What else there is may be a key, which is nobody's business.
      if (user === undefined || key === undefined) {
        throw new TypeError('Expected CLASSIFY_KEYS to be like `ada=key,bob=key`.');
      }
      return [key, user];
    }),
  );
}
