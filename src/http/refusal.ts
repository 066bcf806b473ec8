import type { Refusal } from './frames.ts';
import { httpError, toHttpError } from './http-error.ts';
import { overlaid } from './options.ts';

/** What a stream that was not let in is answered with; `own` are the caller's headers. */
export function refusalResponse(
  { ending, event }: Refusal,
  own: Headers,
): { status: number; headers: Headers; body: string } {
  const { code, message } = event;
  const unknown = { failed: 500, timeout: 504 }[ending.outcome as string] ?? 503;
  const { status, headers, body } =
    toHttpError(ending.error) ?? httpError(unknown, {}, { code, message });
  return { status, headers: overlaid(own, new Headers(headers)), body: JSON.stringify(body) };
}
