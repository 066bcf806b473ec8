import { EventEmitter, once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import type { AdmissionQueue } from 'sluice';
import { expect } from 'vitest';

import type { Page } from '../../../support/doc-examples.ts';

const finish = Promise.withResolvers<void>();
let calls = 0;

export const callModel = {
  /** The first answer comes to its end, the others never do by themselves. */
  async *stream({ signal }: { signal: AbortSignal }): AsyncGenerator<string> {
    const ends = calls++ === 0 ? [finish.promise] : [];
    yield 'Because';
    await Promise.race([...ends, once(signal, 'abort')]);
    signal.throwIfAborted();
    yield ' of physics.';
  },
};
export const process = new EventEmitter() as NodeJS.Process;

export const page = {
  async check(declared) {
    const { server, queue, shutDown } = declared as {
      server: Server;
      queue: AdmissionQueue;
      shutDown: (options: { drainMs: number }) => Promise<void>;
    };
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const whole = await fetch(url);
    const endless = await fetch(url);
    expect(queue.active).toBe(2);
    expect(process.listenerCount('SIGTERM')).toBe(1);

    const ended = shutDown({ drainMs: 50 });
    await expect(queue.run(() => {})).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    finish.resolve();
    expect(await whole.text()).toMatch(/" of physics\."}\n\nevent: done\n/);
    expect(await endless.text()).toMatch(/"Because"}\n\nevent: error\n/);
    await ended;
    expect(server.listening).toBe(false);
    expect(queue.stats()).toMatchObject({ active: 0, waiting: 0, closed: true });
  },
} satisfies Page;
