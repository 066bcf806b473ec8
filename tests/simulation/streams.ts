import type { AnyGate } from './world.ts';
import {
  type StreamEvent,
  type TokenStream,
  TokenStreamer,
  type TokenStreamerOptions,
  type StreamReport,
} from '../../src/token-streamer.ts';
import { Fault, type ClockView, type Sim } from './sim.ts';
import { after } from './tasks.ts';

const NEXT = ['now', 'now', 'hops', 'later', 'held', 'never', 'throw', 'reject'] as const;
const SHAPES = ['async', 'sync', 'function', 'promise', 'generator'] as const;

/** A source of numbered tokens, which keeps an eye on how it is read. */
class Source {
  readonly #sim: Sim;
  readonly #stream: WatchedStream;
  readonly length: number;
  readonly shape: (typeof SHAPES)[number];
  readonly #next: readonly (typeof NEXT)[number][];
  readonly #closes: 'now' | 'throw' | 'never' | 'none';
  readonly #heedsSignal: boolean;
  given = 0;
  asked = false;
  ended = false;
  failed = false;
  /** Whether its end has been seen by everybody. */
  isKnownOver = false;
  closed = 0;
  opened = 0;
  openedAt: number | undefined;
  signal: AbortSignal | undefined;

  constructor(sim: Sim, stream: WatchedStream) {
    const { random } = sim;
    this.#sim = sim;
    this.#stream = stream;
    this.length = random.below(12);
    this.shape = random.pick(SHAPES);
    const pace = random.below(6);
    this.#next = Array.from({ length: this.length + 1 }, () => {
      const kind = random.chance(0.9) ? NEXT[pace]! : random.pick(NEXT);
      // Those that a generator or a plain iterable cannot be.
      return this.shape === 'sync' && kind !== 'throw' ? 'now' : kind;
    });
    this.#closes = random.pick(['now', 'now', 'throw', 'never', 'none']);
    this.#heedsSignal = random.chance(0.5);
  }

  get mustBeClosed(): boolean {
    return this.openedAt !== undefined && this.shape !== 'generator' && this.#closes !== 'none';
  }

  /** What `stream()` gets. */
  get value(): never {
    const open = (context: { readonly signal: AbortSignal }): unknown => {
      this.#checkContext();
      this.opened++;
      this.openedAt = this.#sim.now;
      this.signal = context.signal;
      if (this.#stream.isOver) this.#stream.fail('T4', 'a source is opened after the end');
      return this.shape === 'generator' ? this.#generate() : this.#iterable();
    };
    const value =
      this.shape === 'function' || this.shape === 'generator'
        ? open
        : this.shape === 'promise'
          ? Promise.resolve(this.#iterable())
          : this.#iterable();
    return value as never;
  }

  async *#generate(): AsyncGenerator<number> {
    try {
      while (this.given < this.length) {
        await after(this.#sim.random.below(3), () => {});
        yield this.given++;
      }
      this.ended = true;
    } finally {
      if (!this.ended) this.closed++;
    }
  }

  #iterable(): unknown {
    const close =
      this.#closes === 'none'
        ? {}
        : {
            return: (): unknown => {
              this.#checkContext();
              this.closed++;
              if (this.closed > 1) this.#stream.fail('T4', 'return() is called twice');
              if (this.isKnownOver) this.#stream.fail('T4', 'return() after the end');
              if (this.#closes === 'throw') throw new Fault('of return()');
              if (this.shape === 'sync') return { done: true, value: undefined };
              return this.#closes === 'never'
                ? new Promise(() => {})
                : Promise.resolve({ done: true, value: undefined });
            },
          };
    const iterator = { next: () => this.#step(), ...close };
    const symbol = this.shape === 'sync' ? Symbol.iterator : Symbol.asyncIterator;
    return {
      [symbol]: () => {
        this.openedAt ??= this.#sim.now;
        return iterator;
      },
    };
  }

  #step(): unknown {
    this.#checkContext();
    if (this.asked) this.#stream.fail('T1', 'next() is called twice at once');
    if (this.ended || this.failed) this.#stream.fail('T1', 'next() is called after the end');
    if (this.closed > 0) this.#stream.fail('T4', 'next() is called after return()');
    if (this.given - this.#stream.taken > this.#stream.highWaterMark) {
      this.#stream.fail('T2', `${this.given} tokens are read, and ${this.#stream.taken} wanted`);
    }
    const kind = this.#next[this.given]!;
    if (kind === 'throw') {
      this.failed = true;
      throw new Fault('of next()');
    }
    if (kind === 'now')
      return this.shape === 'sync' ? this.#answer() : Promise.resolve(this.#answer());
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.asked = true;
    const settle = (): void => {
      this.asked = false;
      if (kind === 'reject') {
        this.failed = true;
        reject(new Fault('of next()'));
      } else resolve(this.#answer());
    };
    const { random } = this.#sim;
    if (kind === 'hops' || kind === 'reject') void after(random.within(1, 4), settle);
    else if (kind === 'later') this.#sim.clock.setTimeout(settle, random.within(0, 10));
    else if (kind === 'held') {
      const held = {
        finish: (): void => {
          this.#sim.held.delete(held);
          settle();
        },
      };
      this.#sim.held.add(held);
    }
    if (this.#heedsSignal && this.signal !== undefined) {
      this.#sim.onAbort(this.signal, () => {
        this.failed = true;
        this.asked = false;
        reject(this.signal!.reason);
      });
    }
    return promise;
  }

  #answer(): IteratorResult<number> {
    if (this.given >= this.length) {
      this.ended = true;
      return { done: true, value: undefined };
    }
    return { done: false, value: this.given++ };
  }

  /** T6. */
  #checkContext(): void {
    if (this.#sim.context.getStore() !== this.#stream.context) {
      this.#stream.fail('T6', 'the source is in the context of another');
    }
  }
}

