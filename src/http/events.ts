import type { StreamEvent } from '../token-streamer.ts';
import { type Encoder, EVENT_STREAM, tokenJson } from './encoder.ts';

/**
 * The library's own server-sent events: `position`, `start`, `token`, then `done` or `error`, each
 * with one line of JSON. JSON has no line ends, so that nothing in it can start a field or an event.
 */
export const eventsEncoder: Encoder = {
  headers: { 'content-type': EVENT_STREAM },
  heartbeat: ':\n\n',
  tellsErrors: true,
  encode(event: StreamEvent<unknown>): string {
    if (event.type === 'token') {
      return `event: token\ndata: {"index":${event.index},"value":${tokenJson(event.value)}}\n\n`;
    }
    const { type, ...data } = event;
    return `event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
  },
};
