import type { StreamEvent } from '../token-streamer.ts';

/** How the events of one stream look on the wire, in one format. Made for one stream. */
export interface Encoder {
  /** The headers that the format needs; the names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** What is sent while there is nothing to send; undefined where the format has nothing for it. */
  readonly heartbeat: string | undefined;
  /** Whether an error can be told. Where not, the connection has to be cut to tell. */
  readonly tellsErrors: boolean;
  /**
   * Whole records, or nothing; with the ids of the events, where the format has room for them, if
   * the client may come again. Throws where the value of a token cannot be sent in this format.
   */
  encode(event: StreamEvent<unknown>, hasIds: boolean): string;
}

export const EVENT_STREAM = 'text/event-stream; charset=utf-8';

/** A server-sent event without a name. */
export function dataEvent(data: object): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}

/** The value of a token as JSON: one line, whatever is in it. */
export function tokenJson(value: unknown): string {
  const json = JSON.stringify(value) as string | undefined;
  if (json !== undefined) return json;
  throw new TypeError(`Expected a token that JSON can hold, got a value of type ${typeof value}.`);
}
