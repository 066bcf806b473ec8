import { EventEmitter, once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { SessionManager } from 'sluice';
import { expect, vi } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

interface Interruptible {
  readonly signal: AbortSignal;
}

let begun = 0;
/** More than what the sockets have room for. */
const ending = 'of physics. '.repeat(3_000_000);
const finish = Promise.withResolvers<void>();

/** Says a word, and another one when told to or when its caller is gone. */
async function* stream({ signal }: Interruptible): AsyncGenerator<string> {
  begun++;
  yield 'Because';
  await new Promise<void>((resolve, reject) => {
    void finish.promise.then(resolve);
    signal.addEventListener('abort', () => reject(signal.reason as Error));
  });
  yield ending;
}

export const callModel = Object.assign(
  async (_question: string, _options: Interruptible) => 'Because.',
  { stream },
);
export const bus = new EventEmitter();
const log = vi.fn<(...parts: unknown[]) => void>();
export const console = { log, error: log };
export const process = Object.assign(new EventEmitter(), {
  env: { PORT: '0' },
}) as unknown as NodeJS.Process;

export const page = {
  /** The server of the last example: one reader stays, one goes, then the platform says stop. */
  async check(declared) {
    const { server, sessions, shutDown } = declared as unknown as {
      server: Server;
      sessions: SessionManager;
      shutDown: () => Promise<void>;
    };
    expect(log).toHaveBeenCalledWith('closed');

    if (!server.listening) await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const stays = await fetch(url, { headers: { 'X-Request-Id': 'stays' } });
    const leaving = new AbortController();
    await fetch(url, { signal: leaving.signal });
    expect([begun, sessions.active]).toEqual([2, 2]);
    leaving.abort();
    await vi.waitFor(() => expect(sessions.active).toBe(1));

    process.emit('SIGTERM');
    await expect(sessions.run(() => {})).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    finish.resolve();
    const text = await stays.text();
    expect(text.replace(ending, 'of physics.')).toBe(
      'event: token\ndata: "Because"\n\nevent: token\ndata: "of physics."\n\nevent: done\ndata: {}\n\n',
    );
    await shutDown();
    expect(server.listening).toBe(false);
    expect(sessions.stats()).toMatchObject({ active: 0, cancelled: 1, closed: true });
  },
} satisfies Page;
