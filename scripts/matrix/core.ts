/** Everything of the core, on Node, Bun or Deno. The argument is the URL of the server to read from. */
import { compose, wrap } from 'sluice';
import { AdmissionQueue } from 'sluice/admission-queue';
import { toResponse } from 'sluice/http';
import { readEvents } from 'sluice/read-events';
import { Semaphore } from 'sluice/semaphore';
import { SessionManager } from 'sluice/session-manager';
import { SharedResource } from 'sluice/shared-resource';
import { TokenStreamer } from 'sluice/token-streamer';

import { browserSafe, play, same, sleep } from './browser-safe.ts';

async function sharedResource(): Promise<void> {
  let loads = 0;
  const disposed: string[] = [];
  const resource = new SharedResource({
    maxUsers: 2,
    load: async () => {
      loads++;
      await sleep(2);
      return `model ${loads}`;
    },
    dispose: (model) => void disposed.push(model),
  });
  const uses = Array.from({ length: 10 }, () => resource.run(({ resource: model }) => model));
  same([...new Set(await Promise.all(uses))], ['model 1'], 'one load for all');
  await resource.reload();
  same(await resource.run(({ resource: model }) => model), 'model 2', 'the next one');
  await resource.close();
  same(disposed, ['model 1', 'model 2'], 'what was disposed of');
}

async function composition(): Promise<void> {
  const queue = new AdmissionQueue({ concurrency: 2 });
  const gpu = new Semaphore(1);
  const double = wrap(compose(queue, gpu), async (n: number) => {
    await sleep(1);
    same(gpu.active, 1, 'one at the inner gate');
    return 2 * n;
  });
  same(await Promise.all([1, 2, 3].map((n) => double(n))), [2, 4, 6], 'through two gates');
  same([queue.active, gpu.active], [0, 0], 'given back');
}

async function sessionManager(): Promise<void> {
  const sessions = new SessionManager();
  const queue = new AdmissionQueue({ concurrency: 2 });
  const unobserve = sessions.observe(queue);
  const whoIs = (name: string): Promise<unknown> =>
    sessions.run(
      async ({ session }) => {
        await sleep(1);
        const inLine = await queue.run(async () => {
          await sleep(2);
          return sessions.current()?.metadata.get('name');
        });
        return [inLine, session === sessions.current(), Object.keys(session.phases).at(-1)];
      },
      { metadata: { name } },
    );
  const names = Array.from({ length: 10 }, (_, i) => `user ${i}`);
  const seen = await Promise.all(names.map((name) => whoIs(name)));
  same(
    seen,
    names.map((name) => [name, true, 'released']),
    'the session in each task',
  );
  same(sessions.current(), undefined, 'nobody outside');
  unobserve();
  const slow = sessions.run(() => sleep(50), { timeoutMs: 2 }).catch((error: unknown) => error);
  same(((await slow) as { code?: unknown }).code, 'ERR_SESSION_TIMEOUT', 'a session over its time');
  await sessions.shutdown();
  const { completed, timedOut } = sessions.stats();
  same([completed, timedOut, sessions.active], [10, 1, 0], 'statistics');
}

async function tokenStreamer(): Promise<void> {
  const gate = new Semaphore(1);
  const streamer = new TokenStreamer({ heartbeatMs: 1000 });
  let ended = 0;
  async function* tokens(count: number): AsyncGenerator<string> {
    try {
      for (let i = 0; i < count; i++) {
        yield `${i} `;
        await sleep(1);
      }
    } finally {
      ended++;
    }
  }
  const first = streamer.stream(() => tokens(5), { gate });
  const second = streamer.stream(() => tokens(1000), { gate });
  const answer = await toResponse(first);
  let text = '';
  for await (const event of readEvents(answer)) if (event.type === 'token') text += event.value;
  same(text, '0 1 2 3 4 ', 'what comes over the wire');
  for await (const token of second.tokens()) if (token === '3 ') break;
  same((await second.finished).outcome, 'cancelled', 'a stream that was left');
  same([ended, gate.active, gate.waiting], [2, 0, 0], 'what is left');
}

const all = {
  ...browserSafe(process.argv[2]!),
  SharedResource: sharedResource,
  'compose, wrap': composition,
  SessionManager: sessionManager,
  TokenStreamer: tokenStreamer,
};
console.log(JSON.stringify(await play(all)));
