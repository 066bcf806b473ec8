import {
  type ResourceHandle,
  SharedResource,
  type SharedResourceEvents,
} from 'sluice/shared-resource';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { optionNames } from '../src/internal/options.ts';

const NAMES = [
  'queued',
  'acquired',
  'released',
  'cancelled',
  'timedOut',
  'refused',
  'overrun',
  'loading',
  'loaded',
  'loadFailed',
  'loadOverrun',
  'disposed',
  'disposeFailed',
  'closed',
] as const satisfies (keyof SharedResourceEvents)[];

const never = (): Promise<never> => new Promise(() => {});
const ignore = (promise: Promise<unknown>): void => void promise.catch(() => undefined);

describe('SharedResource', () => {
  describe('events', () => {
    it('are told before the call that brings them about returns', async () => {
      const resource = new SharedResource({
        load: async () => 'model',
        maxUsers: 1,
        clock: new ManualClock(),
      });
      const events: string[] = [];
      for (const name of NAMES) resource.on(name, () => events.push(name));
      const told = (call: () => unknown): string => {
        call();
        return events.splice(0).join(' ');
      };
      const quitter = new AbortController();
      let handle!: Promise<ResourceHandle<string>>;
      expect(told(() => ignore(resource.preload()))).toBe('loading');
      expect(told(() => resource.cancelLoading())).toBe('');
      await settle();
      events.length = 0;
      expect(told(() => (handle = resource.acquire()))).toBe('queued loading');
      await settle();
      expect(events.splice(0).join(' ')).toBe('loaded acquired');
      expect(told(() => ignore(resource.run(never, { signal: quitter.signal })))).toBe('queued');
      expect(told(() => ignore(resource.acquire({ waitTimeoutMs: 0 })))).toBe('refused');
      expect(told(() => ignore(resource.run(never, { waitTimeoutMs: 0 })))).toBe('refused');
      expect(told(() => quitter.abort())).toBe('cancelled');
      expect(told(() => ignore(resource.run(never)))).toBe('queued');
      expect(told(() => resource.configure({ maxUsers: 2 }))).toBe('acquired');
      const held = await handle;
      expect(told(() => held.release())).toBe('released');
      expect(told(() => resource.run(never))).toBe('acquired');
      expect(told(() => ignore(resource.acquire()))).toBe('queued');
      expect(told(() => void resource.close())).toBe('cancelled');
      expect(told(() => void resource.close())).toBe('');
      expect(told(() => ignore(resource.run(never)))).toBe('refused');
    });
  });

  it('says who is closed, to who waits and to who comes', async () => {
    const resource = new SharedResource({ load: never });
    const call = resource.acquire();
    void resource.close();
    await expect(call).rejects.toThrow('The shared resource is closed.');
    await expect(resource.acquire()).rejects.toThrow('The shared resource is closed.');
    await expect(resource.preload()).rejects.toThrow('The shared resource is closed.');
    await expect(resource.reload()).rejects.toThrow('The shared resource is closed.');
  });

  it('names the call that was given an option it does not know', async () => {
    const resource = new SharedResource({ load: never });
    const options = { load: never, mxaUsers: 1 } as never;
    expect(() => new SharedResource(options)).toThrow(/"mxaUsers" of SharedResource;/);
    await expect(resource.acquire(options)).rejects.toThrow(/"load" of acquire;/);
    await expect(resource.run(never, options)).rejects.toThrow(/"load" of run;/);
    expect(() => resource.configure(options)).toThrow(/"mxaUsers" of configure;/);
    await expect(resource.acquire({ graceMs: 1 } as never)).rejects.toThrow(/"graceMs"/);
  });

  it('tells `compose` which options it knows', () => {
    expect([...new SharedResource({ load: never })[optionNames]].toSorted()).toEqual([
      'graceMs',
      'runTimeoutMs',
      'signal',
      'waitTimeoutMs',
    ]);
  });
});
