import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { DefaultChatTransport, readUIMessageStream, streamText, type UIMessage } from 'ai';
import { EventSource } from 'eventsource';
import OpenAI, { APIError } from 'openai';
import { describe, expect, it } from 'vitest';
import { fetch as undiciFetch } from 'undici';

import { AdmissionQueue } from '../../src/admission-queue.ts';
import { type Format, pipeToResponse, type ResponseOptions } from '../../src/http/index.ts';
import { TokenStreamer, type TokenStream } from '../../src/token-streamer.ts';
import { serve, type Served, until } from '../support/serve.ts';

const TEXT = [
  'Hel',
  'lo',
  ' wörld',
  '\n\n',
  '😀'.slice(0, 1),
  '😀'.slice(1),
  '',
  ' data: x\r',
  '!',
];
const WHOLE = TEXT.join('');

/** How the answer goes: whole, or broken off by its source, or cut by the connection. */
type Course = 'whole' | 'failed' | 'cut';

interface Answering extends Served {
  readonly queue: AdmissionQueue;
  /** Lets the first in line go. */
  readonly next: () => void;
}

/**
 * A server that answers in that format to whatever it is asked, behind a line in which two are
 * waiting already, with heartbeats all the time.
 */
async function answering(
  format: Format,
  course: Course,
  options?: ResponseOptions,
): Promise<Answering> {
  const queue = new AdmissionQueue({ concurrency: 1 });
  const leave: (() => void)[] = [];
  for (let i = 0; i < 2; i++)
    void queue.run(() => new Promise<void>((resolve) => leave.push(resolve)));
  const streamer = new TokenStreamer({ heartbeatMs: 1 });
  const source = async function* (): AsyncGenerator<string> {
    for (const text of TEXT) {
      await new Promise((resolve) => {
        setTimeout(resolve, 2);
      });
      yield text;
    }
    if (course !== 'whole') throw new Error('secret');
  };
  const served = await serve((_, response) => {
    const stream: TokenStream<string> = streamer.stream(source, { gate: queue });
    void pipeToResponse(stream, response, { format, ...options });
    if (course === 'cut') {
      // The connection breaks instead of the error being told.
      const write = response.write.bind(response) as (chunk: string) => boolean;
      response.write = ((chunk: string) =>
        chunk.includes('error') ? (response.destroy(), false) : write(chunk)) as never;
    }
  });
  return { ...served, queue, next: () => leave.shift()!() };
}

/** Waits until somebody is in line, and lets the line go on. */
async function serveLine({ queue, next }: Answering): Promise<void> {
  await until(() => queue.waiting === 2);
  next();
  await until(() => queue.waiting === 1);
  next();
}

const openai = (url: string): OpenAI =>
  new OpenAI({ apiKey: 'x', baseURL: `${url}/v1`, maxRetries: 0 });

describe('the format `openai`', () => {
  const ask = async (
    course: Course,
  ): Promise<{ text: string; error: unknown; finish: unknown }> => {
    await using served = await answering('openai', course, { model: 'small', id: 'answer-7' });
    const line = serveLine(served);
    const answer = { text: '', error: undefined as unknown, finish: undefined as unknown };
    try {
      const stream = await openai(served.url).chat.completions.create({
        model: 'm',
        messages: [{ role: 'user', content: 'hi' }],
        stream: true,
      });
      for await (const chunk of stream) {
        expect(chunk).toMatchObject({
          id: 'answer-7',
          object: 'chat.completion.chunk',
          model: 'small',
        });
        answer.text += chunk.choices[0]!.delta.content ?? '';
        answer.finish ??= chunk.choices[0]!.finish_reason ?? undefined;
      }
    } catch (error) {
      answer.error = error;
    }
    await line;
    return answer;
  };

  it('is read by the client of that API, the line and the signs of life unseen (T-33, T-34)', async () => {
    expect(await ask('whole')).toEqual({ text: WHOLE, error: undefined, finish: 'stop' });
  });

  it('never looks finished when it failed (T-35)', async () => {
    const failed = await ask('failed');
    expect(failed).toMatchObject({
      text: WHOLE,
      finish: undefined,
      error: { code: 'ERR_STREAM_FAILED' },
    });
    expect(failed.error).toBeInstanceOf(APIError);
    expect(String(failed.error)).not.toContain('secret');
    expect((await ask('cut')).error).toBeInstanceOf(Error);
  });

  it('is read by the AI SDK’s client of that API', async () => {
    for (const course of ['whole', 'failed'] as const) {
      await using served = await answering('openai', course);
      const line = serveLine(served);
      const provider = createOpenAICompatible({ name: 'x', baseURL: served.url, apiKey: 'x' });
      const result = streamText({
        model: provider('m'),
        prompt: 'hi',
        maxRetries: 0,
        onError() {},
      });
      const parts: string[] = [];
      let text = '';
      for await (const part of result.fullStream) {
        parts.push(part.type);
        if (part.type === 'text-delta') text += part.text;
      }
      await line;
      expect(text).toBe(WHOLE);
      expect(parts.includes('error')).toBe(course === 'failed');
      const finish = await Promise.resolve(result.finishReason).catch(() => undefined);
      expect(finish === 'stop').toBe(course === 'whole');
    }
  });

  it('is a status and a message to these clients when it is refused', async () => {
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 0 });
    void queue.run(() => new Promise(() => {}));
    const streamer = new TokenStreamer();
    await using served = await serve((_, response) => {
      const stream = streamer.stream(() => ['a'], { gate: queue });
      void pipeToResponse(stream, response, { format: 'openai' });
    });
    const asking = openai(served.url).chat.completions.create({
      model: 'm',
      messages: [],
      stream: true,
    });
    await expect(asking).rejects.toMatchObject({ status: 503, code: 'ERR_QUEUE_FULL' });
  });
});

