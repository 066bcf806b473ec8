import { describe, expect, it } from 'vitest';

import { SessionLog } from '../../src/internal/session-log.ts';

/** Of a session that was received at 100. */
function log(calls = true): SessionLog {
  return new SessionLog('id', undefined, undefined, undefined, 100, calls);
}

function end(of: SessionLog, now: number): SessionLog {
  of.callOver(now);
  of.status = 'completed';
  of.end(now);
  return of;
}

describe('SessionLog', () => {
  describe('marked by hand', () => {
    it('goes forward only', () => {
      const session = log();
      expect(session.mark('queued', 110)).toBe(true);
      expect(session.mark('queued', 111)).toBe(false);
      expect(session.mark('callStart', 120)).toBe(true);
      expect(session.mark('allocated', 130)).toBe(false);
      expect(session.mark('callEnd', 140)).toBe(true);
      expect(end(session, 150).phases()).toEqual({
        received: 0,
        queued: 10,
        callStart: 20,
        callEnd: 40,
        released: 50,
        completed: 50,
      });
    });

    it('has its call begin at the latest mark where none was set for it', () => {
      const session = log();
      session.mark('allocated', 120);
      session.mark('callEnd', 130);
      expect(session.phases()).toEqual({ received: 0, allocated: 20, callStart: 20, callEnd: 30 });
    });

    it('keeps the mark of what it has, whatever gates it comes to then', () => {
      const session = log();
      session.mark('allocated', 120);
      session.queued(130);
      session.granted(140, true, true);
      expect(session.phases()).toMatchObject({ allocated: 20 });
      session.granted(150, false, true);
      expect(session.phases()).toMatchObject({ allocated: 20, callStart: 20 });
    });

    it('is in its call from the latest mark on, be it without a task', () => {
      const session = log(false);
      session.mark('allocated', 120);
      expect(session.phases()).toEqual({ received: 0, allocated: 20, callStart: 20 });
    });

    it('shows no call while it says that it is queued', () => {
      const session = log();
      session.mark('queued', 110);
      expect(session.phases()).toEqual({ received: 0, queued: 10 });
      session.mark('dequeued', 115);
      expect(session.phases()).toEqual({ received: 0, queued: 10, dequeued: 15, callStart: 15 });
    });
  });

  describe('without a gate', () => {
    it('is in its call from the start', () => {
      const session = log();
      expect(session.phases()).toEqual({ received: 0, callStart: 0 });
      expect(end(session, 110).phases()).toEqual({
        received: 0,
        callStart: 0,
        callEnd: 10,
        released: 10,
        completed: 10,
      });
    });

    it('has no call where it has no task', () => {
      expect(end(log(false), 110).phases()).toEqual({ received: 0, released: 10, completed: 10 });
    });
  });

  describe('at gates', () => {
    it('goes through all phases', () => {
      const session = log();
      session.queued(110);
      expect(session.phases()).toEqual({ received: 0, queued: 10 });
      session.granted(120, true, true);
      expect(session.phases()).toMatchObject({ dequeued: 20, allocated: 20, callStart: 20 });
      session.released(130);
      expect(end(session, 140).phases()).toEqual({
        received: 0,
        queued: 10,
        dequeued: 20,
        allocated: 20,
        callStart: 20,
        callEnd: 30,
        released: 30,
        completed: 40,
      });
    });

    it('leaves out the line where there was no wait', () => {
      const session = log();
      session.granted(110, false, true);
      expect(session.phases()).toEqual({ received: 0, allocated: 10, callStart: 10 });
    });

    it('begins its call at the last of several grants, and ends it at the first release', () => {
      const session = log();
      session.queued(110);
      session.granted(120, true, true);
      session.queued(120);
      expect(session.phases()).toEqual({ received: 0, queued: 10, dequeued: 20 });
      session.granted(140, true, false);
      session.granted(140, false, true);
      expect(session.phases()).toMatchObject({ dequeued: 20, allocated: 40, callStart: 40 });
      session.released(150);
      expect(session.phases()).not.toHaveProperty('released');
      session.released(160);
      expect(end(session, 170).phases()).toEqual({
        received: 0,
        queued: 10,
        dequeued: 20,
        allocated: 40,
        callStart: 40,
        callEnd: 50,
        released: 60,
        completed: 70,
      });
    });

    it('is neither in its call nor through while it waits at another gate', () => {
      const session = log();
      session.queued(110);
      session.queued(110);
      session.granted(120, true, true);
      expect(session.phases()).toEqual({ received: 0, queued: 10, dequeued: 20, allocated: 20 });
      session.released(130);
      expect(session.phases()).not.toHaveProperty('released');
      session.granted(140, true, true);
      expect(session.phases()).toMatchObject({ allocated: 40, callStart: 40 });
    });

    it('is in line from the first wait, be it behind a gate that let it in at once', () => {
      const session = log();
      session.granted(100, false, true);
      session.queued(110);
      expect(session.phases()).toEqual({ received: 0, queued: 10 });
      session.granted(120, true, true);
      expect(session.phases()).toEqual({
        received: 0,
        queued: 10,
        dequeued: 20,
        allocated: 20,
        callStart: 20,
      });
    });

    it('keeps the times of the first passage when it comes again', () => {
      const session = log();
      session.granted(110, false, true);
      session.released(120);
      session.queued(130);
      session.granted(140, true, true);
      session.released(150);
      expect(session.phases()).toEqual({
        received: 0,
        allocated: 10,
        callStart: 10,
        callEnd: 20,
        released: 20,
      });
    });

    it('has made no call when it was refused or left the line', () => {
      const refused = log();
      refused.refused();
      expect(end(refused, 110).phases()).toEqual({ received: 0, released: 10, completed: 10 });
      const gone = log();
      gone.queued(110);
      gone.granted(115, true, true);
      gone.queued(115);
      gone.left();
      gone.released(118);
      expect(end(gone, 120).phases()).toEqual({
        received: 0,
        queued: 10,
        dequeued: 15,
        released: 18,
        completed: 20,
      });
    });

    it('takes a mark of the call by hand for better than its own guess', () => {
      const session = log();
      session.granted(110, false, true);
      session.mark('callStart', 115);
      session.granted(120, false, true);
      expect(session.phases()).toEqual({ received: 0, allocated: 10, callStart: 15 });
    });

    it('stays as it is after its end', () => {
      const session = log();
      session.granted(110, false, true);
      const before = end(session, 120).phases();
      session.released(130);
      session.queued(130);
      session.granted(140, true, true);
      expect(session.mark('released', 150)).toBe(false);
      expect(session.phases()).toEqual(before);
      expect(session.elapsedMs(1000)).toBe(20);
    });
  });

  it('is active, with no end, until it has one', () => {
    const session = log();
    expect(session.elapsedMs(130)).toBe(30);
    expect(Object.keys(session.phases())).toEqual(['received', 'callStart']);
    expect(session.record(130)).toEqual({
      id: 'id',
      requestId: undefined,
      provider: undefined,
      model: undefined,
      status: 'active',
      receivedAt: 100,
      elapsedMs: 30,
      phases: { received: 0, callStart: 0 },
      error: undefined,
      cleanupFailures: 0,
      metadata: {},
    });
  });

  it('makes a record without control characters, of bounded texts', () => {
    const session = new SessionLog(
      'i\u001b'.repeat(1000),
      'r\n'.repeat(1000),
      'p\u2028',
      'm\ud800',
      0,
      true,
    );
    session.metadata = [
      ['__proto__', 'a\rb'],
      ['k', { 'x\n': ['y\0', 1, null] }],
    ];
    session.error = { name: 'E\n', code: 'C\n' };
    const record = session.record(5);
    expect(record).toMatchObject({
      id: 'i\ufffd'.repeat(128),
      requestId: 'r\ufffd'.repeat(128),
      provider: 'p\ufffd',
      model: 'm\ufffd',
      elapsedMs: 5,
      error: { name: 'E\ufffd', code: 'C\ufffd' },
    });
    expect(Object.entries(record.metadata)).toEqual([
      ['__proto__', 'a\ufffdb'],
      ['k', { 'x\ufffd': ['y\ufffd', 1, null] }],
    ]);
    expect(Object.getPrototypeOf(record.metadata)).toBe(Object.prototype);
  });
});
