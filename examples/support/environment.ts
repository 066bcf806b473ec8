/** What the settings of the examples have in common: integers and URLs in the environment. */

export type Environment = Readonly<Record<string, string | undefined>>;

export interface NumberRule {
  readonly variable: string;
  readonly standard: number;
  readonly min: number;
  readonly max: number;
}

export const HOUR = 3_600_000;

/** Each as its rule has it. Throws an error that names the variable and its value. */
export function numbersIn<Name extends string>(
  env: Environment,
  rules: Readonly<Record<Name, NumberRule>>,
): Record<Name, number> {
  const numbers = Object.entries<NumberRule>(rules).map(([name, rule]) => [
    name,
    numberIn(env, rule),
  ]);
  return Object.fromEntries(numbers) as Record<Name, number>;
}

export function numberIn(env: Environment, { variable, standard, min, max }: NumberRule): number {
  // An empty variable counts as none.
  const text = env[variable] || String(standard);
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw new RangeError(
    `Expected ${variable} to be an integer from ${min} to ${max}, got ${quote(text)}.`,
  );
}

export function httpURLIn(env: Environment, variable: string): string | undefined {
  const text = env[variable] || undefined;
  if (text === undefined || /^https?:$/.test(URL.parse(text)?.protocol ?? '')) return text;
  throw new TypeError(`Expected ${variable} to be an http or https URL, got ${quote(text)}.`);
}

/** The beginning of a text that somebody has got wrong. */
export function quote(text: string): string {
  return JSON.stringify(text.slice(0, 64));
}
