import { LimitedProvider, type Quota } from './limited.ts';
import type { Provider, Question } from './providers.ts';

export interface Report {
  readonly name: string;
  /** Requests, those that were answered, and those that were refused with 429. */
  readonly sent: number;
  readonly completed: number;
  readonly refused: number;
  /** As the provider counts them. */
  readonly tokens: number;
  /** From the first request to the last one. */
  readonly elapsedMs: number;
  /** What was used of what could be had, by limit: see the README. */
  readonly utilisation: Readonly<Record<'requests' | 'tokens', number>>;
}

const TOPICS = ['semaphore', 'queue', 'rate limiter', 'session', 'stream', 'token', 'lease'];
const MAX_TOKENS = 56;

/**
 * Asks everything at once; the limiter sees to it that it goes out as the quota allows. One question
 * goes ahead and is not counted: it opens the first connection.
 */
export async function exhaust(provider: Provider, quota: Quota, calls: number): Promise<Report> {
  await provider.ask(questionOf(0), new AbortController().signal, () => {});
  const limited = new LimitedProvider(provider, quota);
  const bursts = limited.limiter.stats().limits.map(({ burst }) => burst);
  const startedAt = performance.now();
  const answers = await Promise.all(
    Array.from({ length: calls }, (_, index) => limited.ask(questionOf(index))),
  );
  const elapsedMs = (limited.lastSentAt ?? startedAt) - startedAt;
  const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0);
  const couldBeHad = (limit: number, burst: number): number =>
    burst + (limit * elapsedMs) / quota.windowMs;
  return {
    name: provider.name,
    sent: limited.sent,
    completed: answers.length,
    refused: limited.refused,
    tokens,
    elapsedMs,
    utilisation: {
      requests: answers.length / couldBeHad(quota.requests, bursts[0]!),
      tokens: tokens / couldBeHad(quota.tokens, bursts[1]!),
    },
  };
}

function questionOf(index: number): Question {
  const topic = TOPICS[index % TOPICS.length];
  return { prompt: `Question ${index}: what does a ${topic} promise?`, maxTokens: MAX_TOKENS };
}

export function tableOf(reports: readonly Report[]): string {
  const rows = reports.map(({ utilisation, ...report }) => [
    report.name,
    String(report.sent),
    String(report.completed),
    String(report.refused),
    String(report.tokens),
    `${(report.elapsedMs / 1000).toFixed(1)} s`,
    percent(utilisation.requests),
    percent(utilisation.tokens),
  ]);
  const head = [
    'provider',
    'sent',
    'completed',
    '429s',
    'tokens',
    'time',
    'of requests',
    'of tokens',
  ];
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]!.length)),
  );
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
        )
        .join('  '),
    )
    .join('\n');
}

function percent(part: number): string {
  return `${(part * 100).toFixed(1)} %`;
}
