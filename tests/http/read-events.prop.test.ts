import { fc, test } from '@fast-check/vitest';
import { describe, expect } from 'vitest';

import { toResponse } from '../../src/http/index.ts';
import { type ReadError, readEvents, type ReadEvent } from '../../src/http/read-events.ts';
import { ManualClock } from '../../src/testing.ts';
import { type StreamEvent, TokenStreamer } from '../../src/token-streamer.ts';

const RUNS = { numRuns: 200 };

const token = fc.oneof(
  fc.string({ unit: 'binary' }).map((text) => text.toWellFormed()),
  fc.constantFrom('', '\n', '\r', '\r\n\r\n', 'data: x', '\uFEFF', '漢字', '😀', 'e\u0301'),
  fc.json().map((json) => JSON.parse(json) as unknown),
);

/** A place in an answer as a part of its length, any as likely as any other, unlike with `double`. */
const place = fc.nat({ max: 10_000 }).map((part) => part / 10_000);
const cuts = fc.array(place, { maxLength: 40 });

interface Told {
  readonly events: readonly StreamEvent<unknown>[];
  readonly bytes: Uint8Array;
}

/** What a stream tells, read at the source and as bytes of its response. */
async function tell(tokens: readonly unknown[], fails: boolean): Promise<Told> {
  const source = function* (): Generator {
    yield* tokens;
    if (fails) throw new Error('broken');
  };
  const streamer = new TokenStreamer({ clock: new ManualClock() });
  const events = await Array.fromAsync(streamer.stream(source));
  const response = await toResponse(streamer.stream(source));
  return { events, bytes: await response.bytes() };
}

function pieces(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = places.map((part) => Math.round(part * bytes.length)).toSorted((a, b) => a - b);
  const ends = [...at, bytes.length];
  return ends.map((end, i) => bytes.slice(ends[i - 1] ?? 0, end));
}

function answer(chunks: readonly Uint8Array[]): Response {
  const body = new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
}

async function read(
  response: Response,
): Promise<{ events: ReadEvent<unknown>[]; error: ReadError | undefined }> {
  const events: ReadEvent<unknown>[] = [];
  try {
    for await (const event of readEvents<unknown>(response)) events.push(event);
  } catch (error) {
    return { events, error: error as ReadError };
  }
  return { events, error: undefined };
}

describe('readEvents()', () => {
  test.prop([fc.array(token, { maxLength: 12 }), fc.boolean(), cuts], RUNS)(
    'reads what was told, wherever the bytes are split',
    async (tokens, fails, places) => {
      const told = await tell(tokens, fails);
      const { events, error } = await read(answer(pieces(told.bytes, places)));
      expect(events).toEqual(fails ? told.events.slice(0, -1) : told.events);
      expect(error).toEqual(
        fails
          ? expect.objectContaining({
              name: 'ReadError',
              code: 'ERR_STREAM_FAILED',
              message: 'The stream failed.',
            })
          : undefined,
      );
    },
  );

  test.prop([fc.array(token, { maxLength: 12 }), fc.boolean(), place, cuts], RUNS)(
    'takes no answer for a whole one that lacks as much as the last byte',
    async (tokens, fails, part, places) => {
      const told = await tell(tokens, fails);
      const bytes = told.bytes.slice(0, Math.min(told.bytes.length - 1, part * told.bytes.length));
      const { events, error } = await read(answer(pieces(bytes, places)));
      expect(events).toEqual(told.events.slice(0, events.length));
      expect(events.at(-1)?.type).not.toBe('done');
      expect(error).toMatchObject({ name: 'ReadError', code: 'ERR_STREAM_CUT', status: 200 });
    },
  );
});
