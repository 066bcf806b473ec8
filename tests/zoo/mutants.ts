/** A primitive, broken in one place on purpose. */
export interface Mutant {
  readonly name: string;
  /** Within src. */
  readonly file: string;
  /** Is there exactly once. */
  readonly find: string;
  readonly replace: string;
  /** A published bug of this shape, or where it is told of. */
  readonly like: string;
  /** The promise that does not hold then. */
  readonly breaks: string;
}

const SEMAPHORES: readonly Mutant[] = [
  {
    name: 'the head leaves and nobody looks at the next',
    file: 'semaphore.ts',
    find: `      else if (this.#line.has(subject)) this.#cancel(subject, reason);
    }
    this.#pump();`,
    replace: `      else if (this.#line.has(subject)) this.#cancel(subject, reason);
    }`,
    like: 'golang/go#37852, embassy-rs/embassy#6964',
    breaks: 'S3',
  },
  {
    name: 'the head runs out of time and nobody looks at the next',
    file: 'semaphore.ts',
    find: `if (heard(this, 'timedOut')) post(this, 'timedOut', this.#aboutWait(subject));
        this.#unwatch(subject);
      }
    }
    this.#pump();`,
    replace: `if (heard(this, 'timedOut')) post(this, 'timedOut', this.#aboutWait(subject));
        this.#unwatch(subject);
      }
    }`,
    like: 'jsr-core/asyncutil, piscinajs/piscina#805',
    breaks: 'S3',
  },
  {
    name: 'who ran out of time stays in line and is handed a permit',
    file: 'semaphore.ts',
    find: `        this.#line.remove(subject);
        this.#timedOut++;`,
    replace: `        this.#timedOut++;`,
    like: 'failsafe-lib/failsafe#393, async-mutex withTimeout',
    breaks: 'S4',
  },
  {
    name: 'a permit comes back as often as it is released',
    file: 'semaphore.ts',
    find: `    this.#giveBack = undefined;
    giveBack(this);`,
    replace: `    giveBack(this);`,
    like: 'async-sema, async-mutex#27',
    breaks: 'S2',
  },
  {
    name: 'acquire passes those who wait',
    file: 'semaphore.ts',
    find: `if (this.#line.length === 0 && weight <= this.#capacity - this.#active) {`,
    replace: `if (weight <= this.#capacity - this.#active) {`,
    like: 'CPython gh-90155',
    breaks: 'S3',
  },
  {
    name: 'tryAcquire passes those who wait',
    file: 'semaphore.ts',
    find: `if (this.#closed || this.#line.length > 0 || weight`,
    replace: `if (this.#closed || weight`,
    like: 'agronholm/anyio#1170, java.util.concurrent.Semaphore',
    breaks: 'S3',
  },
  {
    name: 'one wake-up a release',
    file: 'semaphore.ts',
    find: `        head.settle!(head);
        this.#unwatch(head);
      }`,
    replace: `        head.settle!(head);
        this.#unwatch(head);
        break;
      }`,
    like: 'embassy-rs/embassy#2766',
    breaks: 'S3',
  },
  {
    name: 'a larger capacity lets nobody in',
    file: 'semaphore.ts',
    find: `new ExceedsCapacityError(weight, capacity));
    }
    this.#pump();`,
    replace: `new ExceedsCapacityError(weight, capacity));
    }`,
    like: 'mcollina/fastq#80',
    breaks: 'S3',
  },
  {
    name: 'who wants more than there will ever be goes on waiting',
    file: 'semaphore.ts',
    find: `if (weight > capacity) this.#cancel(waiter, new ExceedsCapacityError(weight, capacity));`,
    replace: `if (weight > capacity + 99) this.#cancel(waiter, new ExceedsCapacityError(weight, capacity));`,
    like: 'bottleneck reservoir, async-mutex: an impossible weight hangs',
    breaks: 'S4',
  },
  {
    name: 'the last one first',
    file: 'semaphore.ts',
    find: `        let head = this.#line.first;
        head !== undefined && head.call.weight <= this.#capacity - this.#active;
        head = this.#line.first`,
    replace: `      let head = this.#line.last;
      head !== undefined && head.call.weight <= this.#capacity - this.#active;
      head = this.#line.last`,
    like: 'agronholm/anyio: FIFO was LIFO',
    breaks: 'S3',
  },
  {
    name: 'light callers overtake a heavy one',
    file: 'semaphore.ts',
    find: `        let head = this.#line.first;
        head !== undefined && head.call.weight <= this.#capacity - this.#active;
        head = this.#line.first`,
    replace: `      let head = [...this.#line].find(({ call }) => call.weight <= this.available);
      head !== undefined;
      head = [...this.#line].find(({ call }) => call.weight <= this.available)`,
    like: 'async-mutex#77, jhurliman/node-rate-limiter#56',
    breaks: 'S3',
  },
  {
    name: 'who got a permit can still run out of time',
    file: 'semaphore.ts',
    find: `    if (waiter.deadline !== undefined) this.#deadlines.remove(waiter.deadline);
  }`,
    replace: `  }`,
    like: 'opossum semaphore, supercharge/promise-pool#79',
    breaks: 'I8',
  },
  {
    name: 'a listener stays on the signal of who has left',
    file: 'semaphore.ts',
    find: `    if (waiter.call.signal !== undefined) this.#signals.remove(waiter.call.signal, waiter);`,
    replace: ``,
    like: 'sindresorhus/p-queue#235, p-retry#71',
    breaks: 'I7',
  },
  {
    name: 'an aborted caller gets a permit that is free',
    file: 'semaphore.ts',
    find: `    if (signal?.aborted === true) {
      this.#refuse(weight, undefined);
      throw signal.reason;
    }`,
    replace: ``,
    like: 'golang/go#63615',
    breaks: 'S4',
  },
  {
    name: 'one more waits than may',
    file: 'semaphore.ts',
    find: `if (this.#line.length >= this.#maxWaiting) {`,
    replace: `if (this.#line.length > this.#maxWaiting) {`,
    like: 'piscinajs/piscina#1029',
    breaks: 'S4',
  },
  {
    name: 'who is sent away by close is not told',
    file: 'semaphore.ts',
    find: `for (const waiter of this.#line) this.#cancel(waiter, new ClosedError('The semaphore'));`,
    replace: `for (const waiter of this.#line) this.#line.remove(waiter);`,
    like: 'p-limit clearQueue, microsoft/vs-threading#592',
    breaks: 'S4',
  },
  {
    name: 'a permit is lost with who is aborted between grant and start',
    file: 'semaphore.ts',
    find: `    if (aborted !== undefined) {
      permit.release();
      return Promise.reject(aborted.reason);`,
    replace: `    if (aborted !== undefined) {
      return Promise.reject(aborted.reason);`,
    like: 'Effect-TS/effect#6081, natesilva/p-ratelimit#25',
    breaks: 'S2',
  },
  {
    name: 'listeners are called before the permit is handed on',
    file: 'semaphore.ts',
    find: `if (heard(this, 'released')) post(this, 'released', this.#about(permit.id, permit.weight));
    this.#pump();`,
    replace: `if (heard(this, 'released')) post(this, 'released', this.#about(permit.id, permit.weight));
    deliver(this);
    this.#pump();`,
    like: 'tokio-rs/tokio#5475',
    breaks: 'S3',
  },
  {
    name: 'an idle semaphore does not tell who waits for that',
    file: 'semaphore.ts',
    find: `    if (this.#isIdle()) {
      this.#idle.release();`,
    replace: `    if (this.#isIdle()) {`,
    like: 'mcollina/fastq#63, p-queue onIdle',
    breaks: 'I10',
  },
  {
    name: 'a release after the close counts one more',
    file: 'semaphore.ts',
    find: `    this.#active -= permit.weight;
    invariant(this.#active >= 0, 'S2');`,
    replace: `    this.#active = Math.max(0, this.#active - permit.weight - (this.#closed ? 1 : 0));`,
    like: 'a release after close that counts more than it should',
    breaks: 'S2',
  },
];

