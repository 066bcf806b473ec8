import {
  type OpenSession,
  type Session,
  type SessionContext,
  SessionManager,
  type SessionManagerOptions,
  type SessionOptions,
  type ShutdownReport,
} from '../../src/session-manager.ts';
import { Call, type Verdict, Watch } from './calls.ts';
import { Fault, type ClockView, type Sim } from './sim.ts';
import { after } from './tasks.ts';

const PHASES = [
  'received',
  'queued',
  'dequeued',
  'allocated',
  'callStart',
  'callEnd',
  'released',
  'completed',
  'timeout',
  'error',
] as const;

const CLEAN_UPS = ['value', 'throw', 'resolve', 'reject', 'later', 'never'] as const;

interface CleanUp {
  readonly kind: (typeof CLEAN_UPS)[number];
  calledAt: number | undefined;
  over: boolean;
}

class SessionCall extends Call {
  session: Session | undefined;
  readonly cleanUps: CleanUp[] = [];
  /** How many of its ends were heard. */
  ends = 0;
  /** Without a task: the world ends it. */
  isOpen = false;
  timeoutMs = 30_000;

  /** Whether its task has settled, or is not waited for any longer. */
  isStopped(now: number): boolean {
    if (this.isOpen) return this.session?.status !== 'active';
    return this.over || this.graceEndsAt <= now;
  }
}

const IDS = { most: 'M3', active: 'M3', order: 'M1', head: 'M1', once: 'M1' };

class SessionWatch extends Watch<SessionCall> {
  readonly #of: WatchedSessions;
  readonly options: SessionManagerOptions;
  /** All of the epoch that have not ended. */
  readonly present = new Map<string, SessionCall>();
  /** Those that a callback has ended before their maker could see them. */
  readonly early = new Set<string>();
  begunCount = 0;

  constructor(
    sim: Sim,
    name: string,
    clock: ClockView,
    of: WatchedSessions,
    options: SessionManagerOptions,
  ) {
    super(sim, name, clock, IDS);
    this.#of = of;
    this.options = options;
    this.room = options.maxActive ?? Infinity;
  }

