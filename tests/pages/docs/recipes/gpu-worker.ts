import { once } from 'node:events';
import { stripTypeScriptTypes } from 'node:module';
import { Worker } from 'node:worker_threads';

import type { AdmissionQueue, SharedResource, TokenSource, TokenStreamer } from 'sluice';
import { expect } from 'vitest';

import { blocksOf, type Page, readPage } from '../../../support/doc-examples.ts';

/** The first block of the page, which is the worker. */
const [block] = blocksOf(readPage('docs/recipes/gpu-worker.md'));
const code = encodeURIComponent(stripTypeScriptTypes(block!.code));
export const workerFile = new URL(`data:text/javascript,${code}`);

export const page = {
  async check(declared) {
    const { gpu, queue, streamer, generate } = declared as {
      gpu: SharedResource<object>;
      queue: AdmissionQueue;
      streamer: TokenStreamer;
      generate: (worker: Worker, prompt: string) => TokenSource<string, object>;
    };
    expect(gpu.stats()).toMatchObject({ active: 0, loaded: false, closed: true });
    expect(queue.active).toBe(0);

    // The reader whose worker dies.
    const worker = new Worker(workerFile);
    await once(worker, 'message');
    const stream = streamer.stream(generate(worker, 'word '.repeat(10_000)));
    for await (const event of stream) if (event.type === 'token') void worker.terminate();
    expect(await stream.finished).toMatchObject({ outcome: 'failed' });
    expect(worker.listenerCount('message')).toBe(0);
  },
} satisfies Page;
