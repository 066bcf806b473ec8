import { EventEmitter, once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { AdmissionQueue } from 'sluice';
import { expect, vi } from 'vitest';

import type { Page } from '../../../support/doc-examples.ts';

const finish = Promise.withResolvers<void>();
export const callModel = {
  async *stream({ signal }: { signal: AbortSignal }): AsyncGenerator<string> {
    yield 'Because';
    await Promise.race([finish.promise, once(signal, 'abort')]);
    yield ' of physics.';
  },
};
export const process = new EventEmitter();

export const page = {
  async check(declared) {
    const { server, queue, shutDown } = declared as {
      server: Server;
      queue: AdmissionQueue;
      shutDown: () => Promise<void>;
    };
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const flowing = await fetch(url);
    expect(queue.active).toBe(1);
    // One that keeps its connection open, and comes again on it.
    expect(process.listeners('SIGTERM')).toEqual([shutDown]);
    const ended = shutDown();
    await expect(queue.run(() => {})).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    finish.resolve();
    expect(await flowing.text()).toContain('" of physics."');
    await ended;
    expect(server.listening).toBe(false);
    await vi.waitFor(() => expect(queue.stats()).toMatchObject({ completed: 1, closed: true }));
  },
} satisfies Page;