  verdict(options: SessionOptions): Verdict {
    if (this.#of.isClosed) return 'ERR_CLOSED';
    if (options.signal?.aborted === true) return 'aborted';
    return this.#of.active >= (this.options.maxActive ?? Infinity) ? 'ERR_SESSIONS_FULL' : 'grant';
  }

  come(options: SessionOptions = {}): SessionCall {
    const call = new SessionCall(
      this.nextId(),
      this.verdict(options),
      1,
      0,
      { signal: options.signal, graceMs: this.options.graceMs },
      this.sim.now,
      this.sim.context.getStore(),
    );
    call.timeoutMs = options.timeoutMs ?? this.options.timeoutMs ?? 30_000;
    this.arrived(call);
    return call;
  }

  /** It has begun, with metadata and clean-ups of its own. */
  opened(call: SessionCall, session: Session): void {
    const { random } = this.sim;
    call.session = session;
    this.present.set(session.id, call);
    if (this.early.delete(session.id)) call.ends++;
    this.begunCount++;
    // A callback may have ended it before its maker could see it.
    if (session.status !== 'active') return;
    if (session.metadata.size > 0) this.fail('M2', `${session.id} begins with metadata`);
    session.metadata.set('owner', session.id);
    session.metadata.set('__proto__', call.id);
    for (let count = random.below(4); count > 0; count--) this.defer(call);
  }

  defer(call: SessionCall): void {
    const { random } = this.sim;
    const cleanUp: CleanUp = { kind: random.pick(CLEAN_UPS), calledAt: undefined, over: false };
    call.cleanUps.push(cleanUp);
    call.session!.defer(() => this.#cleanUp(call, cleanUp));
  }

  override begun(call: SessionCall): void {
    // The places of sessions are those that have begun and not ended.
    if (call.startedAt !== undefined) this.fail('M1', `${call.id} begins twice`);
    call.startedAt = this.sim.now;
  }

  override allows(call: SessionCall, code: string): boolean {
    if (code === 'ERR_SESSION_TIMEOUT') return this.sim.now >= call.arrivedAt + call.timeoutMs;
    return code === 'ERR_CLOSED' && this.#of.isClosed && call.startedAt !== undefined;
  }

  override listens(call: SessionCall): boolean {
    return call.answeredAt === undefined && !call.over && call.session !== undefined;
  }

  override check(): void {
    if (this.#of.active > (this.options.maxActive ?? Infinity)) this.fail('M3', 'too many');
  }

  override checkAtRest(): void {
    for (const call of this.calls) {
      const { session } = call;
      if (call.isOpen && session?.status !== 'active') {
        this.ended(call, session?.status === 'completed', undefined);
        call.answeredAt ??= this.sim.now;
        this.calls.delete(call);
      }
      if (call.startedAt === undefined || call.answeredAt !== undefined || call.over) continue;
      if (this.sim.now >= call.arrivedAt + call.timeoutMs) {
        this.fail('M1', `${call.id} lasts longer than its time`);
      }
      // A gate inside that has answered its caller makes it `failed` while its task runs.
      if (session !== undefined && session.status !== 'active' && session.status !== 'failed')
        this.fail('M1', `${session.id} is over`);
    }
    this.granted.length = 0;
    let active = 0;
    for (const [id, call] of this.present) {
      const { session } = call;
      if (session!.metadata.get('owner') !== id && this.#of.get(id) !== undefined) {
        this.fail('M2', `the metadata of ${id} are not its own`);
      }
      this.#checkPhases(session!);
      if (this.#isOver(call)) {
        this.present.delete(id);
        this.#checkEnd(id, call);
      } else active++;
    }
    if (active !== this.#of.active)
      this.fail('M3', `${active} are there, it says ${this.#of.active}`);
    // Answers come when the clean-ups are through.
    this.#checkAnswers();
    if (this.clock.armed > 1) this.fail('I8', `${this.clock.armed} timers`);
    if (active === 0 && this.clock.armed > 0 && !this.#of.isClosed) {
      this.fail('I8', 'a timer, and nobody is there');
    }
    this.clock.set = 0;
  }

  override checkAtEnd(): void {
    super.checkAtEnd();
    for (const id of this.early) this.fail('M1', `${id} ends and was not there`);
    if (this.present.size > 0) this.fail('I10', `${this.present.size} sessions are left`);
    const { started, completed, failed, cancelled, timedOut } = this.#of.stats();
    if (started !== this.begunCount || started !== completed + failed + cancelled + timedOut) {
      this.fail('M1', `${started} began, ${completed + failed + cancelled + timedOut} ended`);
    }
    const kept = [...this.#of.records()];
    const history = this.options.history ?? 1000;
    if (kept.length !== Math.min(history, started)) this.fail('M3', `${kept.length} records`);
  }

  #checkAnswers(): void {
    for (const call of this.calls) {
      if (call.startedAt === undefined && call.answeredAt === undefined) {
        this.fail('M1', `${call.id} is not answered: ${call.verdict}`);
      }
      if (call.limits.signal?.aborted === true && call.answeredAt === undefined && !call.over) {
        this.fail('M1', `${call.id} is aborted and not answered`);
      }
      const id = call.session?.id;
      if (call.over && call.answeredAt === undefined && id !== undefined && !this.present.has(id)) {
        this.fail('M1', `${call.id} is over and not answered`);
      }
      if (call.answeredAt !== undefined && !call.over && call.taskSignal?.aborted === false) {
        this.fail('M1', `${call.id} was answered and its task not told`);
      }
    }
  }

  /** Its task has settled, or is not waited for, and all clean-ups are through. */
  #isOver(call: SessionCall): boolean {
    const { cleanupTimeoutMs = 5000 } = this.options;
    if (!call.isStopped(this.sim.now)) return false;
    return call.cleanUps.every(
      ({ calledAt, over }) =>
        calledAt !== undefined && (over || calledAt + cleanupTimeoutMs <= this.sim.now),
    );
  }

  #checkEnd(id: string, call: SessionCall): void {
    const { session } = call;
    if (this.#of.get(id) !== undefined) this.fail('M3', `${id} is over and still there`);
    const { status } = session!;
    if (status === 'active') this.fail('M1', `${id} is over and active`);
    if (call.outcome?.ok === true && call.answeredAt === undefined && status !== 'completed') {
      this.fail('M1', `${id} is ${status}, and its task completed`);
    }
    if (this.#of.isHeard && call.ends !== 1) this.fail('M1', `${id} ended ${call.ends} times`);
    if (session!.metadata.size > 0) this.fail('M3', `${id} still has metadata`);
  }

  #checkPhases({ phases, id }: Session): void {
    let latest = 0;
    for (const phase of PHASES) {
      const at = phases[phase];
      if (at === undefined) continue;
      if (at < latest) this.fail('M1', `${id} goes back to ${phase}`);
      latest = at;
    }
  }

  #cleanUp(call: SessionCall, cleanUp: CleanUp): unknown {
    const { sim } = this;
    const { session, cleanUps } = call;
    const { cleanupTimeoutMs = 5000 } = this.options;
    if (cleanUp.calledAt !== undefined) this.fail('M1', 'a clean-up runs twice');
    if (!call.isStopped(sim.now)) this.fail('M1', 'a clean-up runs while the task does');
    if (this.#of.current() !== session) this.fail('M2', 'a clean-up runs in another session');
    // The last one first; one that takes too long is left behind.
    for (const other of cleanUps.slice(cleanUps.indexOf(cleanUp) + 1)) {
      const { calledAt = Infinity } = other;
      if (!other.over && calledAt + cleanupTimeoutMs > sim.now) {
        this.fail('M1', 'clean-ups are not run the last one first, one at a time');
      }
    }
    cleanUp.calledAt = sim.now;
    const over = (): void => {
      cleanUp.over = true;
    };
    switch (cleanUp.kind) {
      case 'value':
        over();
        return undefined;
      case 'throw':
        over();
        throw new Fault('of a clean-up');
      case 'resolve':
        return after(3, over);
      case 'reject':
        return after(2, over).then(() => {
          throw new Fault('of a clean-up');
        });
      case 'later':
        return new Promise<void>((resolve) => {
          sim.clock.setTimeout(
            () => {
              over();
              resolve();
            },
            sim.random.within(0, 20),
          );
        });
      default:
        return new Promise(() => {});
    }
  }
}

export class WatchedSessions extends SessionManager {
  readonly watch: SessionWatch;
  readonly isHeard: boolean;
  isClosed = false;
  report: ShutdownReport | undefined;

  constructor(
    sim: Sim,
    name: string,
    clock: ClockView,
    options: SessionManagerOptions,
    heard: boolean,
  ) {
    super({ ...options, clock });
    this.isHeard = heard;
    this.watch = new SessionWatch(sim, name, clock, this, options);
    if (!heard) return;
    for (const end of ['completed', 'failed', 'cancelled', 'timedOut'] as const) {
      this.on(end, ({ session }) => {
        const call = this.watch.present.get(session.id);
        if (call === undefined) this.watch.early.add(session.id);
        else call.ends++;
        if (session.status !== end) this.watch.fail('M1', `${end}, and it is ${session.status}`);
      });
    }
  }

  override run<T>(
    task: (context: SessionContext) => T | PromiseLike<T>,
    options?: SessionOptions,
  ): Promise<T> {
    const { watch } = this;
    const call = watch.come(options);
    const promise = super.run(
      watch.tap(call, (context: SessionContext) => {
        const { session } = context;
        watch.opened(call, session);
        this.#checkCurrent(session);
        void after(watch.sim.random.below(3), () => {
          if (this.get(session.id) === session) this.#checkCurrent(session);
        });
        return task(context);
      }),
      options,
    );
    watch.follow(call, promise);
    return promise;
  }

  /** A session that the world ends. */
  begin(
    options: SessionOptions,
  ): { readonly call: SessionCall; readonly session: OpenSession } | undefined {
    const { watch } = this;
    const call = watch.come(options);
    try {
      const session = this.open(options);
      call.isOpen = true;
      watch.begun(call);
      watch.opened(call, session);
      return { call, session };
    } catch (error) {
      watch.follow(call, Promise.reject(error));
      return undefined;
    }
  }

  override async shutdown(options?: {
    readonly drainMs?: number | undefined;
    readonly forceMs?: number | undefined;
  }): Promise<ShutdownReport> {
    this.isClosed = true;
    const present = this.active;
    const report = await super.shutdown(options);
    if (this.report === undefined) {
      this.report = report;
      if (report.finished + report.aborted + report.stuck.length !== present) {
        this.watch.fail('M1', `${present} were there, the report tells of others`);
      }
    }
    if (report !== this.report) this.watch.fail('M1', 'two reports');
    return report;
  }

  #checkCurrent(session: Session): void {
    const current = this.current();
    if (current !== session) this.watch.fail('M2', `${current?.id} is current, not ${session.id}`);
  }
}
