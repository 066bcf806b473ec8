import type { Clock } from '../clock.ts';
import { positiveMs, readOptions } from '../internal/assert.ts';
import { Alarm, Time } from '../internal/time.ts';

/** A primitive, or a check of something else that fails by throwing or rejecting. */
export type HealthPart = { stats(): object } | (() => unknown);

/** How long checks may take. */
export interface HealthReportOptions {
  /** How long a check may take before it has failed, in ms. Default 5000. */
  readonly timeoutMs?: number | undefined;
  readonly clock?: Clock | undefined;
}

/** What to answer a health check with. */
export interface HealthReport {
  /** 200, or 503 where a part is closed or a check failed. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** To be sent as JSON. */
  readonly body: {
    readonly status: 'ok' | 'closed' | 'failing';
    /** By their names: the `stats()` of primitives, what checks returned, `{ error }` of failed ones. */
    readonly parts: Readonly<Record<string, unknown>>;
  };
}

const OPTIONS = new Set(['timeoutMs', 'clock']);

/**
 * How all the parts of a server are, for its `/health`. Checks run at the same time and are given up
 * after `timeoutMs`. Of a check that failed, only the code or the name of the error is told.
 *
 * @example
 * ```ts
 * const { status, headers, body } = await healthReport({ queue, limiter, model: () => ping(url) });
 * response.writeHead(status, headers).end(JSON.stringify(body));
 * ```
 */
export async function healthReport(
  parts: Readonly<Record<string, HealthPart>>,
  options?: HealthReportOptions,
): Promise<HealthReport> {
  const given = readOptions('healthReport', options, OPTIONS);
  const { timeoutMs = 5000 } = given;
  positiveMs('timeoutMs', timeoutMs);
  const time = new Time(given.clock);
  let isClosed = false;
  let isFailing = false;
  const examine = async (part: HealthPart): Promise<unknown> => {
    try {
      if (typeof part === 'function') return (await within(timeoutMs, time, part)) ?? {};
      const stats = (await within(timeoutMs, time, () => part.stats())) as object;
      if ((stats as { closed?: unknown }).closed === true) isClosed = true;
      return stats;
    } catch (error) {
      isFailing = true;
      return { error: nameOf(error) };
    }
  };
  const entries = Object.entries(parts).map(async ([name, part]) => [name, await examine(part)]);
  const body = {
    parts: Object.fromEntries(await Promise.all(entries)) as Record<string, unknown>,
    status: isFailing ? 'failing' : isClosed ? 'closed' : 'ok',
  } as const;
  return {
    status: body.status === 'ok' ? 200 : 503,
    headers: {
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'no-store',
    },
    body,
  };
}

/** What `check` returns; rejects when that has not settled in time. */
function within(ms: number, time: Time, check: () => unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const alarm = new Alarm(time, () => reject(new DOMException('Too late.', 'TimeoutError')));
    alarm.set(time.now() + ms);
    const checked = (async () => check())();
    void checked.then(resolve, reject).finally(() => alarm.set(Infinity));
  });
}

function nameOf(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  if (typeof code === 'string') return code;
  return typeof name === 'string' ? name : 'Error';
}
