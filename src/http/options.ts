import { integerWithin, oneOf, readOptions } from '../internal/assert.ts';
import type { Encoder } from './encoder.ts';
import { eventsEncoder } from './events.ts';
import type { Refusal } from './frames.ts';
import { type HttpError, httpError, toHttpError } from './http-error.ts';

export interface EncodeOptions {
  /** What the client reads. Default `'events'`. */
  readonly format?: 'events' | undefined;
}

export interface ResponseOptions extends EncodeOptions {
  /** Of a response that is not a refusal. Default 200. */
  readonly status?: number | undefined;
  /** Added to, or put in the place of, the headers that the format brings. */
  readonly headers?: HeadersInit | undefined;
}

const ENCODE_OPTIONS = new Set(['format']);
const RESPONSE_OPTIONS = new Set(['format', 'status', 'headers']);

export function readEncodeOptions(where: string, options: EncodeOptions | undefined): Encoder {
  return encoderOf(readOptions(where, options, ENCODE_OPTIONS));
}

export function readResponseOptions(
  where: string,
  options: ResponseOptions | undefined,
): { encoder: Encoder; status: number; headers: Headers } {
  const given = readOptions(where, options, RESPONSE_OPTIONS);
  const encoder = encoderOf(given);
  const headers = new Headers({
    'content-type': encoder.contentType,
    // What is transformed (compressed, say) on the way arrives in one piece at the end.
    'cache-control': 'no-cache, no-transform',
    // nginx collects the response of an upstream otherwise.
    'x-accel-buffering': 'no',
  });
  for (const [name, value] of new Headers(given.headers)) headers.set(name, value);
  return { encoder, status: integerWithin('status', given.status ?? 200, 200, 599), headers };
}

function encoderOf({ format }: EncodeOptions): Encoder {
  oneOf('format', format ?? 'events', ['events']);
  return eventsEncoder;
}

/** What a stream that was not let in is answered with. */
export function refusalResponse({ ending, event }: Refusal): HttpError {
  const { code, message } = event;
  const status = { failed: 500, timeout: 504 }[ending.outcome as string] ?? 503;
  return toHttpError(ending.error) ?? httpError(status, {}, { code, message });
}
