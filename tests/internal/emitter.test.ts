import { AsyncLocalStorage } from 'node:async_hooks';

import { describe, expect, it, vi } from 'vitest';

import { deliver, Emitter, heard, post } from '../../src/internal/emitter.ts';
import { settle } from '../../src/testing.ts';
import { catchUncaught } from '../support/uncaught.ts';

interface Events {
  changed: { to: number };
  other: { id: string };
  __proto__: { id: string };
  constructor: { id: string };
}

function emit(emitter: Emitter<Events>, to: number): void {
  post(emitter, 'changed', { to });
  deliver(emitter);
}

describe('Emitter', () => {
  describe('.on()', () => {
    it('calls the listener at each event of that name, until off', () => {
      const emitter = new Emitter<Events>();
      const seen: number[] = [];
      const listener = ({ to }: { to: number }): void => void seen.push(to);
      expect(emitter.on('changed', listener)).toBe(emitter);
      emit(emitter, 1);
      emit(emitter, 2);
      post(emitter, 'other', { id: 'x' });
      deliver(emitter);
      expect(emitter.off('changed', listener)).toBe(emitter);
      emit(emitter, 3);
      expect(seen).toEqual([1, 2]);
    });

    it('calls the listeners in the order in which they came, one as often as it was added', () => {
      const emitter = new Emitter<Events>();
      const seen: string[] = [];
      const a = (): void => void seen.push('a');
      emitter
        .on('changed', a)
        .on('changed', () => seen.push('b'))
        .on('changed', a);
      emit(emitter, 1);
      expect(seen).toEqual(['a', 'b', 'a']);
    });

    it('refuses what is not a function', () => {
      const emitter = new Emitter<Events>();
      for (const bad of [undefined, null, 'f', {}]) {
        const refusal = new TypeError('Expected `listener` to be a function.');
        expect(() => emitter.on('changed', bad as never)).toThrow(refusal);
        expect(() => emitter.once('changed', bad as never)).toThrow(refusal);
      }
      expect(heard(emitter, 'changed')).toBe(false);
    });

    it('hears nothing of what was in the outbox before it (H047)', () => {
      const emitter = new Emitter<Events>();
      const seen: string[] = [];
      emitter.on('changed', ({ to }) => {
        seen.push(`first ${to}`);
        if (to !== 1) return;
        emitter.on('changed', (late) => seen.push(`second ${late.to}`));
        emitter.once('changed', (late) => seen.push(`once ${late.to}`));
        post(emitter, 'changed', { to: 3 });
      });
      post(emitter, 'changed', { to: 1 });
      post(emitter, 'changed', { to: 2 });
      deliver(emitter);
      expect(seen).toEqual(['first 1', 'first 2', 'first 3', 'second 3', 'once 3']);
    });

    it('hears nothing that was posted before it and not yet delivered', () => {
      const emitter = new Emitter<Events>();
      const listener = vi.fn<() => void>();
      emitter.on('other', listener);
      post(emitter, 'changed', { to: 1 });
      emitter.on('changed', listener);
      deliver(emitter);
      expect(listener).not.toHaveBeenCalled();
    });
  });

  describe('.once()', () => {
    it('calls the listener at the next event only', () => {
      const emitter = new Emitter<Events>();
      const seen: number[] = [];
      emitter.once('changed', ({ to }) => seen.push(to));
      post(emitter, 'changed', { to: 1 });
      post(emitter, 'changed', { to: 2 });
      deliver(emitter);
      expect(seen).toEqual([1]);
      expect(heard(emitter, 'changed')).toBe(false);
    });

    it('is spent before the listener runs, which may subscribe again', () => {
      const emitter = new Emitter<Events>();
      const seen: number[] = [];
      const listener = ({ to }: { to: number }): void => {
        seen.push(to);
        expect(heard(emitter, 'changed')).toBe(false);
        if (to < 3) emitter.once('changed', listener);
      };
      emitter.once('changed', listener);
      for (const to of [1, 2, 3, 4]) emit(emitter, to);
      expect(seen).toEqual([1, 2, 3]);
    });

    it('calls the same listener once for each time it was added, and leaves an on of it alone', () => {
      const emitter = new Emitter<Events>();
      const seen: number[] = [];
      const listener = ({ to }: { to: number }): void => void seen.push(to);
      emitter.once('changed', listener).on('changed', listener).once('changed', listener);
      emit(emitter, 1);
      emit(emitter, 2);
      expect(seen).toEqual([1, 1, 1, 2]);
    });

    it('is spent by a listener that throws (H038)', async () => {
      using uncaught = catchUncaught();
      const emitter = new Emitter<Events>();
      emitter.once('changed', () => {
        throw new Error('listener');
      });
      emit(emitter, 1);
      emit(emitter, 2);
      await settle();
      expect(uncaught.exceptions).toHaveLength(1);
    });
  });

  describe('.off()', () => {
    it('takes every subscription of the listener back, those by once too', () => {
      const emitter = new Emitter<Events>();
      const listener = vi.fn<() => void>();
      const other = vi.fn<() => void>();
      emitter.on('changed', listener).once('changed', listener).on('changed', listener);
      emitter.on('changed', other).on('other', listener);
      emitter.off('changed', listener);
      emit(emitter, 1);
      expect(listener).not.toHaveBeenCalled();
      expect(other).toHaveBeenCalledOnce();
      expect(heard(emitter, 'other')).toBe(true);
    });

    it('ignores a listener that was never added, and one that is missing', () => {
      const emitter = new Emitter<Events>();
      const listener = vi.fn<() => void>();
      emitter.off('changed', listener);
      emitter.on('changed', listener);
      emitter.off('changed', () => undefined);
      emitter.off('changed', undefined as never);
      emitter.off('other', listener);
      emit(emitter, 1);
      expect(listener).toHaveBeenCalledOnce();
    });

    it('does not touch the delivery of the event at hand, and ends that of the next (H031)', () => {
      const emitter = new Emitter<Events>();
      const seen: string[] = [];
      const second = ({ to }: { to: number }): void => void seen.push(`second ${to}`);
      const first = ({ to }: { to: number }): void => {
        seen.push(`first ${to}`);
        emitter.off('changed', first).off('changed', second);
      };
      const third = ({ to }: { to: number }): void => void seen.push(`third ${to}`);
      emitter.on('changed', first).on('changed', second).on('changed', third);
      post(emitter, 'changed', { to: 1 });
      post(emitter, 'changed', { to: 2 });
      deliver(emitter);
      expect(seen).toEqual(['first 1', 'second 1', 'third 1', 'third 2']);
    });
  });

  describe('deliver()', () => {
    it('delivers what was posted in that order, whatever the names', () => {
      const emitter = new Emitter<Events>();
      const seen: unknown[] = [];
      emitter.on('other', (payload) => seen.push(payload));
      emitter.on('changed', (payload) => seen.push(payload));
      post(emitter, 'changed', { to: 1 });
      post(emitter, 'other', { id: 'a' });
      post(emitter, 'changed', { to: 2 });
      expect(seen).toEqual([]);
      deliver(emitter);
      deliver(emitter);
      expect(seen).toEqual([{ to: 1 }, { id: 'a' }, { to: 2 }]);
    });

    it('lets everybody hear an event before anybody hears of its consequences', () => {
      const emitter = new Emitter<Events>();
      const seen: string[] = [];
      emitter.on('changed', ({ to }) => {
        seen.push(`a${to}`);
        if (to < 3) emit(emitter, to + 1);
        seen.push(`a${to} done`);
      });
      emitter.on('changed', ({ to }) => seen.push(`b${to}`));
      emit(emitter, 1);
      expect(seen).toEqual(['a1', 'a1 done', 'b1', 'a2', 'a2 done', 'b2', 'a3', 'a3 done', 'b3']);
    });

    it('does nothing where nobody has ever listened', () => {
      const emitter = new Emitter<Events>();
      post(emitter, 'changed', { to: 1 });
      expect(() => deliver(emitter)).not.toThrow();
    });

    it('goes on for 100 000 events that each come from the one before (H032)', () => {
      const emitter = new Emitter<Events>();
      let last = 0;
      emitter.on('changed', ({ to }) => {
        last = to;
        if (to < 100_000) emit(emitter, to + 1);
      });
      emit(emitter, 1);
      expect(last).toBe(100_000);
    });

    it('is silenced by nobody who throws, whose error is an uncaught exception (H025, H026)', async () => {
      using uncaught = catchUncaught();
      const emitter = new Emitter<Events>();
      const failures = [new Error('one'), undefined, 'three'];
      const seen: number[] = [];
      for (const failure of failures) {
        emitter.on('changed', () => {
          throw failure;
        });
      }
      emitter.on('changed', ({ to }) => seen.push(to));
      post(emitter, 'changed', { to: 1 });
      post(emitter, 'changed', { to: 2 });
      expect(() => deliver(emitter)).not.toThrow();
      expect(uncaught.exceptions).toEqual([]);
      await settle();
      expect(seen).toEqual([1, 2]);
      expect(uncaught.exceptions).toEqual([...failures, ...failures]);
      emit(emitter, 3);
      expect(seen).toEqual([1, 2, 3]);
      await settle();
    });

    it('does not wait for a listener, whose rejection is unhandled (H027)', async () => {
      using uncaught = catchUncaught();
      const emitter = new Emitter<Events>();
      const failure = new Error('async');
      emitter.on('changed', () => Promise.reject(failure));
      emit(emitter, 1);
      await settle();
      expect(uncaught).toMatchObject({ exceptions: [], rejections: [failure] });
    });

    it('calls the listeners in the async context of the operation (H044)', () => {
      const storage = new AsyncLocalStorage<string>();
      const emitter = new Emitter<Events>();
      const seen: unknown[] = [];
      storage.run('subscriber', () => emitter.on('changed', () => seen.push(storage.getStore())));
      storage.run('operation', () => emit(emitter, 1));
      emit(emitter, 2);
      expect(seen).toEqual(['operation', undefined]);
    });

    it('keeps two emitters apart, even where each calls the other', () => {
      const left = new Emitter<Events>();
      const right = new Emitter<Events>();
      const seen: string[] = [];
      left.on('changed', ({ to }) => {
        seen.push(`left ${to}`);
        emit(right, to);
      });
      right.on('changed', ({ to }) => {
        seen.push(`right ${to}`);
        if (to < 2) emit(left, to + 1);
      });
      emit(left, 1);
      expect(seen).toEqual(['left 1', 'right 1', 'left 2', 'right 2']);
    });
  });

  describe('heard()', () => {
    it('tells whether anybody listens to that name', () => {
      const emitter = new Emitter<Events>();
      const listener = (): void => undefined;
      expect(heard(emitter, 'changed')).toBe(false);
      emitter.on('changed', listener);
      expect(heard(emitter, 'changed')).toBe(true);
      expect(heard(emitter, 'other')).toBe(false);
      emitter.off('changed', listener);
      expect(heard(emitter, 'changed')).toBe(false);
    });
  });

  it('has no way for others to send (H041)', () => {
    const emitter = new Emitter<Events>();
    expect(Object.keys(emitter)).toEqual([]);
    expect(Object.getOwnPropertyNames(Emitter.prototype).toSorted()).toEqual([
      'constructor',
      'off',
      'on',
      'once',
    ]);
  });

  it('takes any word for the name of an event (H039)', () => {
    const emitter = new Emitter<Events>();
    const seen: unknown[] = [];
    for (const name of ['__proto__', 'constructor'] as const) {
      expect(heard(emitter, name)).toBe(false);
      post(emitter, name, { id: `nobody hears ${name}` });
      emitter.on(name, ({ id }) => seen.push(id));
      post(emitter, name, { id: name });
      deliver(emitter);
    }
    expect(seen).toEqual(['__proto__', 'constructor']);
    expect(Object.getPrototypeOf({})).toBe(Object.prototype);
  });

  it('cannot be used on something else', () => {
    expect(() => Emitter.prototype.on.call({}, 'changed', () => undefined)).toThrow(TypeError);
  });
});