const RUNS: readonly Mutant[] = [
  {
    name: 'the place of a task that is out of time is free while it runs',
    file: 'internal/runs.ts',
    find: `    run.reject(reason);`,
    replace: `    run.reject(reason);
    this.#release(run.hold);`,
    like: 'p-queue 10 timeout, opossum 10 capacity',
    breaks: 'S1',
  },
  {
    name: 'a task that throws at once keeps its place',
    file: 'internal/execution.ts',
    find: `    over(hold);
    return Promise.reject(error);`,
    replace: `    return Promise.reject(error);`,
    like: 'fastq.promise, supercharge/promise-pool#23',
    breaks: 'S2',
  },
  {
    name: 'what settles twice gives its place back twice',
    file: 'internal/execution.ts',
    find: `    return Promise.prototype.then.call(
      Promise.resolve(task(context)),`,
    replace: `    return Promise.resolve(task(context)).then(`,
    like: 'this library, until the simulation found it: a promise with its own then',
    breaks: 'R1',
  },
  {
    name: 'a task outlives its grace and keeps its place',
    file: 'internal/runs.ts',
    find: `    if (run.interrupted) this.#overrun(run.hold, ranMs);
    else`,
    replace: `    if (!run.interrupted)`,
    like: 'askalf/dario#905: the slot of a stuck handler',
    breaks: 'S2',
  },
  {
    name: 'an aborted task is not told',
    file: 'internal/runs.ts',
    find: `    run.abort(reason);`,
    replace: ``,
    like: 'Shishir435/ollama-client#368',
    breaks: 'S4',
  },
  {
    name: 'the signal of a task that is over is still listened to',
    file: 'internal/runs.ts',
    find: `    if (run.limits.signal !== undefined) this.#signals.remove(run.limits.signal, run);`,
    replace: ``,
    like: 'connor4312/cockatiel#69, nodejs/node#54614',
    breaks: 'I7',
  },
  {
    name: 'of all who share a signal the first is told',
    file: 'internal/abort.ts',
    find: `      this.#aborted(subjects, signal.reason);`,
    replace: `      this.#aborted(new Set([...subjects].slice(0, 1)), signal.reason);`,
    like: 'sindresorhus/p-queue#168',
    breaks: 'S4',
  },
  {
    name: 'one who leaves takes the listener of all along',
    file: 'internal/abort.ts',
    find: `    if (watched.subjects.size === 0) this.#forget(signal, watched);`,
    replace: `    this.#forget(signal, watched);`,
    like: 'sindresorhus/p-queue#241',
    breaks: 'I7',
  },
  {
    name: 'the listener stays when the last one has left',
    file: 'internal/abort.ts',
    find: `    if (watched.subjects.size === 0) this.#forget(signal, watched);`,
    replace: `    if (watched.subjects.size === 0) this.#watched.delete(signal);`,
    like: 'nodejs/node#55351, libp2p/js-libp2p#2482',
    breaks: 'I7',
  },
  {
    name: 'of all that are due at one instant the first is told',
    file: 'internal/deadlines.ts',
    find: `        expire(due, now);`,
    replace: `        expire(due.slice(0, 1), now);`,
    like: 'SGrondin/bottleneck#152: jobs stuck for days',
    breaks: 'S4',
  },
  {
    name: 'a heap that is not put in order again',
    file: 'internal/deadlines.ts',
    find: `      heap[0] = last;
      this.#down(0);`,
    replace: `      heap[0] = last;`,
    like: 'majiayu000/harness#1591',
    breaks: 'S4',
  },
  {
    name: 'the timer stays armed when nobody has a deadline',
    file: 'internal/deadlines.ts',
    find: `      this.#heap = [];
      this.#alarm.set(Infinity);`,
    replace: `      this.#heap = [];`,
    like: 'async-sema RateLimit, supercharge/promise-pool#79',
    breaks: 'I8',
  },
  {
    name: 'a deadline that comes before the others does not move the timer',
    file: 'internal/deadlines.ts',
    find: `    if (this.#heap[0] === node) this.#alarm.set(at);`,
    replace: `    if (this.#heap.length === 1) this.#alarm.set(at);`,
    like: 'an earlier deadline is not looked at before the later one',
    breaks: 'S4',
  },
  {
    name: 'what is due soon is taken as due',
    file: 'internal/deadlines.ts',
    find: `    if (at > now) return due;`,
    replace: `    if (at > now + 1) return due;`,
    like: 'timers of Node and browsers fire up to a ms early',
    breaks: 'S4',
  },
  {
    name: 'time goes back',
    file: 'internal/time.ts',
    find: `    if (now > this.#latest) this.#latest = now;
    return this.#latest;`,
    replace: `    return now;`,
    like: 'golang/go#71360, tikv/pd#10745',
    breaks: 'S4',
  },
  {
    name: 'a listener that throws silences all that follows',
    file: 'internal/emitter.ts',
    find: `          queueMicrotask(() => {
            throw error;
          });`,
    replace: `          throw error;`,
    like: 'nanostores/nanostores#417, p-queue 9.3.3',
    breaks: 'I6',
  },
  {
    name: 'listeners that call back are called in the middle of each other',
    file: 'internal/emitter.ts',
    find: `    if (outbox === undefined || this.#delivering) return;`,
    replace: `    if (outbox === undefined) return;`,
    like: 'facebook/react#18378, microsoft/vscode-js-debug#2402',
    breaks: 'I9',
  },
  {
    name: 'a gate lets go before what is inside it',
    file: 'gate.ts',
    find: `          while (inside.size > 0) await Promise.allSettled(inside);`,
    replace: ``,
    like: 'primerhq/primer#50, gopaljilab/Clinical-Insight-Engine#1424',
    breaks: 'Q1',
  },
];