/** One reader of a stream, and all that it has been told. */
export class Reader {
  readonly #sim: Sim;
  readonly #stream: WatchedStream;
  readonly #of: TokenStream<number>;
  readonly #events: AsyncIterator<unknown>;
  readonly #onlyTokens: boolean;
  asking = 0;
  tokens = 0;
  isLeft = false;
  last: string | undefined;
  #started = false;
  #position = Infinity;
  /** How many events it was told, and how many it had been when it read for the last time. */
  #reads = 0;
  #unread: { readonly reads: number; readonly since: number } | undefined;
  report: StreamReport | undefined;

  constructor(sim: Sim, stream: WatchedStream, of: TokenStream<number>, onlyTokens: boolean) {
    this.#sim = sim;
    this.#stream = stream;
    this.#of = of;
    this.#onlyTokens = onlyTokens;
    this.#events = (onlyTokens ? of.tokens() : of)[Symbol.asyncIterator]();
    of.finished.then(
      (report) => {
        this.report = report;
      },
      () => stream.fail('T5', 'finished rejects'),
    );
  }

  get isOver(): boolean {
    return this.last !== undefined || this.isLeft;
  }

  ask(): void {
    this.asking++;
    void this.#events.next().then(
      ({ done: isOver, value }) => {
        this.asking--;
        this.#reads++;
        if (this.#onlyTokens) this.#value(isOver, value);
        else if (isOver === true) {
          if (this.last === undefined && !this.isLeft)
            this.#fail('T3', 'ends without a last event');
        } else this.#told(value as StreamEvent<number>);
      },
      (error: unknown) => {
        this.asking--;
        this.#sim.inspect(error);
        if (!this.#onlyTokens) this.#fail('T3', 'events reject');
        this.last = 'error';
      },
    );
  }

  leave(): void {
    if (this.isLeft) return;
    this.isLeft = true;
    this.#sim.log(`${this.#stream.name} is left`);
    void this.#events.return!().then(() => {
      if (this.report === undefined) this.#fail('T4', 'return() resolves before the end');
    });
  }

  cancel(): void {
    const was = this.isOver || this.report !== undefined;
    const did = this.#of.cancel(new Fault('cancelled'));
    if (did && was) this.#fail('T3', 'an end can be cancelled');
  }

  get taken(): number {
    return this.#of.stats().tokens;
  }

  get buffered(): number {
    return this.#of.stats().buffered;
  }

  check(): void {
    const { tokens, buffered } = this.#of.stats();
    if (tokens !== this.tokens) this.#fail('T1', `told ${this.tokens} tokens, it says ${tokens}`);
    if (buffered > this.#stream.highWaterMark) this.#fail('T2', `${buffered} tokens are buffered`);
    if (buffered > 0 && this.asking > 0) this.#fail('T1', 'somebody waits for what is there');
    if (this.asking > 0 && this.isOver) this.#fail('T3', 'somebody waits after the end');
    if (this.report?.outcome === 'completed' && this.last !== 'done' && !this.isLeft) {
      this.#fail('T3', 'is complete and was not told so');
    }
    const { now } = this.#sim;
    if (buffered === 0) this.#unread = undefined;
    else if (this.#reads !== this.#unread?.reads) this.#unread = { reads: this.#reads, since: now };
    const { stallMs = 120_000 } = this.#stream.options;
    if (this.#unread !== undefined && now > this.#unread.since + stallMs) {
      this.#fail('T4', 'holds what nobody reads');
    }
  }

  #value(done: boolean | undefined, value: unknown): void {
    if (done === true) this.last ??= 'done';
    else if (value !== this.tokens++)
      this.#fail('T1', `${String(value)} comes after ${this.tokens - 2}`);
    if (this.last === 'done' && !this.isLeft) this.#checkComplete();
  }

  #told(event: StreamEvent<number>): void {
    if (this.last !== undefined) this.#fail('T3', `${event.type} after ${this.last}`);
    if (event.type === 'position') {
      if (this.#started || this.tokens > 0) this.#fail('T3', 'a position after the start');
      if (event.position === this.#position || event.position < 1) {
        this.#fail('Q5', `a position ${event.position} after ${this.#position}`);
      }
      this.#position = event.position;
    } else if (event.type === 'start') {
      if (this.#started || this.tokens > 0) this.#fail('T3', 'a second start');
      this.#started = true;
    } else if (event.type === 'token') {
      if (!this.#started) this.#fail('T3', 'a token before the start');
      if (event.value !== this.tokens || event.index !== this.tokens) {
        this.#fail('T1', `${event.value} (${event.index}) is token ${this.tokens}`);
      }
      this.tokens++;
    } else {
      this.last = event.type;
      if (event.type === 'done') {
        if (event.tokens !== this.tokens) this.#fail('T1', `${event.tokens} tokens are said`);
        this.#checkComplete();
      }
    }
  }

  #checkComplete(): void {
    const { source } = this.#stream;
    if (!source.ended || this.tokens !== source.length) {
      this.#fail('T1', `done after ${this.tokens} of ${source.length} tokens`);
    }
  }

  #fail(id: string, what: string): void {
    this.#stream.fail(id, what);
  }
}

