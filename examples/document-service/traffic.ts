import { summaryOf, type Summary } from './summary.ts';

/** One request, and what became of it. Times count from the beginning of the run. */
export interface Sample {
  readonly startedMs: number;
  readonly latencyMs: number;
  /** 0 where the connection was cut. */
  readonly status: number;
}

/** What the service said of itself at one moment. */
export interface Depth {
  readonly atMs: number;
  /** Documents that are worked on, documents in line, calls of the model. */
  readonly active: number;
  readonly waiting: number;
  readonly calls: number;
}

export interface TrafficReport {
  readonly requests: number;
  readonly concurrency: number;
  readonly elapsedMs: number;
  readonly statuses: Readonly<Record<string, number>>;
  /** The part that was answered with 200. */
  readonly successRate: number;
  /** Of those, per second. */
  readonly throughputPerSecond: number;
  /** Of those, and of the others. */
  readonly latencyMs: Summary | undefined;
  readonly refusalMs: Summary | undefined;
  readonly samples: readonly Sample[];
  readonly depths: readonly Depth[];
}

interface Health {
  readonly parts: Readonly<Record<'documents' | 'calls', { active: number; waiting: number }>>;
}

const POLL_MS = 100;

/**
 * Sends `requests` documents to the service at `url`, `concurrency` at a time, and asks it meanwhile how
 * long its lines are.
 */
export async function sendTraffic(
  url: string,
  { requests, concurrency, text }: { requests: number; concurrency: number; text: string },
): Promise<TrafficReport> {
  const startedAt = performance.now();
  const now = (): number => Math.round(performance.now() - startedAt);
  const samples: Sample[] = [];
  let sent = 0;

  const client = async (): Promise<void> => {
    while (sent < requests) {
      sent += 1;
      const startedMs = now();
      // A text of its own for each, as with real ones.
      const status = await statusOf(`${url}/documents`, `${text}\n\nDocument ${sent}.`);
      samples.push({ startedMs, latencyMs: now() - startedMs, status });
    }
  };

  const done = new AbortController();
  const depths = watch(url, now, done.signal);
  await Promise.all(Array.from({ length: concurrency }, client));
  const elapsedMs = now();
  done.abort();

  const good = samples.filter(({ status }) => status === 200);
  const others = samples.filter(({ status }) => status !== 200);
  return {
    requests,
    concurrency,
    elapsedMs,
    statuses: countsOf(samples.map(({ status }) => String(status))),
    successRate: good.length / requests,
    throughputPerSecond: good.length / (elapsedMs / 1000),
    latencyMs: summaryOf(good.map(({ latencyMs }) => latencyMs)),
    refusalMs: summaryOf(others.map(({ latencyMs }) => latencyMs)),
    samples,
    depths: await depths,
  };
}

async function statusOf(url: string, body: string): Promise<number> {
  try {
    const headers = { 'content-type': 'text/plain; charset=utf-8' };
    const response = await fetch(url, { method: 'POST', headers, body });
    await response.arrayBuffer();
    return response.status;
  } catch {
    return 0;
  }
}

async function watch(url: string, now: () => number, done: AbortSignal): Promise<Depth[]> {
  const depths: Depth[] = [];
  while (!done.aborted) {
    try {
      const response = await fetch(`${url}/health`, { signal: done });
      const { documents, calls } = ((await response.json()) as Health).parts;
      const { active, waiting } = documents;
      depths.push({ atMs: now(), active, waiting, calls: calls.active });
    } catch {
      // A gap in the chart: a service that does not answer this either shows in the samples.
    }
    await new Promise((resolve) => {
      setTimeout(resolve, POLL_MS);
    });
  }
  return depths;
}

function countsOf(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}
