import { describe, expect, it } from 'vitest';

import type { Gate } from '../../src/gate.ts';
import { pipeToResponse } from '../../src/http/index.ts';
import { ManualClock, settle } from '../../src/testing.ts';
import { type StreamReport, TokenStreamer } from '../../src/token-streamer.ts';
import { until } from '../support/serve.ts';
import { catchUncaught } from '../support/uncaught.ts';
import { Wire } from '../support/wire.ts';

const LAST_CHUNK = '0\r\n\r\n';
/** More than a socket takes at once. */
const BIG = 'x'.repeat(100_000);

const never = (): AsyncIterable<string> => ({
  [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }),
});

/** Gives a token that is more than the socket takes, and never anything else. */
async function* bigAndNoEnd(): AsyncGenerator<string> {
  yield BIG;
  await new Promise(() => {});
}

/** What a promise resolves to, once it has. */
function resultOf<T>(promise: Promise<T>): { value: T | undefined } {
  const result: { value: T | undefined } = { value: undefined };
  void promise.then((value) => (result.value = value));
  return result;
}

describe('pipeToResponse() to a client in memory', () => {
  it('sends the headers together with the first event, and the end with the last one', async () => {
    const wire = await Wire.open();
    const written: unknown[] = [];
    const write = wire.response.write.bind(wire.response) as (chunk: string) => boolean;
    wire.response.write = ((chunk: string) => {
      written.push(chunk);
      return write(chunk);
    }) as never;
    await pipeToResponse(new TokenStreamer().stream(['a']), wire.response);
    expect(wire.writes[0]).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*event: start/u);
    expect(wire.writes.at(-1)).toMatch(/event: done[^]*\r\n0\r\n\r\n$/u);
    expect(written.join('')).not.toContain('event: done');
  });

  it('sends the headers at once where the format has nothing to tell of the start', async () => {
    const wire = await Wire.open();
    const clock = new ManualClock();
    const stream = new TokenStreamer({ clock }).stream(never);
    const report = resultOf(pipeToResponse(stream, wire.response, { format: 'text' }));
    await settle();
    expect(wire.text).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*content-type: text\/plain[^]*\r\n\r\n$/u);
    wire.leave();
    await clock.advance(1000);
    expect(report.value?.outcome).toBe('disconnected');
  });

  it('is 204, and over, for a client that has seen all of it', async () => {
    const replay = new TokenStreamer({ clock: new ManualClock() }).stream(['a']).replay();
    for await (const _ of replay.from(undefined)) {
      // Read to its end.
    }
    const wire = await Wire.open();
    await pipeToResponse(replay.from('end'), wire.response);
    expect(wire.text).toMatch(/^HTTP\/1\.1 204 No Content\r\n/u);
    expect(wire.response.writableFinished).toBe(true);
  });

  describe('resolves', () => {
    it('when the client has taken the last of it, and not before', async () => {
      const wire = await Wire.open();
      wire.hold();
      const report = resultOf(
        pipeToResponse(
          new TokenStreamer({ clock: new ManualClock() }).stream(['a']),
          wire.response,
        ),
      );
      await settle();
      await settle();
      expect(report.value).toBeUndefined();
      wire.take();
      await settle();
      expect(report.value).toMatchObject({ outcome: 'completed', tokens: 1 });
      expect(wire.text.endsWith(LAST_CHUNK)).toBe(true);
    });

    it('when the client leaves before it has taken the last of it, as disconnected', async () => {
      const wire = await Wire.open();
      wire.hold();
      const report = resultOf(
        pipeToResponse(
          new TokenStreamer({ clock: new ManualClock() }).stream(['a']),
          wire.response,
        ),
      );
      await settle();
      wire.leave();
      await settle();
      expect(report.value).toMatchObject({
        outcome: 'disconnected',
        error: { name: 'AbortError', message: 'The client has disconnected.' },
        tokens: 1,
      });
    });

    it('when the source has failed after all that was taken, as failed', async () => {
      const wire = await Wire.open();
      const failing = function* (): Generator<string> {
        yield 'a';
        throw new Error('broken');
      };
      const streamer = new TokenStreamer();
      const report = await pipeToResponse(streamer.stream(failing()), wire.response);
      expect(report).toMatchObject({ outcome: 'failed' });
      expect(wire.text.endsWith(LAST_CHUNK)).toBe(true);
    });

    it('also where no `close` follows', async () => {
      const { response } = await Wire.open();
      const emit = response.emit.bind(response) as (...event: unknown[]) => boolean;
      response.emit = ((...event: unknown[]) => event[0] !== 'close' && emit(...event)) as never;
      const report = await pipeToResponse(new TokenStreamer().stream(['a']), response);
      expect(report.outcome).toBe('completed');
    });

    it.each(['finish', 'close'])('also where `end` emits %o before it returns', async (event) => {
      const wire = await Wire.open();
      const { response } = wire;
      const end = response.end.bind(response) as (chunk: string) => unknown;
      const isFinished = { get: () => event === 'finish' };
      response.end = ((chunk: string) => {
        end(chunk);
        response.emit(event);
        response.removeAllListeners('finish');
        response.emit = () => false;
        Object.defineProperty(response, 'writableFinished', isFinished);
        response.destroyed = event === 'close';
        return response;
      }) as never;
      const streamer = new TokenStreamer({ clock: new ManualClock() });
      const report = await pipeToResponse(streamer.stream(['a']), response);
      expect(report.outcome).toBe(event === 'finish' ? 'completed' : 'disconnected');
    });
  });

  describe('when the client takes nothing', () => {
    it('for `stallMs` after the last of it was sent: cuts it off', async () => {
      const clock = new ManualClock();
      const wire = await Wire.open();
      wire.hold();
      const stream = new TokenStreamer({ clock, stallMs: 5000 }).stream(['a']);
      const report = resultOf(pipeToResponse(stream, wire.response));
      await settle();
      expect(clock.timers).toBe(1);
      await clock.advance(4999);
      expect([wire.isConnected, report.value]).toEqual([true, undefined]);
      await clock.advance(1);
      expect([wire.isConnected, report.value?.outcome]).toEqual([false, 'disconnected']);
      expect(clock.timers).toBe(0);
    });

    it('waits for ever where `stallMs` is Infinity', async () => {
      const clock = new ManualClock();
      const wire = await Wire.open();
      wire.hold();
      const stream = new TokenStreamer({ clock, stallMs: Infinity }).stream(['a']);
      const report = resultOf(pipeToResponse(stream, wire.response));
      await settle();
      expect([clock.timers, report.value]).toEqual([0, undefined]);
      wire.take();
      await settle();
      expect(report.value?.outcome).toBe('completed');
    });

    it('has no timer left when it takes it after all', async () => {
      const clock = new ManualClock();
      const wire = await Wire.open();
      wire.hold();
      const stream = new TokenStreamer({ clock, stallMs: 5000 }).stream(['a']);
      const report = resultOf(pipeToResponse(stream, wire.response));
      await settle();
      expect(clock.timers).toBe(1);
      wire.take();
      await settle();
      expect([clock.timers, report.value?.outcome]).toEqual([0, 'completed']);
    });

    it('goes on when it takes more', async () => {
      const wire = await Wire.open();
      wire.hold();
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream([BIG, BIG, 'end']);
      const report = resultOf(pipeToResponse(stream, wire.response));
      await settle();
      expect(wire.response.writableNeedDrain).toBe(true);
      expect(wire.text).not.toContain('"value":"end"');
      wire.take();
      await until(() => report.value !== undefined);
      expect(report.value?.outcome).toBe('completed');
      expect(wire.text).toContain('"value":"end"');
    });

    it.each(['while a chunk is written', 'while it waits'])(
      'does not wait for a stream that is cancelled %s, and tells it that',
      async (when) => {
        const clock = new ManualClock();
        const wire = await Wire.open();
        wire.hold();
        const stream = new TokenStreamer({ clock }).stream(bigAndNoEnd);
        const flushed = { flush: () => void (wire.response.writableNeedDrain && stream.cancel()) };
        if (when === 'while a chunk is written') Object.assign(wire.response, flushed);
        const report = resultOf(pipeToResponse(stream, wire.response));
        await settle();
        stream.cancel();
        await clock.advance(1000);
        expect(wire.response.writableEnded).toBe(true);
        wire.take();
        await settle();
        expect(report.value?.outcome).toBe('cancelled');
        expect(wire.text).toContain('event: error');
        expect(wire.text.endsWith(LAST_CHUNK)).toBe(true);
      },
    );
  });

  it('tells a client that reads of a limit on time, and ends in order', async () => {
    const clock = new ManualClock();
    const wire = await Wire.open();
    const stream = new TokenStreamer({ clock, firstTokenTimeoutMs: 100 }).stream(never);
    const report = resultOf(pipeToResponse(stream, wire.response));
    await clock.advance(100);
    await clock.advance(1000);
    expect(report.value?.outcome).toBe('timeout');
    expect(wire.text).toContain('"code":"ERR_STREAM_TIMEOUT"');
    expect(wire.text.endsWith(LAST_CHUNK)).toBe(true);
  });

  it('breaks off, and no more, after a failure that the format cannot tell', async () => {
    const wire = await Wire.open();
    const failing = async function* (): AsyncGenerator<string> {
      yield 'a';
      await settle();
      throw new Error('broken');
    };
    const stream = new TokenStreamer().stream(failing());
    const report = await pipeToResponse(stream, wire.response, { format: 'text' });
    expect(report).toMatchObject({ outcome: 'failed', error: { message: 'broken' } });
    expect(wire.text).toMatch(/\r\n1\r\na\r\n$/u);
    expect(wire.isConnected).toBe(false);
  });

  it('sends what came before a failure that the format cannot tell, and no end', async () => {
    const wire = await Wire.open();
    const failing = function* (): Generator<string> {
      yield* ['a', 'b', 'c'];
      throw new Error('broken');
    };
    const stream = new TokenStreamer().stream(failing());
    const report = await pipeToResponse(stream, wire.response, { format: 'text' });
    expect(report.outcome).toBe('failed');
    expect(wire.text).toMatch(/\r\n1\r\na\r\n2\r\nbc\r\n$/u);
    expect(wire.isConnected).toBe(false);
  });

  describe('when the client has left', () => {
    it('writes nothing more, and leaves the response alone', async () => {
      const refusal = Promise.withResolvers<never>();
      const wire = await Wire.open();
      const gate: Gate = { run: () => refusal.promise };
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a'], { gate });
      const piped = pipeToResponse(stream, wire.response);
      wire.response.destroy();
      refusal.reject(new Error('full'));
      expect(await piped).toMatchObject({ outcome: 'failed' });
      expect(wire.response.writableEnded).toBe(false);
      expect(wire.text).toBe('');
    });

    it.each(['while the source is opened', 'while nothing comes'])(
      '%s: asks nothing more of the response, and throws at nobody',
      async (when) => {
        using uncaught = catchUncaught();
        const wire = await Wire.open();
        const { response } = wire;
        const asked: string[] = [];
        const source = (): AsyncIterable<string> => {
          if (when === 'while the source is opened') response.destroy();
          return never();
        };
        const clock = new ManualClock();
        const report = resultOf(
          pipeToResponse(new TokenStreamer({ clock }).stream(source), response),
        );
        if (when === 'while nothing comes') await settle();
        response.write = () => asked.push('write') === 0;
        response.end = () => (asked.push('end'), response);
        wire.leave();
        await settle();
        await clock.advance(1000);
        expect(report.value?.outcome).toBe('disconnected');
        expect(asked).toEqual([]);
        expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
      },
    );
  });

  it('takes a `drain` that it does not wait for, and an error of the connection', async () => {
    const wire = await Wire.open();
    const source = async function* (): AsyncGenerator<string> {
      yield 'a';
      wire.response.emit('drain');
      wire.response.emit('error', new Error('EPIPE'));
      yield 'b';
    };
    const report = await pipeToResponse(new TokenStreamer().stream(source()), wire.response);
    expect(report).toMatchObject({ outcome: 'completed', tokens: 2 });
  });

  it.each<[string, (wire: Wire) => Promise<StreamReport | undefined>]>([
    [
      'an answer',
      (wire) => pipeToResponse(new TokenStreamer().stream(['a', BIG, 'b']), wire.response),
    ],
    [
      'a refusal',
      (wire) => {
        const gate: Gate = { run: () => Promise.reject(new Error('full')) };
        return pipeToResponse(new TokenStreamer().stream(['a'], { gate }), wire.response);
      },
    ],
  ])('leaves no listeners on the response after %s, but one for errors', async (_, answer) => {
    const wire = await Wire.open();
    const { response } = wire;
    const count = (): number[] =>
      ['close', 'drain', 'finish'].map((name) => response.listenerCount(name));
    const before = count();
    await answer(wire);
    expect(count()).toEqual(before);
    expect(response.listenerCount('error')).toBe(1);
  });

  it('names itself where it refuses an option', async () => {
    const { response } = await Wire.open();
    const stream = new TokenStreamer().stream(['a']);
    await expect(pipeToResponse(stream, response, { mode: 'x' } as never)).rejects.toThrow(
      /^Unknown option "mode" of pipeToResponse; it knows .*, `status`, `headers`\.$/u,
    );
  });
});
