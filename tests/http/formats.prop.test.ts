import { fc, test } from '@fast-check/vitest';
import { createParser } from 'eventsource-parser';
import { describe, expect } from 'vitest';

import { encodeEvents, type EncodeOptions } from '../../src/http/index.ts';
import { ManualClock } from '../../src/testing.ts';
import { TokenStreamer } from '../../src/token-streamer.ts';

/** Text with everything in it that could mean something to a parser. */
const text = fc
  .array(
    fc.constantFrom(
      '\r',
      '\n',
      '\r\n',
      '\0',
      '\uFEFF',
      '\u2028',
      ' ',
      ':',
      'data: x',
      'event: done',
      'id: 7',
      '[DONE]',
      '"',
      '\\',
      'ä',
      '漢',
      '😀',
      '\uD83D',
      '\uDE00',
    ),
    { maxLength: 6 },
  )
  .map((parts) => parts.join(''));
const texts = fc.array(text, { maxLength: 8 });

async function encode<T>(tokens: readonly T[], options: EncodeOptions<T>): Promise<string> {
  const streamer = new TokenStreamer({ clock: new ManualClock() });
  let all = '';
  for await (const chunk of encodeEvents(streamer.stream(tokens), options)) all += chunk;
  return all;
}

interface Record {
  readonly event: string;
  readonly data: string;
}

interface Chunk {
  readonly delta?: string;
  readonly choices?: { readonly delta: { readonly content?: string } }[];
}

/** The events of a stream as `eventsource-parser` reads them. */
function parsed(stream: string): Record[] {
  const records: Record[] = [];
  const parser = createParser({
    onEvent: ({ event, data }) => records.push({ event: event ?? 'message', data }),
    onError: (error) => {
      throw error;
    },
  });
  parser.feed(stream);
  return records;
}

/** The same by the letter of the standard: "event stream interpretation" in HTML, 9.2.6. */
function interpreted(stream: string): Record[] {
  const records: Record[] = [];
  let event = '';
  let data = '';
  for (const line of stream
    .replace(/^\uFEFF/u, '')
    .split(/\r\n|\r|\n/u)
    .slice(0, -1)) {
    const [, field = '', value = ''] = /^([^:]*)(?:: ?([\s\S]*))?$/u.exec(line)!;
    if (line === '') {
      if (data !== '') records.push({ event: event || 'message', data: data.slice(0, -1) });
      event = '';
      data = '';
    } else if (field === 'event') {
      event = value;
    } else if (field === 'data') {
      data += `${value}\n`;
    }
  }
  return records;
}

describe('the formats of server-sent events', () => {
  test.prop([texts])(
    'events: every token comes back as it was, in one record (T-01, T-06, H160, H161, H314)',
    async (tokens) => {
      const stream = await encode(tokens, { format: 'events' });
      const records = parsed(stream);
      expect(interpreted(stream)).toEqual(records);
      expect(records.map(({ event }) => event)).toEqual([
        'start',
        ...tokens.map(() => 'token'),
        'done',
      ]);
      const values = records.slice(1, -1).map(({ data }) => JSON.parse(data) as unknown);
      expect(values).toEqual(tokens.map((value, index) => ({ index, value })));
    },
  );

  test.prop([texts])(
    'openai and ai-ui: the text comes back as it was (H160, H161, H314, H317)',
    async (tokens) => {
      const whole = tokens.join('').toWellFormed();
      for (const format of ['openai', 'ai-ui'] as const) {
        const stream = await encode(tokens, { format, id: 'a\n\nb', model: 'm\r\n\r\nevent: x' });
        const records = parsed(stream);
        expect(interpreted(stream)).toEqual(records);
        expect(new Set(records.map(({ event }) => event))).toEqual(new Set(['message']));
        expect(records.at(-1)!.data).toBe('[DONE]');
        const all = records.slice(0, -1).map(({ data }) => JSON.parse(data) as Chunk);
        const pieces = all.map(({ choices, delta }) => delta ?? choices?.[0]?.delta.content ?? '');
        expect(pieces.join('').toWellFormed()).toBe(whole);
        expect(pieces.every((piece) => !/[\uD800-\uDBFF]$/u.test(piece))).toBe(true);
      }
    },
  );

  test.prop([texts])(
    'text: the text comes back as it was, whole at every cut (T-08, H313)',
    async (tokens) => {
      const streamer = new TokenStreamer({ clock: new ManualClock(), highWaterMark: 1 });
      const bytes: number[] = [];
      const utf8 = new TextEncoder();
      for await (const chunk of encodeEvents(streamer.stream(tokens), { format: 'text' })) {
        bytes.push(...utf8.encode(chunk));
      }
      const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
      expect(decoder.decode(Uint8Array.from(bytes))).toBe(tokens.join('').toWellFormed());
    },
  );

  test.prop([texts])(
    'ndjson: every token comes back as it was, on one line (H315)',
    async (tokens) => {
      const lines = (await encode(tokens, { format: 'ndjson' })).split('\n');
      expect(lines.pop()).toBe('');
      const records = lines.map((line) => JSON.parse(line) as { type: string; value?: string });
      expect(records.filter(({ type }) => type === 'token').map(({ value }) => value)).toEqual(
        tokens,
      );
      expect(records.at(-1)).toEqual({ type: 'done', tokens: tokens.length, elapsedMs: 0 });
    },
  );

  test.prop([fc.string({ unit: 'grapheme' }), fc.array(fc.nat(20))])(
    'bytes of UTF-8 are text, wherever they are cut (T-09)',
    async (whole, cuts) => {
      const bytes = new TextEncoder().encode(whole);
      const tokens: Uint8Array[] = [];
      let at = 0;
      for (const cut of [...cuts, bytes.length]) {
        tokens.push(bytes.slice(at, at + cut));
        at += cut;
      }
      expect(await encode(tokens, { format: 'text' })).toBe(new TextDecoder().decode(bytes));
    },
  );
});