/** A stream with its source and its readers. */
export class WatchedStream {
  readonly name: string;
  readonly context: object;
  readonly source: Source;
  readonly highWaterMark: number;
  readonly options: TokenStreamerOptions;
  readonly signal: AbortSignal | undefined;
  readers: Reader[] = [];
  readonly #sim: Sim;
  #stream: TokenStream<number>;
  #reported = false;
  /** When it was first seen to have ended. */
  #endedAt: number | undefined;

  constructor(
    sim: Sim,
    name: string,
    streamer: TokenStreamer,
    options: TokenStreamerOptions,
    gate: AnyGate | undefined,
    gateOptions: object,
    signal: AbortSignal | undefined,
  ) {
    this.#sim = sim;
    this.name = name;
    this.options = options;
    this.signal = signal;
    this.highWaterMark = options.highWaterMark ?? 16;
    this.context = {};
    this.source = new Source(sim, this);
    if (signal !== undefined) sim.signals.add(signal);
    this.#stream = sim.context.run(this.context, () =>
      streamer.stream<number>(this.source.value, { ...gateOptions, gate, signal } as object),
    );
    sim.log(`${name} of ${this.source.length} tokens, ${this.source.shape}`);
  }

  get isOver(): boolean {
    return this.#endedAt !== undefined;
  }

  /** How many tokens the reader who is furthest has been handed. */
  get taken(): number {
    return Math.max(0, ...this.readers.map(({ taken }) => taken));
  }

  get isDone(): boolean {
    return (
      this.#reported &&
      this.readers.every(({ asking, report }) => asking === 0 && report !== undefined)
    );
  }

  fail(id: string, what: string): void {
    this.#sim.fail(id, `${this.name}: ${what}`);
  }

  /** Begins to be read, by one or by several. */
  open(): void {
    if (this.readers.length > 0) return;
    const { random } = this.#sim;
    const streams = random.chance(0.25) ? this.#stream.tee(random.within(1, 3)) : [this.#stream];
    this.readers = streams.map((one) => new Reader(this.#sim, this, one, random.chance(0.2)));
    void this.#stream.finished.then(() => {
      this.#reported = true;
    });
  }

  /** The world does something with it. */
  act(): void {
    const { random } = this.#sim;
    this.open();
    const reader = random.pick(this.readers);
    const what = random.below(20);
    if (what < 13) {
      for (let count = random.within(1, 3); count > 0; count--) reader.ask();
    } else if (what < 16) {
      for (let count = 12; count > 0; count--) reader.ask();
    } else if (what === 16) reader.leave();
    else if (what === 17) reader.cancel();
  }

  /** Somebody takes an end to it. */
  finish(): void {
    this.open();
    for (const reader of this.readers) {
      if (this.#sim.random.chance(0.5)) reader.leave();
      else for (let count = 4; count > 0; count--) reader.ask();
    }
  }

  checkAtRest(): void {
    const { source, options } = this;
    const { now } = this.#sim;
    const {
      teardownGraceMs = 1000,
      firstTokenTimeoutMs = Infinity,
      timeoutMs = Infinity,
    } = options;
    for (const reader of this.readers) reader.check();
    const ended =
      this.readers.length > 0 &&
      this.readers.every((reader) => reader.isOver || reader.report !== undefined);
    if (ended) this.#endedAt ??= now;
    if (this.#endedAt !== undefined) {
      if (now >= this.#endedAt + teardownGraceMs && !this.#reported) {
        this.fail('T4', 'has ended and is not finished');
      }
      if (source.signal !== undefined && !source.ended && !source.signal.aborted) {
        this.fail('T4', 'has ended and the source was not told');
      }
    }
    const isOpen = this.readers.length > 0 && this.#endedAt === undefined;
    if (isOpen && source.openedAt !== undefined && !this.#sourceIsOver()) {
      // That it has ended is seen when it has let go.
      const since = now - teardownGraceMs - source.openedAt;
      if (source.given === 0 && since > firstTokenTimeoutMs) {
        this.fail('T4', 'has no token and goes on');
      }
      if (since > timeoutMs) this.fail('T4', 'goes on after its time');
    }
    if (isOpen) this.#checkAsked();
    source.isKnownOver = source.ended || source.failed;
    if (this.#reported) this.#checkSource();
    if (this.signal?.aborted === true && this.#endedAt === undefined && this.readers.length > 0) {
      if (!this.readers.every((reader) => reader.asking === 0)) {
        this.fail('T4', 'is aborted and its readers not told');
      }
    }
  }

  /** While somebody waits for a token and nobody has too many, the source is asked for one. */
  #checkAsked(): void {
    const { source } = this;
    if (source.openedAt === undefined || source.asked || source.shape === 'generator') return;
    if (this.#sourceIsOver()) return;
    const isWanted = this.readers.some(({ asking }) => asking > 0);
    if (isWanted && this.readers.every(({ buffered }) => buffered < this.highWaterMark)) {
      this.fail('T1', 'is waited for, and the source is not asked');
    }
  }

  #sourceIsOver(): boolean {
    return this.source.ended || this.source.failed || this.source.closed > 0;
  }

  /** All is let go of. */
  #checkSource(): void {
    const { source } = this;
    if (source.ended && source.closed > 0) {
      const isComplete = this.readers.some(({ report }) => report?.outcome === 'completed');
      if (isComplete) this.fail('T4', 'is complete, and return() was called all the same');
    }
    if (source.ended || source.failed) return;
    if (source.signal?.aborted === false) {
      this.fail('T4', 'is finished and the source was not told');
    }
    if (source.mustBeClosed && source.closed !== 1) {
      this.fail('T4', `is finished and return() was called ${source.closed} times`);
    }
  }
}

