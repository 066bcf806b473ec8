import type { IncomingMessage, ServerResponse } from 'node:http';

import { EventSource } from 'eventsource';
import { describe, expect, it } from 'vitest';

import { encodeEvents, pipeToResponse, toResponse } from '../../src/http/index.ts';
import { ManualClock } from '../../src/testing.ts';
import { type Replay, TokenStreamer } from '../../src/token-streamer.ts';
import { launchBrowser } from '../support/browser.ts';
import { serve, type Served, until } from '../support/serve.ts';

const COUNT = 12;

interface Resumable extends Served {
  /** `Last-Event-ID` of each request, and the status that it got. */
  readonly requests: { readonly id: string | undefined; readonly status: number }[];
}

/** A server of one answer whose connection breaks after every fourth token. */
async function resumable(page = ''): Promise<Resumable> {
  const requests: { id: string | undefined; status: number }[] = [];
  const source = async function* (): AsyncGenerator<string> {
    for (let i = 0; i < COUNT; i++) {
      await new Promise((resolve) => {
        setTimeout(resolve, 15);
      });
      yield `token ${i}`;
    }
  };
  let replay: Replay<string> | undefined;
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (request.url === '/') {
      response.setHeader('content-type', 'text/html').end(page);
      return;
    }
    if (request.url === '/favicon.ico') {
      response.writeHead(404).end();
      return;
    }
    const id = request.headers['last-event-id'] as string | undefined;
    replay ??= new TokenStreamer().stream(source).replay();
    const write = response.write.bind(response) as (chunk: string) => boolean;
    let seen = 0;
    // The client is asked to come again soon, and the connection does break.
    response.write = ((chunk: string) => {
      const taken = write(seen === 0 ? `retry: 20\n\n${chunk}` : chunk);
      seen += chunk.split('event: token').length - 1;
      if (seen >= 4) setTimeout(() => response.destroy(), 1);
      return taken;
    }) as never;
    await pipeToResponse(replay.from(id), response);
    requests.push({ id, status: response.statusCode });
  };
  const served = await serve((request, response) => void handle(request, response));
  return { ...served, requests };
}

/** The first without an id, the last with that of the end. */
function expectResumed(requests: Resumable['requests']): void {
  expect(requests.length).toBeGreaterThan(2);
  expect(requests[0]!.id).toBe(undefined);
  expect(requests.at(-1)).toEqual({ id: 'end', status: 204 });
}

describe('a client that comes again with Last-Event-ID', () => {
  it('gets every token once and then 204, with the EventSource of npm (T-31)', async () => {
    await using served = await resumable();
    const indices: number[] = [];
    const source = new EventSource(`${served.url}/events`);
    await new Promise<void>((resolve) => {
      source.addEventListener('token', ({ data }) => {
        indices.push((JSON.parse(String(data)) as { index: number }).index);
      });
      // It never closes by itself: only the 204 makes it stop.
      source.addEventListener('error', () => {
        if (source.readyState === EventSource.CLOSED) resolve();
      });
    });
    await until(() => served.requests.at(-1)?.status === 204);
    // Everything once and in order, whatever was lost with the connections.
    expect(indices).toEqual(Array.from({ length: COUNT }, (_, i) => i));
    expectResumed(served.requests);
  });

  it('gets every token once and then 204, with the EventSource of Chromium (T-31)', async () => {
    await using served = await resumable('<!doctype html><title>x</title>');
    const browser = await launchBrowser();
    try {
      const page = await browser.newPage();
      await page.goto(served.url);
      const indices = await page.evaluate(
        () =>
          new Promise<number[]>((resolve) => {
            const seen: number[] = [];
            const source = new globalThis.EventSource('/events');
            source.addEventListener('token', ({ data }) => {
              seen.push((JSON.parse(String(data)) as { index: number }).index);
            });
            source.addEventListener('error', () => {
              if (source.readyState === 2) resolve(seen);
            });
          }),
      );
      await until(() => served.requests.at(-1)?.status === 204);
      // Everything once and in order, whatever was lost with the connections.
      expect(indices).toEqual(Array.from({ length: COUNT }, (_, i) => i));
      expectResumed(served.requests);
    } finally {
      await browser.close();
    }
  });

  it('gets 410 for what is no longer kept', async () => {
    const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a', 'b', 'c']);
    const replay = stream.replay({ maxTokens: 1 });
    await (await toResponse(replay.from())).text();
    const response = await toResponse(replay.from('0'));
    expect(response.status).toBe(410);
    expect(await response.json()).toMatchObject({ error: { code: 'ERR_REPLAY_EXPIRED' } });
  });
});

describe('ids', () => {
  const all = async (chunks: AsyncIterable<string>): Promise<string> => {
    let text = '';
    for await (const chunk of chunks) text += chunk;
    return text;
  };

  it('are sent only where the client may come again, 0 and the last one included (T-07)', async () => {
    const streamer = new TokenStreamer({ clock: new ManualClock() });
    expect(await all(encodeEvents(streamer.stream(['a'])))).not.toContain('id:');
    const replay = streamer.stream(['a', 'b']).replay();
    expect((await all(encodeEvents(replay.from()))).match(/^(?:id|event): \w+$/gmu)).toEqual([
      'event: start',
      'id: 0',
      'event: token',
      'id: 1',
      'event: token',
      'id: end',
      'event: done',
    ]);
    expect(await all(encodeEvents(replay.from('end')))).toBe('');
    expect((await toResponse(replay.from('end'))).status).toBe(204);
  });

  it('mark the error that ends a stream, too', async () => {
    const failing = function* (): Generator<string> {
      yield 'a';
      throw new Error('broken');
    };
    const stream = new TokenStreamer({ clock: new ManualClock() }).stream(failing());
    const replay = stream.replay();
    const text = await all(encodeEvents(replay.from()));
    expect(text).toMatch(/id: end\nevent: error\ndata: \{[^\n]*\}\n\n$/u);
  });
});
