import type { StreamEvent } from '../token-streamer.ts';
import { type Encoder, tokenJson } from './encoder.ts';

/** Every event as an object of JSON on a line of its own. */
export const ndjsonEncoder: Encoder = {
  headers: { 'content-type': 'application/x-ndjson' },
  heartbeat: '{"type":"heartbeat"}\n',
  tellsErrors: true,
  encode(event: StreamEvent<unknown>): string {
    return event.type === 'token'
      ? `{"type":"token","index":${event.index},"value":${tokenJson(event.value)}}\n`
      : `${JSON.stringify(event)}\n`;
  },
};
