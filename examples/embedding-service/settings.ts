import { fileURLToPath } from 'node:url';

/** How the service is to run: what `readSettings` makes of the environment. Times are in ms. */
export interface Settings extends Readonly<Record<NumberName, number>> {
  /** Where the Markdown files are that the model learns from. */
  readonly corpus: string;
  /** Whether a model without a text stands in for one that cannot be loaded. */
  readonly fallback: boolean;
}

/** What can be changed while it runs. */
export type LiveSettings = Partial<Record<LiveName, number>>;

type Environment = Readonly<Record<string, string | undefined>>;
type NumberName = keyof typeof NUMBERS;
type LiveName = (typeof LIVE)[number];

interface NumberRule {
  readonly variable: string;
  readonly standard: number;
  readonly min: number;
  readonly max: number;
}

const HOUR = 3_600_000;

const NUMBERS = {
  /** On 127.0.0.1; 0 takes a free one. */
  port: { variable: 'EMBEDDING_PORT', standard: 3001, min: 0, max: 65_535 },
  dimensions: { variable: 'EMBEDDING_DIMENSIONS', standard: 256, min: 8, max: 4096 },
  /** What building the model takes, … */
  loadMs: { variable: 'EMBEDDING_LOAD_MS', standard: 3000, min: 0, max: 24 * HOUR },
  /** … and one text. */
  useMs: { variable: 'EMBEDDING_USE_MS', standard: 50, min: 0, max: HOUR },
  /** Texts at once. */
  maxUsers: { variable: 'EMBEDDING_MAX_USERS', standard: 10, min: 1, max: 1000 },
  /** Texts that may wait. */
  maxWaiting: { variable: 'EMBEDDING_MAX_WAITING', standard: 100, min: 0, max: 100_000 },
  /** The longest wait, be it for the model or for its turn. */
  accessTimeoutMs: { variable: 'EMBEDDING_ACCESS_TIMEOUT_MS', standard: 30_000, min: 1, max: HOUR },
  loadTimeoutMs: { variable: 'EMBEDDING_LOAD_TIMEOUT_MS', standard: 300_000, min: 1, max: HOUR },
} as const satisfies Readonly<Record<string, NumberRule>>;

const LIVE = ['loadMs', 'maxUsers', 'accessTimeoutMs', 'loadTimeoutMs'] as const;

const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url));

/**
 * The settings in the environment; an empty variable counts as none. Throws an error that names the
 * variable and its value.
 */
export function readSettings(env: Environment): Settings {
  const numbers = Object.entries(NUMBERS).map(([name, rule]) => {
    const text = env[rule.variable] || String(rule.standard);
    const value = text.trim() === '' ? Number.NaN : Number(text);
    return [name, checked(rule.variable, rule, value, text)];
  });
  const fallback = env['EMBEDDING_FALLBACK'] || 'plain';
  if (fallback !== 'plain' && fallback !== 'none') {
    throw new TypeError(`Expected EMBEDDING_FALLBACK to be plain or none, got ${quote(fallback)}.`);
  }
  return {
    ...(Object.fromEntries(numbers) as Record<NumberName, number>),
    corpus: env['EMBEDDING_CORPUS'] || REPOSITORY,
    fallback: fallback === 'plain',
  };
}

/** Those that are to be changed; throws an error that names the setting and its value. */
export function parseLiveSettings(given: Readonly<Record<string, unknown>>): LiveSettings {
  return Object.fromEntries(
    Object.entries(given).map(([name, value]) => {
      const live = LIVE.find((each) => each === name);
      if (live === undefined) {
        throw new TypeError(`Expected some of ${LIVE.join(', ')}, got ${quote(name)}.`);
      }
      return [live, checked(`\`${live}\``, NUMBERS[live], value, value)];
    }),
  );
}

function checked(label: string, { min, max }: NumberRule, value: unknown, shown: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max) {
    return value as number;
  }
  throw new RangeError(
    `Expected ${label} to be an integer from ${min} to ${max}, got ${quote(shown)}.`,
  );
}

function quote(value: unknown): string {
  return JSON.stringify(value).slice(0, 66);
}
