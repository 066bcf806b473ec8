import { parseArgs } from 'node:util';

/** Every time is in milliseconds; what is left out has the default of the README's table. */
export interface ModelServerOptions {
  /** On 127.0.0.1. 0 takes a free one. Default 8000. */
  readonly port?: number;
  /** Time to read one token of the prompt. Default 1. */
  readonly prefillMsPerToken?: number;
  /** Time to write one token of the answer. Default 25. */
  readonly decodeMsPerToken?: number;
  /** An answer that would end earlier goes on, up to what its request allows. Default 40. */
  readonly minTokens?: number;
  /** Requests served at once; one more gets a 429. Default 5. */
  readonly parallel?: number;
  /** Requests and tokens per window; more get a 429. 0 is no limit. Default 0. */
  readonly requestsPerWindow?: number;
  readonly tokensPerWindow?: number;
  /** Default 60 000. */
  readonly quotaWindowMs?: number;
  /** For requests that bring no `seed`. Default 1. */
  readonly seed?: number;
  /** Asked of every request to `/v1`, as a Bearer token or `x-api-key`. Default: none is asked. */
  readonly apiKey?: string;
  /** Paragraphs to learn from. Default: those of the repository. */
  readonly corpus?: readonly string[];
}

type NumberName = Exclude<keyof ModelServerOptions, 'apiKey' | 'corpus'>;

interface NumberRule {
  readonly standard: number;
  readonly integer: boolean;
  readonly min: number;
  readonly max: number;
  readonly about: string;
}

const NUMBERS: Readonly<Record<NumberName, NumberRule>> = {
  port: {
    standard: 8000,
    integer: true,
    min: 0,
    max: 65_535,
    about: 'where to listen on 127.0.0.1; 0 takes a free port',
  },
  prefillMsPerToken: {
    standard: 1,
    integer: false,
    min: 0,
    max: 60_000,
    about: 'time to read one token of the prompt',
  },
  decodeMsPerToken: {
    standard: 25,
    integer: false,
    min: 0,
    max: 60_000,
    about: 'time to write one token of the answer',
  },
  minTokens: {
    standard: 40,
    integer: true,
    min: 0,
    max: 1024,
    about: 'the shortest answer, unless its request allows less',
  },
  parallel: {
    standard: 5,
    integer: true,
    min: 1,
    max: 10_000,
    about: 'requests served at once; one more gets a 429',
  },
  requestsPerWindow: {
    standard: 0,
    integer: true,
    min: 0,
    max: 1_000_000_000,
    about: 'requests granted per window; 0 is no limit',
  },
  tokensPerWindow: {
    standard: 0,
    integer: true,
    min: 0,
    max: 1_000_000_000,
    about: 'tokens granted per window; 0 is no limit',
  },
  quotaWindowMs: {
    standard: 60_000,
    integer: false,
    min: 1,
    max: 86_400_000,
    about: 'the window',
  },
  seed: {
    standard: 1,
    integer: true,
    min: Number.MIN_SAFE_INTEGER,
    max: Number.MAX_SAFE_INTEGER,
    about: 'for requests that bring none',
  },
};

const NUMBER_NAMES = Object.keys(NUMBERS) as NumberName[];

export type Settings = Readonly<Record<NumberName, number>> &
  Pick<ModelServerOptions, 'apiKey' | 'corpus'>;

/** The options with defaults; throws a TypeError or RangeError that names option and value. */
export function settingsOf(options: ModelServerOptions): Settings {
  for (const name of Object.keys(options)) {
    if (name !== 'apiKey' && name !== 'corpus' && !Object.hasOwn(NUMBERS, name)) {
      throw new TypeError(`Unknown option ${JSON.stringify(name)} of startModelServer.`);
    }
  }
  const { apiKey, corpus } = options;
  if (apiKey !== undefined && (typeof apiKey !== 'string' || apiKey === '')) {
    throw new TypeError('Expected `apiKey` to be a non-empty string.');
  }
  const numbers = NUMBER_NAMES.map((name) => {
    const value = options[name] ?? NUMBERS[name].standard;
    return [name, checked(name, `\`${name}\``, value, value)] as const;
  });
  return {
    ...(Object.fromEntries(numbers) as Record<NumberName, number>),
    ...(apiKey === undefined ? {} : { apiKey }),
    ...(corpus === undefined ? {} : { corpus }),
  };
}

/**
 * Options from flags and, where a flag is missing, from environment variables that are not empty;
 * 'help' if it is asked for. Throws an error that names the flag or variable, and the value.
 */
export function readSettings(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): ModelServerOptions | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h' },
      'api-key': { type: 'string' },
      ...Object.fromEntries(
        NUMBER_NAMES.map((name) => [flagOf(name), { type: 'string' as const }]),
      ),
    },
  });
  const given: Readonly<Record<string, string | boolean | undefined>> = values;
  if (given['help'] === true) return 'help';

  const options: Partial<Record<NumberName, number>> & { apiKey?: string } = {};
  for (const name of NUMBER_NAMES) {
    const flag = given[flagOf(name)];
    const text = flag ?? env[variableOf(name)];
    if (typeof text !== 'string' || (flag === undefined && text === '')) continue;
    const source = flag === undefined ? variableOf(name) : `--${flagOf(name)}`;
    options[name] = checked(name, source, text.trim() === '' ? Number.NaN : Number(text), text);
  }
  const apiKey = given['api-key'] ?? env[variableOf('apiKey')];
  if (given['api-key'] === '') throw new TypeError('Expected --api-key to be a non-empty string.');
  if (typeof apiKey === 'string' && apiKey !== '') options.apiKey = apiKey;
  return options;
}

/** What `--help` prints. */
export function usage(): string {
  const rows = NUMBER_NAMES.map((name): [string, string] => [
    flagOf(name),
    `${NUMBERS[name].about} (${NUMBERS[name].standard})`,
  ]);
  rows.push(['api-key', 'key asked of every request to /v1 (none)']);
  return [
    'Usage: node examples/model-server/main.ts [options]',
    '',
    ...rows.map(([flag, about]) => `  ${`--${flag}`.padEnd(24)} ${about}`),
    '',
    'Each has an environment variable: --parallel is MODEL_SERVER_PARALLEL, and so on.',
  ].join('\n');
}

function checked(name: NumberName, label: string, value: unknown, shown: unknown): number {
  const { integer, min, max } = NUMBERS[name];
  const fits = integer ? Number.isSafeInteger(value) : Number.isFinite(value);
  if (fits && (value as number) >= min && (value as number) <= max) return value as number;
  const kind = integer ? 'an integer' : 'a number';
  const got = typeof shown === 'string' ? JSON.stringify(shown.slice(0, 64)) : String(shown);
  throw new RangeError(`Expected ${label} to be ${kind} from ${min} to ${max}, got ${got}.`);
}

/** prefillMsPerToken is the flag prefill-ms-per-token … */
function flagOf(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** … and the variable MODEL_SERVER_PREFILL_MS_PER_TOKEN. */
function variableOf(name: string): string {
  return `MODEL_SERVER_${flagOf(name).replaceAll('-', '_').toUpperCase()}`;
}
