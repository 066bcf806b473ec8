import {
  type Environment,
  HOUR,
  httpURLIn,
  numberIn,
  type NumberRule,
  numbersIn,
} from '../support/environment.ts';

/** How the gateway is to run: what `readSettings` makes of the environment. Times are in ms. */
export interface Settings extends Readonly<Record<NumberName, number>> {
  /** In the order in which they are asked. */
  readonly providers: readonly ProviderSettings[];
  /** The longest that a request may take with a provider, by `provider/model`. */
  readonly timeouts: ReadonlyMap<string, number>;
}

export interface ProviderSettings {
  readonly name: ProviderName;
  /** Of its API, up to and with `/v1`. */
  readonly baseURL: string;
  readonly apiKey: string;
  /** Requests that it answers at once, and those that may wait for it. */
  readonly concurrency: number;
  readonly maxWaiting: number;
}

/** What a model of the gateway is called by the providers, and its longest answer. */
interface Model {
  readonly upstream: string;
  readonly maxTokens: number;
}

type NumberName = keyof typeof NUMBERS;
export type ProviderName = keyof typeof PROVIDERS;

/** Both are the model of `examples/model-server`. */
export const MODELS: ReadonlyMap<string, Model> = new Map([
  ['short', { upstream: 'trigram', maxTokens: 60 }],
  ['long', { upstream: 'trigram', maxTokens: 400 }],
]);

const PROVIDERS = {
  fast: { concurrency: 2, maxWaiting: 2, timeouts: { short: 5000, long: 15_000 } },
  slow: { concurrency: 4, maxWaiting: 20, timeouts: { short: 20_000, long: 60_000 } },
} as const;

const NUMBERS = {
  /** On 127.0.0.1; 0 takes a free one. */
  port: { variable: 'GATEWAY_PORT', standard: 3000, min: 0, max: 65_535 },
  /** The longest from the request to a provider to its first token. */
  firstTokenMs: { variable: 'GATEWAY_FIRST_TOKEN_MS', standard: 3000, min: 1, max: HOUR },
  /** So many faults in a row open the circuit of a provider, for so long. */
  faults: { variable: 'GATEWAY_FAULTS', standard: 3, min: 1, max: 1000 },
  openMs: { variable: 'GATEWAY_OPEN_MS', standard: 10_000, min: 1, max: HOUR },
  /** What a client may have kept with its request. */
  maxMetadataBytes: {
    variable: 'GATEWAY_MAX_METADATA_BYTES',
    standard: 4096,
    min: 64,
    max: 65_536,
  },
  /** How long a shutdown waits for the answers that have begun. */
  drainMs: { variable: 'GATEWAY_DRAIN_MS', standard: 60_000, min: 0, max: HOUR },
} as const satisfies Readonly<Record<string, NumberRule>>;

/**
 * The settings in the environment; an empty variable counts as none. `baseURLs` are for providers
 * that it has none of. Throws an error that names the variable and its value.
 */
export function readSettings(
  env: Environment,
  baseURLs: Readonly<Record<ProviderName, string>>,
): Settings {
  const names = Object.keys(PROVIDERS) as ProviderName[];
  return {
    ...numbersIn(env, NUMBERS),
    providers: names.map((name) => providerIn(env, name, baseURLs[name])),
    timeouts: new Map(
      names.flatMap((name) =>
        Object.entries(PROVIDERS[name].timeouts).map(([model, standard]): [string, number] => {
          const variable = `${prefixOf(name)}_${model.toUpperCase()}_TIMEOUT_MS`;
          return [`${name}/${model}`, numberIn(env, { variable, standard, min: 1, max: HOUR })];
        }),
      ),
    ),
  };
}

/** Where the environment says that a provider is. */
export function baseURLIn(env: Environment, name: ProviderName): string | undefined {
  return httpURLIn(env, `${prefixOf(name)}_URL`);
}

function providerIn(env: Environment, name: ProviderName, baseURL: string): ProviderSettings {
  const prefix = prefixOf(name);
  const { concurrency, maxWaiting } = PROVIDERS[name];
  return {
    name,
    baseURL: baseURLIn(env, name) ?? baseURL,
    apiKey: env[`${prefix}_API_KEY`] || 'none',
    concurrency: numberIn(env, {
      variable: `${prefix}_CONCURRENCY`,
      standard: concurrency,
      min: 1,
      max: 10_000,
    }),
    maxWaiting: numberIn(env, {
      variable: `${prefix}_MAX_WAITING`,
      standard: maxWaiting,
      min: 0,
      max: 100_000,
    }),
  };
}

function prefixOf(name: ProviderName): string {
  return `GATEWAY_${name.toUpperCase()}`;
}
