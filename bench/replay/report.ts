import type { Outcome } from './outcome.ts';

/** What a replay has seen. */
export interface Run {
  readonly outcomes: readonly Outcome[];
  /** How many calls may be at the model at once. */
  readonly concurrency: number;
  /** How many were; undefined where the model was not asked. */
  readonly peak: number | undefined;
  /** How many calls the model had no place for. */
  readonly rejected: number | undefined;
}

/** The figures of a run, each with its name. */
export function figuresOf({ outcomes, concurrency, peak, rejected }: Run): [string, string][] {
  const completed = outcomes.filter(({ result }) => result === 'completed');
  const elapsedMs = Math.max(...outcomes.map(({ endedAt }) => endedAt));
  const tokens = outcomes.reduce((sum, each) => sum + each.tokens, 0);
  const waits = outcomes.flatMap((each) => waitOf(each) ?? []);
  const firsts = outcomes.flatMap(({ sentAt, firstTokenAt }) =>
    firstTokenAt === undefined ? [] : [firstTokenAt - sentAt],
  );
  const errors = outcomes.flatMap((each) => estimateErrorOf(each) ?? []);
  const model =
    peak === undefined
      ? 'not asked (--model)'
      : `${peak} of ${concurrency}${rejected === undefined ? '' : `, ${rejected} refused by the model`}`;
  return [
    ['calls sent', String(outcomes.length)],
    ['completed', String(completed.length)],
    ['refused', byCode(outcomes, 'refused')],
    ['failed', byCode(outcomes, 'failed')],
    ['time in line', percentiles(waits, [50, 95, 99])],
    ['time to first token', percentiles(firsts, [50, 99])],
    ['tokens per second', (tokens / (elapsedMs / 1000)).toFixed(0)],
    ['highest concurrency at the model', model],
    ['error of the announced waits', percentOf(errors)],
    ['took', seconds(elapsedMs)],
  ];
}

/** Whether the model ever had more calls than it should. */
export function isAboveLimit({ peak, concurrency }: Run): boolean {
  return peak !== undefined && peak > concurrency;
}

export function waitOf({ sentAt, startedAt }: Outcome): number | undefined {
  return startedAt === undefined ? undefined : startedAt - sentAt;
}

/** The value below which `percent` of the values are, by nearest rank. */
export function percentile(values: readonly number[], percent: number): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)];
}

/** How far off the first announced wait was, as a share of the true one. */
function estimateErrorOf({ announced, startedAt }: Outcome): number | undefined {
  if (announced === undefined || startedAt === undefined) return undefined;
  const waitedMs = startedAt - announced.at;
  return waitedMs > 0 ? Math.abs(announced.waitMs - waitedMs) / waitedMs : undefined;
}

function byCode(outcomes: readonly Outcome[], result: Outcome['result']): string {
  const counts = new Map<string, number>();
  for (const { result: own, code = '' } of outcomes) {
    if (own === result) counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  return [...counts].map(([code, count]) => `${count} ${code}`).join(', ') || '0';
}

function percentiles(values: readonly number[], percents: readonly number[]): string {
  if (values.length === 0) return 'none';
  return percents
    .map((percent) => `p${percent} ${seconds(percentile(values, percent)!)}`)
    .join(', ');
}

function percentOf(errors: readonly number[]): string {
  if (errors.length === 0) return 'none announced';
  const [median, most] = [50, 95].map((percent) => (100 * percentile(errors, percent)!).toFixed(0));
  return `p50 ${median} %, p95 ${most} % (of ${errors.length})`;
}

function seconds(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