export class WatchedStreamer extends TokenStreamer {
  readonly clock: ClockView;
  readonly options: TokenStreamerOptions;
  readonly streams = new Set<WatchedStream>();
  #made = 0;

  constructor(clock: ClockView, options: TokenStreamerOptions) {
    super({ ...options, clock });
    this.clock = clock;
    this.options = options;
  }

  make(
    sim: Sim,
    gate: AnyGate | undefined,
    gateOptions: object,
    signal: AbortSignal | undefined,
  ): WatchedStream {
    const name = `stream ${++this.#made}`;
    const stream = new WatchedStream(sim, name, this, this.options, gate, gateOptions, signal);
    this.streams.add(stream);
    return stream;
  }

  /** Those that a stream may listen to. */
  signals(): Set<AbortSignal> {
    const signals = new Set<AbortSignal>();
    for (const { signal } of this.streams) if (signal !== undefined) signals.add(signal);
    return signals;
  }

  checkAtRest(sim: Sim): void {
    for (const stream of this.streams) {
      stream.checkAtRest();
      if (stream.isDone) this.streams.delete(stream);
    }
    if (this.clock.armed > 2) sim.fail('I8', `streams: ${this.clock.armed} timers`);
    this.clock.set = 0;
  }

  checkAtEnd(sim: Sim): void {
    for (const { name } of this.streams) sim.fail('T4', `${name}: is left at the end`);
    const { active } = this.stats();
    if (active !== 0) sim.fail('I10', `streams: ${active} are active at the end`);
    if (this.clock.armed > 0) sim.fail('I8', `streams: ${this.clock.armed} timers at the end`);
  }
}
