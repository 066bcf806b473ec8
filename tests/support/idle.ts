/**
 * Uses one of everything, with every option that takes a timer and all of them set to an hour, and holds
 * on to it. Prints what it holds, for tests/gates.heap.test.ts; it should end by itself then.
 */
import {
  AdmissionQueue,
  compose,
  Keyed,
  RateLimiter,
  Semaphore,
  SessionManager,
  SharedResource,
  TokenStreamer,
} from '../../src/index.ts';
import { encodeEvents } from '../../src/http/index.ts';

const HOUR = 3_600_000;
const nothing = (): void => {};
const { signal } = new AbortController();

const semaphore = new Semaphore({ capacity: 1, maxHoldMs: HOUR });
const queue = new AdmissionQueue({ concurrency: 1, waitTimeoutMs: HOUR, runTimeoutMs: HOUR });
const limiter = new RateLimiter({ limit: 1, intervalMs: 20, burst: 1 });
const keyed = new Keyed(() => new Semaphore(1), { maxKeys: 10, idleMs: HOUR });
const sessions = new SessionManager({ timeoutMs: HOUR });
const resource = new SharedResource({
  load: () => ({}),
  loadTimeoutMs: HOUR,
  accessTimeoutMs: HOUR,
  dispose: nothing,
});
const streamer = new TokenStreamer({
  heartbeatMs: HOUR,
  firstTokenTimeoutMs: HOUR,
  idleTimeoutMs: HOUR,
  timeoutMs: HOUR,
  stallMs: HOUR,
  teardownGraceMs: HOUR,
});

const limits = { signal, waitTimeoutMs: HOUR, runTimeoutMs: HOUR, graceMs: HOUR };
const everything = compose(sessions, queue, limiter, semaphore);
// The second of each waits.
await Promise.all([everything.run(nothing, limits), everything.run(nothing, limits)]);
await Promise.all([keyed.get('a').run(nothing, limits), keyed.get('a').run(nothing, limits)]);
await Promise.all([
  resource.run(nothing, { signal }),
  resource.acquire().then((it) => it.release()),
]);
await resource.reload();
const stream = streamer.stream(['a', 'b'], { gate: everything, signal });
const events = await Array.fromAsync(encodeEvents(stream));
await stream.finished;
const replay = streamer.stream(['a', 'b']).replay({ graceMs: HOUR });
await Array.fromAsync(replay.from());
const again = await Array.fromAsync(replay.from().tokens());
// A permit that nobody gives back is no reason to stay, nor is a pause in which nobody waits.
const permit = await semaphore.acquire({ signal });
limiter.on('resumed', nothing);
limiter.pause(HOUR);

/** What keeps the process alive, but for the pipe that it writes to. */
function resources(): string[] {
  return process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap');
}

// Until the last short timer has fired.
while (resources().length > 0) await new Promise((resolve) => void setImmediate(resolve));
const held = { permit: permit.weight, keys: keyed.size, text: events.join(''), again };
process.stdout.write(JSON.stringify(held));
