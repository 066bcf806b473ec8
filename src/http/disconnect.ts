import type { Ending } from '../internal/feed.ts';

export function clientGone(): Ending {
  return {
    outcome: 'disconnected',
    error: new DOMException('The client has disconnected.', 'AbortError'),
  };
}
