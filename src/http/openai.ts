import type { StreamEvent } from '../token-streamer.ts';
import { dataEvent, type Encoder, EVENT_STREAM } from './encoder.ts';
import type { Pieces } from './pieces.ts';

/** What all chunks of one completion have in common. */
export interface Completion {
  readonly id: string;
  readonly model: string;
  /** In seconds since the Unix epoch. */
  readonly created: number;
}

/**
 * Chat-completion chunks, as the clients of that API read them. Places in line and signs of life are
 * comments, since these clients take any event for a chunk. An error is what that API sends, and
 * `[DONE]` does not follow it.
 */
export function openaiEncoder(completion: Completion, pieces: Pieces): Encoder {
  const { id, model, created } = completion;
  const chunk = (delta: object, finish_reason: string | null): string => {
    const choices = [{ index: 0, delta, finish_reason }];
    return dataEvent({ id, object: 'chat.completion.chunk', created, model, choices });
  };
  const content = (text: string): string => (text === '' ? '' : chunk({ content: text }, null));
  return {
    headers: { 'content-type': EVENT_STREAM },
    heartbeat: ':\n\n',
    tellsErrors: true,
    encode(event: StreamEvent<unknown>): string {
      switch (event.type) {
        case 'position': {
          const { position, estimatedWaitMs } = event;
          const estimate =
            estimatedWaitMs === undefined ? '' : ` estimatedWaitMs=${estimatedWaitMs}`;
          return `: queue position=${position}${estimate}\n\n`;
        }
        case 'start': {
          return chunk({ role: 'assistant', content: '' }, null);
        }
        case 'token': {
          return content(pieces.next(event.value));
        }
        case 'done': {
          return `${content(pieces.end())}${chunk({}, 'stop')}data: [DONE]\n\n`;
        }
        default: {
          const { code, message } = event;
          return dataEvent({ error: { message, type: 'server_error', param: null, code } });
        }
      }
    },
  };
}
