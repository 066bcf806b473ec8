import type { Ending } from '../internal/feed.ts';
import type { StreamHandle } from '../internal/stream-handle.ts';
import { tick } from '../internal/tick.ts';
import type { StreamEvent } from '../token-streamer.ts';
import type { Encoder } from './encoder.ts';

/** As much as a socket takes at once, more or less. */
const CHUNK_LENGTH = 16 * 1024;

/** How many promises a source that has a token at hand may need to bring it; a generator needs 3. */
const HOPS = 10;

export interface Refusal {
  readonly event: StreamEvent<unknown> & { readonly type: 'error' };
  readonly ending: Ending;
}

/**
 * A stream as chunks of one format, for whatever transport: the first token as soon as it is there,
 * afterwards all that comes within one turn of the event loop together, a heartbeat when nothing
 * has come for `heartbeatMs`. A chunk is made of whole records and not split or mixed with others.
 */
export class Frames {
  readonly #handle: StreamHandle<StreamEvent<unknown>>;
  readonly #encoder: Encoder;
  #first = '';
  #hasToken = false;
  #over = false;
  #untold: Ending | undefined;

  constructor(handle: StreamHandle<StreamEvent<unknown>>, encoder: Encoder) {
    this.#handle = handle;
    this.#encoder = encoder;
  }

  /** Whether there is nothing to be sent yet, though the verdict is `'go'`. */
  get isEmpty(): boolean {
    return this.#first === '';
  }

  /** Whether the chunk that `next` gave out is the last one. */
  get isOver(): boolean {
    return this.#over;
  }

  /** The end that the format could not tell: the transport has to break off. */
  get untold(): Ending | undefined {
    return this.#untold;
  }

  /**
   * Starts the stream and waits for what becomes of it: `'go'` when it waits in line or flows,
   * `'nothing'` when the client has seen all of it already.
   */
  async verdict(): Promise<'go' | 'nothing' | Refusal> {
    for (;;) {
      await this.#ready(Infinity);
      const event = this.#handle.take();
      if (event?.type === 'error') return { event, ending: this.#handle.ending! };
      if (event !== undefined) {
        this.#first = this.#encode(event);
        return 'go';
      }
      if (this.#handle.ending !== undefined) return 'nothing';
    }
  }

  /** The next chunk; undefined after the last. One call at a time. */
  async next(): Promise<string | undefined> {
    let chunk = this.#first;
    this.#first = '';
    while (chunk === '' && !this.#over) {
      const { heartbeat } = this.#encoder;
      const withinMs = heartbeat === undefined ? Infinity : this.#handle.settings.heartbeatMs;
      if (!(await this.#ready(withinMs))) return heartbeat;
      // A source that never pauses must not keep the event loop from everything else.
      const isFirst = !this.#hasToken;
      if (!isFirst) await tick();
      chunk = this.#collect('');
      if (!isFirst) chunk = await this.#collectMore(chunk);
    }
    return chunk === '' ? undefined : chunk;
  }

  /** Now that the buffer has room again, what the source has at hand comes in the same turn. */
  async #collectMore(begun: string): Promise<string> {
    let chunk = begun;
    for (let hops = 0; hops < HOPS && !this.#over && chunk.length < CHUNK_LENGTH; hops++) {
      await Promise.resolve();
      const { length } = chunk;
      chunk = this.#collect(chunk);
      if (chunk.length > length) hops = 0;
    }
    return chunk;
  }

  /** The chunk and what there is to be taken now, up to a full one. */
  #collect(begun: string): string {
    let chunk = begun;
    while (chunk.length < CHUNK_LENGTH) {
      const event = this.#handle.take();
      if (event === undefined) {
        this.#over ||= this.#handle.ending !== undefined;
        break;
      }
      chunk += this.#encode(event);
    }
    return chunk;
  }

  #encode(event: StreamEvent<unknown>): string {
    if (event.type === 'token') this.#hasToken = true;
    if (event.type === 'error' && !this.#encoder.tellsErrors) this.#untold = this.#handle.ending;
    try {
      return this.#encoder.encode(event, this.#handle.hasIds);
    } catch (error) {
      // A token that this format cannot send. The next event tells.
      this.#handle.end({ outcome: 'failed', error });
      return '';
    }
  }

  /** Resolves to true when there is something to take, to false when there is not within that time. */
  #ready(withinMs: number): Promise<boolean> {
    const { deadlines, time } = this.#handle.settings;
    return new Promise((resolve) => {
      const deadline =
        withinMs === Infinity
          ? undefined
          : deadlines.add({ due: () => resolve(false) }, time.now() + withinMs);
      this.#handle.ready(() => {
        if (deadline !== undefined) deadlines.remove(deadline);
        resolve(true);
      });
    });
  }
}