const QUEUES: readonly Mutant[] = [
  {
    name: 'the place of an aborted task is free while it runs',
    file: 'admission-queue.ts',
    find: `    // Runs the task's abort listeners: everything is in order by now.
    entry.abort(reason);`,
    replace: `    entry.abort(reason);
    this.#vacate(entry);
    this.#pump(now);`,
    like: 'p-queue 10: abort of a running task',
    breaks: 'Q1',
  },
  {
    name: 'a gap between a place that comes free and who is next',
    file: 'admission-queue.ts',
    find: `      this.#pump(now);
      this.#checkIdle();
      if (!answered)`,
    replace: `      queueMicrotask(() => this.#pump(now));
      this.#checkIdle();
      if (!answered)`,
    like: 'connor4312/cockatiel 4: the hand-off gap of the bulkhead',
    breaks: 'Q3',
  },
  {
    name: 'the last one of a priority first',
    file: 'internal/priority-line.ts',
    find: `: this.#bands[31 - Math.clz32(this.#occupied & -this.#occupied)]!.first;`,
    replace: `: this.#bands[31 - Math.clz32(this.#occupied & -this.#occupied)]!.last;`,
    like: 'agronholm/anyio: FIFO was LIFO',
    breaks: 'Q3',
  },
  {
    name: 'the least urgent first',
    file: 'internal/priority-line.ts',
    find: `: this.#bands[31 - Math.clz32(this.#occupied & -this.#occupied)]!.first;`,
    replace: `: this.#bands[31 - Math.clz32(this.#occupied)]!.first;`,
    like: 'async-mutex: a NaN priority turns the order round',
    breaks: 'Q3',
  },
  {
    name: 'a new priority is noted and the place stays',
    file: 'admission-queue.ts',
    find: `      this.#line.remove(entry);
      entry.priority = priority;
      entry.placedAt = now;
      this.#line.push(entry);`,
    replace: `      const was = entry.priority;
      this.#line.remove(entry);
      entry.priority = was;
      this.#line.push(entry);
      void priority;`,
    like: 'p-queue setPriority: the wrong one of two with one id',
    breaks: 'Q3',
  },
  {
    name: 'who changes its priority keeps the time of its old place',
    file: 'admission-queue.ts',
    find: `      entry.placedAt = now;
`,
    replace: ``,
    like: 'vllm-project/vllm#41951: re-queued work in the wrong place',
    breaks: 'Q3',
  },
  {
    name: 'a ticket that is restored goes to the end',
    file: 'admission-queue.ts',
    find: `    if (enqueuedAt === undefined) this.#line.push(entry);
    else this.#line.insert(entry, (other) => other.placedAt > entry.placedAt);`,
    replace: `    void enqueuedAt;
    this.#line.push(entry);`,
    like: 'vllm-project/vllm#41951: re-queued work loses its place',
    breaks: 'Q3',
  },
  {
    name: 'the oldest of the least urgent is shed',
    file: 'internal/priority-line.ts',
    find: `? this.#bands[band]!.last : undefined;`,
    replace: `? this.#bands[band]!.first : undefined;`,
    like: 'drop policies that let the one go who has waited longest',
    breaks: 'Q2',
  },
  {
    name: 'an equally urgent one is shed',
    file: 'internal/priority-line.ts',
    find: `    return band > priority - 1 ?`,
    replace: `    return band >= priority - 1 ?`,
    like: 'drop policies: the newcomer is itself the least urgent',
    breaks: 'Q2',
  },
  {
    name: 'one more waits in line than may',
    file: 'admission-queue.ts',
    find: `    const full = this.#line.length >= this.#maxWaiting;`,
    replace: `    const full = this.#line.length > this.#maxWaiting;`,
    like: 'piscinajs/piscina#1029: queueSize',
    breaks: 'Q2',
  },
  {
    name: 'newcomers start although it is paused',
    file: 'admission-queue.ts',
    find: `    return !this.#paused && this.#running.length < this.#concurrency;`,
    replace: `    return this.#running.length < this.#concurrency;`,
    like: 'mcollina/fastq#82',
    breaks: 'Q3',
  },
  {
    name: 'those who wait start although it is paused',
    file: 'admission-queue.ts',
    find: `    if (!this.#paused && this.#line.length > 0) {`,
    replace: `    if (this.#line.length > 0) {`,
    like: 'mcollina/fastq#82',
    breaks: 'Q6',
  },
  {
    name: 'a lower concurrency is not heeded',
    file: 'admission-queue.ts',
    find: `    this.#concurrency = concurrency;
    if (heard(this, 'resized'))`,
    replace: `    this.#concurrency = Math.max(concurrency, this.#concurrency);
    if (heard(this, 'resized'))`,
    like: 'mcollina/fastq#81, dtzp555-max/ocp#149',
    breaks: 'Q3',
  },
  {
    name: 'two tickets with one id',
    file: 'admission-queue.ts',
    find: `    if (id !== undefined && this.#known.has(id)) throw this.#refuse(call, new DuplicateIdError(id));`,
    replace: ``,
    like: 'p-queue: removing the wrong duplicate',
    breaks: 'Q6',
  },
  {
    name: 'positions count those who have left',
    file: 'internal/priority-line.ts',
    find: `    band.ranks?.remove(node);
`,
    replace: ``,
    like: 'piscinajs/piscina#1029, sindresorhus/p-queue#219',
    breaks: 'Q5',
  },
  {
    name: 'positions are those of before somebody left',
    file: 'internal/priority-line.ts',
    find: `    this.#length--;
    this.#shifted = false;`,
    replace: `    this.#length--;`,
    like: 'a place in line that is kept and not looked up again',
    breaks: 'Q5',
  },
  {
    name: 'gaps count as callers',
    file: 'internal/line.ts',
    find: `    return this.#nodes.length - this.#head === this.#length;`,
    replace: `    return this.#nodes.length >= this.#length;`,
    like: 'piscinajs/piscina#1029, sindresorhus/p-queue#219',
    breaks: 'Q5',
  },
  {
    name: 'positions do not count those who are more urgent',
    file: 'internal/priority-line.ts',
    find: `    for (let index = 0; index < priority; index++) length +=`,
    replace: `    for (let index = 1; index < priority; index++) length +=`,
    like: 'positions by priority class alone',
    breaks: 'Q5',
  },
  {
    name: 'who follows a position is not told of the last change',
    file: 'internal/positions.ts',
    find: `    if (this.#scheduled) return;`,
    replace: `    if (this.#scheduled || this.#watching.size > 1) return;`,
    like: 'coalescing that drops the trailing edge',
    breaks: 'Q5',
  },
  {
    name: 'the time to run counts from the time in line',
    file: 'admission-queue.ts',
    find: `runTimeoutMs < Infinity ? this.#deadlines.add(entry, now + runTimeoutMs) : undefined;`,
    replace: `runTimeoutMs < Infinity
        ? this.#deadlines.add(entry, entry.enqueuedAt + runTimeoutMs)
        : undefined;`,
    like: 'SGrondin/bottleneck#77',
    breaks: 'Q6',
  },
  {
    name: 'the deadline of the wait goes on while it runs',
    file: 'admission-queue.ts',
    find: `    if (entry.deadline !== undefined) this.#deadlines.remove(entry.deadline);
    const { runTimeoutMs } = entry.call;`,
    replace: `    const { runTimeoutMs } = entry.call;`,
    like: 'opossum semaphore: the timer of who was served',
    breaks: 'I8',
  },
  {
    name: 'an abort in line is noticed when the turn comes',
    file: 'admission-queue.ts',
    find: `      if (entry.status === 'waiting') this.#leave(entry, 'cancelled', reason, now);
    }
    this.#checkIdle();`,
    replace: `      if (entry.status === 'waiting' && entries.size > 1) {
        this.#leave(entry, 'cancelled', reason, now);
      }
    }
    this.#checkIdle();`,
    like: 'connor4312/cockatiel#114',
    breaks: 'Q6',
  },
  {
    name: 'a ticket that is over is still known',
    file: 'admission-queue.ts',
    find: `    this.#known.delete(id);
`,
    replace: ``,
    like: 'animir/node-rate-limiter-flexible queue: keys never freed',
    breaks: 'Q5',
  },
  {
    name: 'who is over is not remembered',
    file: 'admission-queue.ts',
    find: `    this.#known.delete(id);
    this.#finished.add(id, undefined);`,
    replace: `    this.#known.delete(id);`,
    like: 'a position of -2 for who has just been served',
    breaks: 'Q5',
  },
  {
    name: 'resume lets nobody in',
    file: 'admission-queue.ts',
    find: `    if (heard(this, 'resumed')) post(this, 'resumed', this.#gauges());
    this.#pump(this.#time.now());`,
    replace: `    if (heard(this, 'resumed')) post(this, 'resumed', this.#gauges());`,
    like: 'mcollina/fastq#82',
    breaks: 'Q3',
  },
  {
    name: 'who is cancelled between grant and start keeps the place',
    file: 'admission-queue.ts',
    find: `      this.#unwatch(entry);
      this.#vacate(entry);
      this.#pump(this.#time.now());
      this.#checkIdle();`,
    replace: `      this.#unwatch(entry);
      this.#checkIdle();`,
    like: 'agronholm/anyio#398, e2b-dev/infra#3629',
    breaks: 'Q1',
  },
];

