import { systemClock } from '../clock.ts';
import { callable, integerWithin, oneOf, readOptions, text } from '../internal/assert.ts';
import { aiUiEncoder } from './ai-ui.ts';
import type { Encoder } from './encoder.ts';
import { eventsEncoder } from './events.ts';
import { ndjsonEncoder } from './ndjson.ts';
import { openaiEncoder } from './openai.ts';
import { Pieces } from './pieces.ts';
import { textEncoder } from './text.ts';

/**
 * `events`: server-sent events by name. `ndjson`: one event a line. `text`: the tokens as they are.
 * `openai`: chat-completion chunks. `ai-ui`: the UI message stream of the AI SDK.
 */
export type Format = 'events' | 'ndjson' | 'text' | 'openai' | 'ai-ui';

/** How the events of a stream are written. */
export interface EncodeOptions<T = unknown> {
  /** What the client reads. Default `'events'`. */
  readonly format?: Format | undefined;
  /**
   * The text of a token. The formats of text need it for tokens that are neither strings nor bytes
   * of UTF-8; in `events` and `ndjson`, where any JSON will do, the text is sent in its place.
   */
  readonly toText?: ((token: T) => string) | undefined;
  /** The id of the completion (`openai`) or of the message (`ai-ui`). Default: a random one. */
  readonly id?: string | undefined;
  /** The model that an `openai` client is told. Default `'default'`. */
  readonly model?: string | undefined;
}

/** The same, and what else the response has. */
export interface ResponseOptions<T = unknown> extends EncodeOptions<T> {
  /** Of a response that is not a refusal: one of those that have a body. Default 200. */
  readonly status?: number | undefined;
  /**
   * Of every answer, refusals included: added to, or put in the place of, the headers that the
   * format brings. What a refusal needs for itself, such as its content type, stays.
   */
  readonly headers?: ConstructorParameters<typeof Headers>[0] | undefined;
}

const FORMATS = ['events', 'ndjson', 'text', 'openai', 'ai-ui'] as const;
const ENCODE_OPTIONS = new Set(['format', 'toText', 'id', 'model']);
const BODILESS = new Set([204, 205, 304]);
const RESPONSE_OPTIONS = new Set([...ENCODE_OPTIONS, 'status', 'headers']);

export function readEncodeOptions(
  where: string,
  options: EncodeOptions<never> | undefined,
): Encoder {
  return encoderOf(readOptions(where, options, ENCODE_OPTIONS));
}

export function readResponseOptions(
  where: string,
  options: ResponseOptions<never> | undefined,
): { encoder: Encoder; status: number; headers: Headers; own: Headers } {
  const given = readOptions(where, options, RESPONSE_OPTIONS);
  const { status = 200 } = given;
  integerWithin('status', status, 200, 599);
  if (BODILESS.has(status)) {
    throw new RangeError(
      `Expected \`status\` to be that of a response with a body, got ${status}.`,
    );
  }
  const encoder = encoderOf(given);
  const own = new Headers(given.headers);
  const formats = new Headers({
    ...encoder.headers,
    // What is transformed (compressed, say) on the way arrives in one piece at the end.
    'cache-control': 'no-cache, no-transform',
    // nginx collects the response of an upstream otherwise.
    'x-accel-buffering': 'no',
  });
  return { encoder, status, headers: overlaid(formats, own), own };
}

/** Those of `below` that are not in `above`, and those of `above`: several cookies if there are. */
export function overlaid(below: Headers, above: Headers): Headers {
  const headers = new Headers(below);
  for (const name of above.keys()) headers.delete(name);
  for (const [name, value] of above) headers.append(name, value);
  return headers;
}

function encoderOf(options: EncodeOptions<never>): Encoder {
  const { format = 'events', model = 'default', id } = options;
  const toText = options.toText as ((token: unknown) => string) | undefined;
  if (toText !== undefined) callable('toText', toText);
  if (id !== undefined) text('id', id);
  text('model', model);
  switch (oneOf('format', format, FORMATS)) {
    case 'events': {
      return toText === undefined ? eventsEncoder : withText(eventsEncoder, toText);
    }
    case 'ndjson': {
      return toText === undefined ? ndjsonEncoder : withText(ndjsonEncoder, toText);
    }
    case 'text': {
      return textEncoder(new Pieces(toText));
    }
    case 'openai': {
      const created = Math.floor(systemClock.now() / 1000);
      const completion = { id: id ?? `chatcmpl-${crypto.randomUUID()}`, model, created };
      return openaiEncoder(completion, new Pieces(toText));
    }
    default: {
      return aiUiEncoder(id ?? crypto.randomUUID(), new Pieces(toText));
    }
  }
}

function withText(encoder: Encoder, toText: (token: unknown) => string): Encoder {
  return {
    ...encoder,
    encode: (event, hasIds) =>
      encoder.encode(
        event.type === 'token' ? { ...event, value: toText(event.value) } : event,
        hasIds,
      ),
  };
}
