import type { ErrorCode, SluiceError } from '../errors.ts';
import { isOurs } from '../internal/ours.ts';

/** What to answer a request with that was not admitted. */
export interface HttpError {
  readonly status: number;
  /** To be set as they are: content type, `Cache-Control`, and where known `Retry-After`. */
  readonly headers: Readonly<Record<string, string>>;
  /** To be sent as JSON. */
  readonly body: {
    readonly error: {
      readonly code: string;
      readonly message: string;
      readonly retryAfterMs?: number;
      readonly estimatedWaitMs?: number;
    };
  };
}

/** 429: this caller asks for too much; 503: there is too much to do; 504: it took too long. */
const STATUS = {
  ERR_CLOSED: 503,
  ERR_QUEUE_FULL: 503,
  ERR_SHED: 503,
  ERR_WAIT_TIMEOUT: 503,
  ERR_RUN_TIMEOUT: 504,
  ERR_EXCEEDS_CAPACITY: 413,
  ERR_RATE_LIMITED: 429,
  ERR_DUPLICATE_ID: 409,
  ERR_SESSIONS_FULL: 503,
  ERR_KEYS_FULL: 503,
  ERR_SESSION_TIMEOUT: 504,
  ERR_METADATA_TOO_LARGE: 413,
  ERR_LOAD_TIMEOUT: 503,
  ERR_LOAD_CANCELLED: 503,
  ERR_STREAM_TIMEOUT: 504,
  ERR_REPLAY_EXPIRED: 410,
} satisfies Record<ErrorCode, number> as Readonly<Record<string, number | undefined>>;

/** Status, headers and body for an error of this library, of any copy of it; undefined for any other. */
export function toHttpError(error: unknown): HttpError | undefined {
  if (!isOurs(error)) return undefined;
  const { code, message, retryAfterMs, estimatedWaitMs, limit } = error as SluiceError & {
    retryAfterMs?: number;
    estimatedWaitMs?: number;
    limit?: string;
  };
  const headers: Record<string, string> = {};
  if (retryAfterMs !== undefined) {
    // Whole seconds, and never sooner than promised; RFC 9111, 1.2.2 has none above 2^31.
    const seconds = String(Math.min(Math.max(1, Math.ceil(retryAfterMs / 1000)), 2 ** 31));
    headers['retry-after'] = seconds;
    if (code === 'ERR_RATE_LIMITED') {
      headers['ratelimit'] = `${structuredString(limit ?? 'default')};r=0;t=${seconds}`;
    }
  }
  // Another copy of the library may have codes that this one has not.
  return httpError(STATUS[code] ?? 503, headers, {
    code,
    message,
    ...(retryAfterMs !== undefined && { retryAfterMs: Math.ceil(retryAfterMs) }),
    ...(estimatedWaitMs !== undefined && { estimatedWaitMs: Math.ceil(estimatedWaitMs) }),
  });
}

export function httpError(
  status: number,
  headers: Readonly<Record<string, string>>,
  error: HttpError['body']['error'],
): HttpError {
  return {
    status,
    headers: {
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'no-store',
      ...headers,
    },
    body: { error },
  };
}

/** A string of RFC 8941: printable ASCII in quotes. */
function structuredString(text: string): string {
  const printable = text.replaceAll(/[^\x20-\x7e]/gu, '?');
  return `"${printable.replaceAll(/["\\]/gu, '\\$&')}"`;
}