const LIMITERS: readonly Mutant[] = [
  {
    name: 'an aborted task that did not start has used its tokens',
    file: 'rate-limiter.ts',
    find: `      lease.cancel();
      this.#over();`,
    replace: `      this.#over();`,
    like: 'songzhibin97/gkit#134',
    breaks: 'R4',
  },
  {
    name: 'one limit of several is asked',
    file: 'internal/buckets.ts',
    find: `    if (bucket.tokens < amountOf(demand, index++)) return false;`,
    replace: `    return bucket.tokens >= amountOf(demand, index++);`,
    like: 'rate-limiter-flexible Union is not atomic',
    breaks: 'R1',
  },
  {
    name: 'tryAcquire passes those who wait for tokens',
    file: 'rate-limiter.ts',
    find: `    return lobby === undefined || (lobby.line.length === 0 && lobby.pausedUntil === 0);`,
    replace: `    return lobby === undefined || lobby.pausedUntil === 0;`,
    like: 'jhurliman/node-rate-limiter#50',
    breaks: 'R5',
  },
  {
    name: 'a bucket overflows',
    file: 'internal/token-bucket.ts',
    find: `  if (gained >= burst - bucket.tokens) {`,
    replace: `  if (gained >= 2 * burst - bucket.tokens) {`,
    like: 'bucket4j#51, governor#107: one extra after idle',
    breaks: 'R1',
  },
  {
    name: 'what comes back overflows',
    file: 'internal/token-bucket.ts',
    find: `  if (amount >= burst - bucket.tokens) {`,
    replace: `  if (amount > burst) {`,
    like: 'golang/go#56924: cancel restores the wrong number',
    breaks: 'R1',
  },
  {
    name: 'the part of a token that is under way is lost',
    file: 'internal/token-bucket.ts',
    find: `    bucket.fraction = fraction | 0;`,
    replace: `    bucket.fraction = 0;`,
    like: 'effect 3.22: a rate rounded to whole ms',
    breaks: 'R4',
  },
  {
    name: 'a promise that comes a tick too early',
    file: 'internal/token-bucket.ts',
    find: `return Math.ceil((product - fraction) / gain);`,
    replace: `return Math.floor((product - fraction) / gain);`,
    like: 'golang/go#34861: a rate is truncated',
    breaks: 'R3',
  },
  {
    name: 'the first in line leaves and the next is not looked at',
    file: 'rate-limiter.ts',
    find: `      else if (subject.inLine) this.#cancel(subject, reason, now);
    }
    this.#pump(now);`,
    replace: `      else if (subject.inLine) this.#cancel(subject, reason, now);
    }`,
    like: 'effect 4.1: the next waits as long as the one who left',
    breaks: 'R3',
  },
  {
    name: 'those who wait do not hear of new limits',
    file: 'rate-limiter.ts',
    find: `      if (impossible !== undefined) this.#cancel(waiter, impossible, now);
    }
    this.#pump(now);`,
    replace: `      if (impossible !== undefined) this.#cancel(waiter, impossible, now);
    }`,
    like: 'golang.org/x/time/rate SetLimit, storyblok/monoblok#706',
    breaks: 'R3',
  },
  {
    name: 'a bucket that is made smaller keeps what it had',
    file: 'internal/token-bucket.ts',
    find: `  if (bucket.tokens >= quota.burst) {
    bucket.tokens = quota.burst;
    bucket.fraction = 0;
  }`,
    replace: ``,
    like: 'a burst above the new limit after a change of configuration',
    breaks: 'R1',
  },
  {
    name: 'newcomers do not heed a pause',
    file: 'rate-limiter.ts',
    find: `    if (!this.#anyBefore(priority) && this.#pausedUntil === 0 && fits(this.#first, demand)) {`,
    replace: `    if (!this.#anyBefore(priority) && fits(this.#first, demand)) {`,
    like: 'openai-cookbook: the pause after a 429 never fires',
    breaks: 'I6',
  },
  {
    name: 'a shorter pause ends a longer one',
    file: 'rate-limiter.ts',
    find: `    if (until > now && until > this.#pausedUntil) {`,
    replace: `    if (until > now) {`,
    like: 'two answers with Retry-After, the shorter one last',
    breaks: 'R3',
  },
  {
    name: 'an upstream that has more raises the count unasked',
    file: 'rate-limiter.ts',
    find: `      if (raise && remaining > bucket.tokens)`,
    replace: `      if (remaining > bucket.tokens)`,
    like: 'headers that are older than what is on its way',
    breaks: 'R2',
  },
  {
    name: 'what an upstream has held back stays away',
    file: 'internal/token-bucket.ts',
    find: `    if (hold.until <= now) letGo(bucket);`,
    replace: ``,
    like: 'zeromicro/go-zero#5011: drops go on after recovery',
    breaks: 'R4',
  },
  {
    name: 'what is taken during a hold comes back with its end',
    file: 'internal/token-bucket.ts',
    find: `  if (bucket.hold !== undefined) take(bucket.hold.own, amount);`,
    replace: ``,
    like: 'bucket4j#417: a debt adds tokens',
    breaks: 'R2',
  },
  {
    name: 'a lease can be settled again and again',
    file: 'rate-limiter.ts',
    find: `    if (limiter === undefined) return false;
    this.#limiter = undefined;`,
    replace: `    if (limiter === undefined) return false;`,
    like: 'golang/go#69419, llm-d/llm-d-batch-gateway#206: given back twice',
    breaks: 'R4',
  },
  {
    name: 'what was used above the estimate is not charged',
    file: 'rate-limiter.ts',
    find: `      if (overrun > 0) charge(bucket, overrun);
      else`,
    replace: `      if (overrun <= 0)`,
    like: 'litellm v3: output tokens are not counted',
    breaks: 'R2',
  },
  {
    name: 'a newcomer passes those of its own priority',
    file: 'rate-limiter.ts',
    find: `    return head !== undefined && head.priority <= priority;`,
    replace: `    return head !== undefined && head.priority < priority;`,
    like: 'sindresorhus/p-throttle#65: a reservation is overlooked',
    breaks: 'R5',
  },
  {
    name: 'who is known to come too late waits for its time to run out',
    file: 'rate-limiter.ts',
    find: `      (deadline < Infinity && this.#earliest(demand, priority, now).tick > deadline)`,
    replace: `      deadline < now`,
    like: 'resilience4j AtomicRateLimiter: refused after the whole timeout',
    breaks: 'R7',
  },
  {
    name: 'the demand of who has left is still owed',
    file: 'internal/lobby.ts',
    find: `    this.#owe(waiter, -1);
`,
    replace: ``,
    like: 'effect 4.1: an interrupted waiter is not refunded',
    breaks: 'R4',
  },
  {
    name: 'a limiter in use is forgotten',
    file: 'keyed.ts',
    find: `  return active === 0 && waiting === 0 && full !== false;`,
    replace: `  return full !== false || active + waiting > 0;`,
    like: 'bottleneck Group: a key with jobs in line is dropped',
    breaks: 'R2',
  },
  {
    name: 'a forgotten quota is a new quota',
    file: 'keyed.ts',
    find: `  return active === 0 && waiting === 0 && full !== false;`,
    replace: `  void full;
  return active === 0 && waiting === 0;`,
    like: 'rate-limiter-flexible 11.4: the bucket deleted after 1 ms',
    breaks: 'R2',
  },
];

