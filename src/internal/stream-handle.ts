import type { Deadlines } from './deadlines.ts';
import type { Due, Ending } from './feed.ts';
import type { Time } from './time.ts';

/** Under this name a stream lets the encoders of the library read it without a promise a token. */
export const streamHandle: unique symbol = Symbol('sluice.streamHandle');

/** The id of the event that ends a stream. The id of a token is its index; the others have none. */
export const LAST_EVENT_ID = 'end';

/** A stream as those see it who send it on. There is one reader: taking the handle claims it. */
export interface StreamHandle<Event> {
  readonly settings: {
    readonly heartbeatMs: number;
    readonly stallMs: number;
    readonly exposeErrors: boolean;
    readonly time: Time;
    readonly deadlines: Deadlines<Due>;
  };
  /** Whether events are to be told with their ids, since the client may come again with the last. */
  readonly hasIds: boolean;
  /** How it ended, once it has, be everything read or not. */
  readonly ending: Ending | undefined;
  /** The next event, if there is one now. */
  take(): Event | undefined;
  /** Calls back once there is something to take, or nothing ever again: at once if so now. */
  ready(callback: () => void): void;
  /** Calls back when the stream is ended from outside: what it has not given is lost. */
  onStop(callback: () => void): void;
  /** Ends it; false where it had ended. */
  end(ending: Ending): boolean;
}

/** The handle of a stream, which is read by nobody else from now on. */
export function handleOf<Event>(stream: {
  readonly [streamHandle]: () => StreamHandle<Event>;
}): StreamHandle<Event> {
  const given: Partial<typeof stream> | null | undefined = stream;
  if (given?.[streamHandle] === undefined) {
    throw new TypeError('Expected `stream` to be a TokenStream.');
  }
  return stream[streamHandle]();
}
