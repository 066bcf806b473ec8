import { getEventListeners } from 'node:events';

import { describe, expect, it, vi } from 'vitest';

import { abortOf, AbortWatch } from '../../src/internal/abort.ts';
import { settle } from '../../src/testing.ts';

interface Batch {
  readonly subjects: string[];
  readonly reason: unknown;
}

function setUp(): { watch: AbortWatch<string>; batches: Batch[] } {
  const batches: Batch[] = [];
  const watch = new AbortWatch<string>((subjects, reason) => {
    batches.push({ subjects: [...subjects], reason });
  });
  return { watch, batches };
}

function listeners(signal: AbortSignal): number {
  return getEventListeners(signal, 'abort').length;
}

describe('AbortWatch', () => {
  it('reports all subjects of a signal in one batch, in the order of add, with the reason', () => {
    const { watch, batches } = setUp();
    const controller = new AbortController();
    const reason = { why: 'gone' };
    for (const subject of ['a', 'b', 'c', 'd']) watch.add(controller.signal, subject);
    watch.remove(controller.signal, 'b');
    watch.add(controller.signal, 'b');
    controller.abort(reason);
    expect(batches).toEqual([{ subjects: ['a', 'c', 'd', 'b'], reason }]);
    expect(batches[0]!.reason).toBe(reason);
  });

  it('passes any reason on as it is (H063)', () => {
    for (const reason of ['text', null, 0, Object.freeze(new Error('frozen'))]) {
      const { watch, batches } = setUp();
      const controller = new AbortController();
      watch.add(controller.signal, 'a');
      controller.abort(reason);
      expect(batches[0]!.reason).toBe(reason);
    }
  });

  it('has one listener on a signal, however many share it, and none after the last (H060)', () => {
    const { watch } = setUp();
    const { signal } = new AbortController();
    const subjects = Array.from({ length: 1000 }, (_, i) => `${i}`);
    for (const subject of subjects) watch.add(signal, subject);
    expect(listeners(signal)).toBe(1);
    expect(watch.size).toBe(1);
    for (const subject of subjects.slice(1)) watch.remove(signal, subject);
    expect(listeners(signal)).toBe(1);
    watch.remove(signal, '0');
    expect(listeners(signal)).toBe(0);
    expect(watch.size).toBe(0);
  });

  it('has no listener left after the abort (H058)', () => {
    const { watch, batches } = setUp();
    const controller = new AbortController();
    watch.add(controller.signal, 'a');
    controller.abort();
    expect(listeners(controller.signal)).toBe(0);
    expect(watch.size).toBe(0);
    watch.remove(controller.signal, 'a');
    controller.signal.dispatchEvent(new Event('abort'));
    expect(batches).toHaveLength(1);
  });

  it('keeps signals apart', () => {
    const { watch, batches } = setUp();
    const first = new AbortController();
    const second = new AbortController();
    watch.add(first.signal, 'a');
    watch.add(second.signal, 'b');
    first.abort(1);
    expect(batches).toEqual([{ subjects: ['a'], reason: 1 }]);
    expect(listeners(second.signal)).toBe(1);
    second.abort(2);
    expect(batches).toHaveLength(2);
  });

  it('reports nothing of a signal that is not aborted', async () => {
    const { watch, batches } = setUp();
    watch.add(new AbortController().signal, 'a');
    await Promise.resolve();
    expect(batches).toEqual([]);
    expect(watch.size).toBe(1);
  });

  it('keeps nothing where the signal cannot be looked at', () => {
    const { watch } = setUp();
    const { signal } = new AbortController();
    const failure = new Error('hostile');
    Object.defineProperty(signal, 'aborted', {
      get() {
        throw failure;
      },
    });
    expect(() => watch.add(signal, 'a')).toThrow(failure);
    expect([watch.size, listeners(signal)]).toEqual([0, 0]);
  });

  it('ignores the removal of what it does not watch', () => {
    const { watch, batches } = setUp();
    const controller = new AbortController();
    watch.remove(controller.signal, 'a');
    watch.add(controller.signal, 'a');
    watch.remove(controller.signal, 'b');
    watch.remove(new AbortController().signal, 'a');
    controller.abort(1);
    expect(batches).toEqual([{ subjects: ['a'], reason: 1 }]);
  });

  it('has forgotten the batch before it reports it, and takes new subjects meanwhile', () => {
    const controller = new AbortController();
    const other = new AbortController();
    const seen: string[] = [];
    const watch: AbortWatch<string> = new AbortWatch((subjects) => {
      expect(listeners(controller.signal)).toBe(0);
      for (const subject of subjects) {
        seen.push(subject);
        watch.remove(controller.signal, subject);
        watch.add(other.signal, `${subject} again`);
      }
    });
    watch.add(controller.signal, 'a');
    watch.add(controller.signal, 'b');
    controller.abort();
    expect(seen).toEqual(['a', 'b']);
    expect(listeners(other.signal)).toBe(1);
  });

  it('keeps nothing where addEventListener throws (H057)', () => {
    const { watch, batches } = setUp();
    const controller = new AbortController();
    vi.spyOn(controller.signal, 'addEventListener').mockImplementationOnce(() => {
      throw new Error('no listeners');
    });
    expect(() => watch.add(controller.signal, 'a')).toThrow('no listeners');
    expect(watch.size).toBe(0);
    watch.add(controller.signal, 'b');
    controller.abort(1);
    expect(batches).toEqual([{ subjects: ['b'], reason: 1 }]);
  });

  it('ignores a listener that a signal kept though addEventListener threw', () => {
    const { watch, batches } = setUp();
    const controller = new AbortController();
    const { signal } = controller;
    vi.spyOn(signal, 'addEventListener').mockImplementationOnce((type, listener) => {
      EventTarget.prototype.addEventListener.call(signal, type, listener as EventListener);
      throw new Error('half done');
    });
    expect(() => watch.add(signal, 'a')).toThrow('half done');
    watch.add(signal, 'b');
    controller.abort(1);
    expect(batches).toEqual([{ subjects: ['b'], reason: 1 }]);
  });

  it.each(['before', 'after'])(
    'reports a signal that aborts within addEventListener, %s it has taken the listener (H057)',
    async (when) => {
      const { watch, batches } = setUp();
      const controller = new AbortController();
      const { signal } = controller;
      vi.spyOn(signal, 'addEventListener').mockImplementationOnce((type, listener) => {
        if (when === 'before') controller.abort('now');
        EventTarget.prototype.addEventListener.call(signal, type, listener as EventListener);
        if (when === 'after') controller.abort('now');
      });
      watch.add(signal, 'a');
      watch.add(signal, 'b');
      expect(batches).toEqual([]);
      await settle();
      expect(batches).toEqual([{ subjects: ['a', 'b'], reason: 'now' }]);
      expect(watch.size).toBe(0);
      expect(listeners(signal)).toBe(0);
    },
  );

  it('does not report, after such an abort, who has left meanwhile', async () => {
    const { watch, batches } = setUp();
    const controller = new AbortController();
    const { signal } = controller;
    vi.spyOn(signal, 'addEventListener').mockImplementationOnce(() => controller.abort());
    watch.add(signal, 'a');
    watch.remove(signal, 'a');
    await settle();
    expect(batches).toEqual([]);
  });

  it('reports once where removeEventListener throws and the signal aborts again (H065)', () => {
    const { watch, batches } = setUp();
    const controller = new AbortController();
    const { signal } = controller;
    vi.spyOn(signal, 'removeEventListener').mockImplementation(() => {
      throw new Error('cannot leave');
    });
    watch.add(signal, 'a');
    watch.remove(signal, 'a');
    expect(watch.size).toBe(0);
    watch.add(signal, 'b');
    controller.abort(1);
    signal.dispatchEvent(new Event('abort'));
    expect(batches).toEqual([{ subjects: ['b'], reason: 1 }]);
  });

  it('is not confused by an old listener when the same signal is watched anew', () => {
    const { watch, batches } = setUp();
    const { signal } = new AbortController();
    const spy = vi.spyOn(signal, 'removeEventListener').mockImplementation(() => undefined);
    watch.add(signal, 'old');
    watch.remove(signal, 'old');
    spy.mockRestore();
    watch.add(signal, 'new');
    signal.dispatchEvent(new Event('abort'));
    expect(batches.map((batch) => batch.subjects)).toEqual([['new']]);
  });
});

describe('abortOf()', () => {
  it('is what a signal was aborted with, and nothing of one that was not', () => {
    const controller = new AbortController();
    expect(abortOf(controller.signal)).toBeUndefined();
    controller.abort('why');
    expect(abortOf(controller.signal)).toEqual({ reason: 'why' });
  });

  it('is what the signal throws, where it does', () => {
    const failure = new Error('hostile');
    const signal = Object.defineProperty(new AbortController().signal, 'aborted', {
      get() {
        throw failure;
      },
    });
    expect(abortOf(signal)).toEqual({ reason: failure });
  });
});
