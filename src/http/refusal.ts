import type { Refusal } from './frames.ts';
import { type HttpError, httpError, toHttpError } from './http-error.ts';

/** What a stream that was not let in is answered with. */
export function refusalResponse({ ending, event }: Refusal): HttpError {
  const known = toHttpError(ending.error);
  if (known !== undefined) return known;
  const { code, message } = event;
  const status = { failed: 500, timeout: 504 }[ending.outcome as string] ?? 503;
  return httpError(status, {}, { code, message });
}