const SESSIONS: readonly Mutant[] = [
  {
    name: 'clean-ups run the first one first',
    file: 'internal/session.ts',
    find: `    for (let next = this.#cleanups!.pop(); next !== undefined; next = this.#cleanups!.pop()) {`,
    replace: `    for (
      let next = this.#cleanups!.shift();
      next !== undefined;
      next = this.#cleanups!.shift()
    ) {`,
    like: 'shutdown managers that tear down in the order of start',
    breaks: 'M1',
  },
  {
    name: 'a clean-up that fails stops the rest',
    file: 'internal/session.ts',
    find: `          this.host.cleanupFailed(this, failure);
        }`,
    replace: `          this.host.cleanupFailed(this, failure);
          this.#cleanups = undefined;
        }`,
    like: 'shutdown hooks of which one rejects',
    breaks: 'M1',
  },
  {
    name: 'a clean-up is waited for as long as it takes',
    file: 'internal/session.ts',
    find: `      this.#arm(this.host.time.now(), this.host.cleanupTimeoutMs);
`,
    replace: ``,
    like: 'shutdown that hangs on one connection',
    breaks: 'M1',
  },
  {
    name: 'the timer of a session that is over goes on',
    file: 'internal/session.ts',
    find: `    this.#callerSignal = undefined;
    this.#disarm();`,
    replace: `    this.#callerSignal = undefined;`,
    like: 'sindresorhus/p-timeout#42',
    breaks: 'I8',
  },
  {
    name: 'the caller of a session that is over is still listened to',
    file: 'internal/session.ts',
    find: `    if (this.#callerSignal !== undefined) this.host.signals.remove(this.#callerSignal, this);`,
    replace: ``,
    like: 'sindresorhus/p-map#75',
    breaks: 'I7',
  },
  {
    name: 'one session too many',
    file: 'session-manager.ts',
    find: `    if (this.#live.size >= this.#maxActive) {`,
    replace: `    if (this.#live.size > this.#maxActive) {`,
    like: 'reactor/reactor-pool#121: past the maximum',
    breaks: 'M3',
  },
  {
    name: 'the metadata of a session outlive it',
    file: 'internal/metadata.ts',
    find: `    this.#entries.clear();
`,
    replace: ``,
    like: 'nodejs/node#55328: what is over is kept',
    breaks: 'M3',
  },
  {
    name: 'a task does not know its session',
    file: 'internal/session.ts',
    find: `      this.host.enter(this, () => this.perform(task, new Context(this)));`,
    replace: `      this.perform(task, new Context(this));`,
    like: 'AsyncLocalStorage lost: fastq.promise, bottleneck, p-queue 9',
    breaks: 'M2',
  },
  {
    name: "clean-ups run in nobody's session",
    file: 'internal/session.ts',
    find: `inContext(() => this.enter(cleanup));`,
    replace: `cleanup();`,
    like: 'AsyncLocalStorage lost in callbacks',
    breaks: 'M2',
  },
  {
    name: 'a session that timed out is over while its task runs',
    file: 'internal/session.ts',
    find: `    this.#arm(this.host.time.now(), this.host.graceMs);
    // Whoever aborts it may be in the session of somebody else.
    this.enter(() => this.abort(reason));`,
    replace: `    this.enter(() => this.abort(reason));
    this.#cleanUp();`,
    like: 'p-queue 10, opossum 10: over for the caller is not over',
    breaks: 'M1',
  },
];

