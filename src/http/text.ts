import type { StreamEvent } from '../token-streamer.ts';
import type { Encoder } from './encoder.ts';
import type { Pieces } from './pieces.ts';

/** The tokens as they are. There is no way to tell an error but to break off. */
export function textEncoder(pieces: Pieces): Encoder {
  return {
    headers: { 'content-type': 'text/plain; charset=utf-8', 'x-content-type-options': 'nosniff' },
    heartbeat: undefined,
    tellsErrors: false,
    encode(event: StreamEvent<unknown>): string {
      if (event.type === 'token') return pieces.next(event.value);
      return event.type === 'done' ? pieces.end() : '';
    },
  };
}
