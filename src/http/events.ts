import { LAST_EVENT_ID } from '../internal/stream-handle.ts';
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
  encode(event: StreamEvent<unknown>, hasIds: boolean): string {
    if (event.type === 'token') {
      const { index, value } = event;
      const id = hasIds ? `id: ${index}\n` : '';
      return `${id}event: token\ndata: {"index":${index},"value":${tokenJson(value)}}\n\n`;
    }
    const { type, ...data } = event;
    const id = hasIds && (type === 'done' || type === 'error') ? `id: ${LAST_EVENT_ID}\n` : '';
    return `${id}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
  },
};