const STREAMS: readonly Mutant[] = [
  {
    name: 'a source is read as fast as it goes',
    file: 'internal/outlet.ts',
    find: `    return this.#tokens.length < this.settings.highWaterMark;`,
    replace: `    return this.#tokens.length < 1000;`,
    like: 'better-sse, elysiajs/elysia#1801: no back-pressure',
    breaks: 'T2',
  },
  {
    name: 'two tokens too many are read',
    file: 'internal/outlet.ts',
    find: `    return this.#tokens.length < this.settings.highWaterMark;`,
    replace: `    return this.#tokens.length < this.settings.highWaterMark + 2;`,
    like: 'solidjs/solid#3118: runs ahead of its reader',
    breaks: 'T2',
  },
  {
    name: 'a source goes on when its reader has left',
    file: 'internal/source.ts',
    find: `      else await cursor.close(reason);`,
    replace: ``,
    like: 'fastify-sse-v2#112: the ticking source is not stopped',
    breaks: 'T4',
  },
  {
    name: 'a source that has ended is closed once more',
    file: 'internal/source.ts',
    find: `        if (result.done === true) {
          this.#over = true;
          return;
        }`,
    replace: `        if (result.done === true) {
          void cursor.close?.(undefined);
          this.#over = true;
          return;
        }`,
    like: 'honojs/node-server#239: closed twice',
    breaks: 'T4',
  },
  {
    name: 'the source is not told that nobody wants it',
    file: 'internal/feed.ts',
    find: `      this.#forSource.abort(error);`,
    replace: ``,
    like: 'claude-relay#796: the call goes on after the client has left',
    breaks: 'T4',
  },
  {
    name: 'a reader that stands still is waited for',
    file: 'internal/outlet.ts',
    find: `    else this.end({ outcome: 'timeout', error: new StreamTimeoutError('stall', stallMs) });`,
    replace: ``,
    like: 'askalf/dario#910: connected and not reading',
    breaks: 'T4',
  },
  {
    name: 'a stuck source keeps its place',
    file: 'internal/feed.ts',
    find: `      if (at < Infinity) this.#deadline = deadlines.add(this, at);
    }
  }

  #checkGone`,
    replace: `      void deadlines.add;
    }
  }

  #checkGone`,
    like: 'askalf/dario#905: the slot is never given back',
    breaks: 'T4',
  },
  {
    name: 'the end is told again and again',
    file: 'internal/outlet.ts',
    find: `    const ending = this.#last;
    this.#last = undefined;`,
    replace: `    const ending = this.#last;`,
    like: 'mattpocock/course-video-manager#1376: closed twice',
    breaks: 'T3',
  },
  {
    name: 'the tokens that were read ahead are lost at the end',
    file: 'internal/outlet.ts',
    find: `  ended(ending: Ending): void {
    this.#last = ending;`,
    replace: `  ended(ending: Ending): void {
    this.#tokens.length = 0;
    this.#last = ending;`,
    like: 'what is buffered is lost at the end',
    breaks: 'T1',
  },
  {
    name: 'a source that fails looks like one that is complete',
    file: 'internal/feed.ts',
    find: `        (error: unknown) => this.#ended({ outcome: 'failed', error }),`,
    replace: `        (error: unknown) => this.#ended({ outcome: 'completed', error }),`,
    like: 'fastify-sse-v2, hono: an error is a clean end',
    breaks: 'T1',
  },
  {
    name: 'the first token may take for ever',
    file: 'internal/feed.ts',
    find: `    return this.#firstTokenAt === undefined ? firstTokenTimeoutMs : idleTimeoutMs;`,
    replace: `    return this.#firstTokenAt === undefined ? Infinity * firstTokenTimeoutMs : idleTimeoutMs;`,
    like: 'primerhq/primer#50: held and silent',
    breaks: 'T4',
  },
  {
    name: 'tokens are told out of order',
    file: 'internal/fifo.ts',
    find: `      this.#out.reverse();`,
    replace: ``,
    like: 'chunks that overtake each other when they are written at once',
    breaks: 'T1',
  },
  {
    name: 'a source is closed in the context of whoever ended it',
    file: 'internal/feed.ts',
    find: `      const closing = this.#inContext(() => this.#reader.close(error));`,
    replace: `      const closing = this.#reader.close(error);`,
    like: 'AsyncLocalStorage lost when a framework pulls',
    breaks: 'T6',
  },
  {
    name: 'a reader who has gone is not let go of',
    file: 'internal/feed.ts',
    find: `    if (this.#sinks.size > 0) this.pulled();
    else if`,
    replace: `    if (this.#sinks.size > 0) return;
    else if`,
    like: 'WHATWG tee: one branch holds up the others',
    breaks: 'I10',
  },
];