describe('the format `ai-ui`', () => {
  const ask = async (
    course: Course,
  ): Promise<{ text: string; places: unknown[]; error: unknown }> => {
    await using served = await answering('ai-ui', course, { id: 'message-7' });
    const line = serveLine(served);
    const answer = { text: '', places: [] as unknown[], error: undefined as unknown };
    try {
      const transport = new DefaultChatTransport({ api: served.url });
      const chunks = await transport.sendMessages({
        trigger: 'submit-message',
        chatId: 'c',
        messageId: undefined,
        messages: [],
        abortSignal: undefined,
      });
      const [toMessage, toLook] = chunks.tee();
      const look = (async () => {
        for await (const chunk of toLook as unknown as AsyncIterable<{
          type: string;
          data?: unknown;
        }>) {
          if (chunk.type === 'data-queue') answer.places.push(chunk.data);
        }
      })().catch(() => {});
      let last: UIMessage | undefined;
      const messages = readUIMessageStream({
        stream: toMessage,
        onError: (error) => (answer.error = error),
        terminateOnError: true,
      });
      for await (const message of messages as unknown as AsyncIterable<UIMessage>) last = message;
      await look;
      expect(last!.id).toBe('message-7');
      // What is transient is not kept.
      expect(last!.parts.map(({ type }) => type)).toEqual(['text']);
      answer.text = last!.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
    } catch (error) {
      answer.error ??= error;
    }
    await line;
    return answer;
  };

  it('is read by the transport of useChat, with the places in line', async () => {
    const answer = await ask('whole');
    expect(answer).toMatchObject({ text: WHOLE, error: undefined });
    expect(answer.places[0]).toMatchObject({ position: 2 });
  });

  it('never looks finished when it failed', async () => {
    expect((await ask('failed')).error).toMatchObject({ message: 'The stream failed.' });
    expect((await ask('cut')).error).toBeInstanceOf(Error);
  });
});

describe('the format `events`', () => {
  const NAMES = ['position', 'start', 'token', 'done', 'error'];

  it('is read by an EventSource, which can tell the error from one of the connection (T-32)', async () => {
    for (const course of ['whole', 'failed'] as const) {
      await using served = await answering('events', course);
      const line = serveLine(served);
      const source = new EventSource(served.url);
      let text = '';
      const seen: string[] = [];
      await new Promise<void>((resolve) => {
        for (const name of NAMES) {
          source.addEventListener(name, (event: MessageEvent) => {
            seen.push('data' in event ? name : 'connection');
            if (name === 'token')
              text += (JSON.parse(String(event.data)) as { value: string }).value;
            if (name === 'done' || name === 'error') resolve();
          });
        }
      });
      source.close();
      await line;
      expect(text).toBe(WHOLE);
      expect(seen.at(-1)).toBe(course === 'whole' ? 'done' : 'error');
      expect(seen[0]).toBe('position');
    }
  });
});

describe('the format `text`', () => {
  it('is the tokens, whole at every cut, and a broken connection when it failed', async () => {
    await using whole = await answering('text', 'whole');
    const line = serveLine(whole);
    const response = await undiciFetch(whole.url);
    expect(response.headers.get('content-type')).toBe('text/plain; charset=utf-8');
    expect(await response.text()).toBe(WHOLE);
    await line;

    for (const get of [fetch, undiciFetch]) {
      await using failed = await answering('text', 'failed');
      const secondLine = serveLine(failed);
      const broken = await get(failed.url);
      await expect(broken.text()).rejects.toThrow(/terminated/u);
      await secondLine;
    }
  });
});

describe('the format `ndjson`', () => {
  it('is one event a line', async () => {
    await using served = await answering('ndjson', 'whole');
    const line = serveLine(served);
    const response = await fetch(served.url);
    expect(response.headers.get('content-type')).toBe('application/x-ndjson');
    const lines = (await response.text()).trimEnd().split('\n');
    const records = lines.map((each) => JSON.parse(each) as { type: string; value?: string });
    const told = records.filter(({ type }) => type !== 'heartbeat');
    expect(told.map(({ value }) => value ?? '').join('')).toBe(WHOLE);
    expect(told[0]).toMatchObject({ type: 'position', position: 2 });
    expect(told.at(-1)).toMatchObject({ type: 'done', tokens: TEXT.length });
    await line;
  });
});
