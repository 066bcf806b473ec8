import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

export interface Load {
  /** Of the API, without a path. */
  readonly url: string;
  /** Requests that are sent evenly, whatever becomes of them. */
  readonly perSecond: number;
  readonly seconds: number;
  /** Of the users who send them in turn. */
  readonly keys: readonly string[];
}

/** What became of one request; `lost` is one without an answer. */
export interface Outcome {
  readonly status: number | 'lost';
  readonly ms: number;
}

export interface LoadReport {
  readonly outcomes: readonly Outcome[];
  /** What this process had on its heap, every second, garbage included. */
  readonly heapMB: readonly number[];
}

/** Sends requests in an open loop, from a thread of its own; resolves when all are answered. */
export async function overload(load: Load): Promise<LoadReport> {
  const heapMB = [heapNow()];
  const timer = setInterval(() => heapMB.push(heapNow()), 1000);
  try {
    const sender = new Worker(new URL('sender.ts', import.meta.url), { workerData: load });
    const [outcomes] = (await once(sender, 'message')) as [Outcome[]];
    return { outcomes, heapMB };
  } finally {
    clearInterval(timer);
  }
}

/** The table that the README shows. */
export function tableOf({ outcomes, heapMB }: LoadReport): string {
  const statuses = [...new Set(outcomes.map(({ status }) => status))];
  const rows = statuses
    .toSorted((a, b) => String(a).localeCompare(String(b)))
    .map((status) => {
      const times = outcomes.filter((outcome) => outcome.status === status).map(({ ms }) => ms);
      times.sort((a, b) => a - b);
      const at = (share: number): string =>
        `${Math.round(times[Math.ceil(share * times.length) - 1]!)} ms`;
      return [String(status), String(times.length), at(0.5), at(0.99), at(1)];
    });
  const lines = [['status', 'answers', 'p50', 'p99', 'max'], ...rows].map((cells) =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(6) : cell.padStart(9))).join(''),
  );
  return [...lines, `heap, every second: ${heapMB.join(' ')} MB`].join('\n');
}

function heapNow(): number {
  return Math.round(process.memoryUsage().heapUsed / 1_048_576);
}