const RESOURCES: readonly Mutant[] = [
  {
    name: 'two loads at once',
    file: 'internal/loader.ts',
    find: `    if (flight === undefined || this.#load !== undefined || this.#leaving.size > 0) return;`,
    replace: `    if (flight === undefined || (flight.started && this.#load !== undefined)) return;`,
    like: 'cache stampedes: p-memoize, two models in one GPU',
    breaks: 'L1',
  },
  {
    name: 'it is disposed of while it is used',
    file: 'internal/loader.ts',
    find: `    this.#leaving.add(instance);
    if (instance.users === 0) void this.#dispose(instance);`,
    replace: `    this.#leaving.add(instance);
    void this.#dispose(instance);`,
    like: 'pools that destroy what is still borrowed',
    breaks: 'L2',
  },
  {
    name: 'those who wait are not told that the load has failed',
    file: 'internal/loader.ts',
    find: `    if (this.#current === undefined) this.#host.failed(flight.failure.reasonOf);`,
    replace: ``,
    like: 'pools whose waiters hang when the factory fails',
    breaks: 'L4',
  },
  {
    name: 'what came too late is never disposed of',
    file: 'internal/loader.ts',
    find: `      if (ok) this.#retire(new Instance(value as T, load.dispose));`,
    replace: `      void ok;`,
    like: 'a connection that arrives after its timeout leaks',
    breaks: 'L2',
  },
  {
    name: 'a place that comes free is given to nobody',
    file: 'shared-resource.ts',
    find: `    this.#pump();
    this.#loader.left(instance);`,
    replace: `    this.#loader.left(instance);`,
    like: 'lost wake-up: golang/go#37852 in a pool',
    breaks: 'L3',
  },
];

export const MUTANTS: readonly Mutant[] = [
  ...SEMAPHORES,
  ...RUNS,
  ...QUEUES,
  ...LIMITERS,
  ...SESSIONS,
  ...STREAMS,
  ...RESOURCES,
];
