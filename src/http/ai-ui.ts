import type { StreamEvent } from '../token-streamer.ts';
import { dataEvent, type Encoder, EVENT_STREAM } from './encoder.ts';
import type { Pieces } from './pieces.ts';

/** Which of the message's text parts the text belongs to: there is one. */
const PART = 'text';

function textDelta(delta: string): string {
  return delta === '' ? '' : dataEvent({ type: 'text-delta', id: PART, delta });
}

/**
 * The UI message stream of the AI SDK, version 1, for `useChat` and its transports. The place in
 * line is a transient part `data-queue`, which reaches `onData` and is not kept in the message.
 * After an error there is no `finish`.
 */
export function aiUiEncoder(messageId: string, pieces: Pieces): Encoder {
  return {
    headers: { 'content-type': EVENT_STREAM, 'x-vercel-ai-ui-message-stream': 'v1' },
    heartbeat: ':\n\n',
    tellsErrors: true,
    encode(event: StreamEvent<unknown>): string {
      switch (event.type) {
        case 'position': {
          const { position, estimatedWaitMs } = event;
          const data = { position, estimatedWaitMs };
          return dataEvent({ type: 'data-queue', id: 'queue', data, transient: true });
        }
        case 'start': {
          return `${dataEvent({ type: 'start', messageId })}${dataEvent({ type: 'text-start', id: PART })}`;
        }
        case 'token': {
          return textDelta(pieces.next(event.value));
        }
        case 'done': {
          const end = dataEvent({ type: 'text-end', id: PART });
          const finish = dataEvent({ type: 'finish', finishReason: 'stop' });
          return `${textDelta(pieces.end())}${end}${finish}data: [DONE]\n\n`;
        }
        default: {
          return dataEvent({ type: 'error', errorText: event.message });
        }
      }
    },
  };
}
