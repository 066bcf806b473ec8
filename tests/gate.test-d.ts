/** What `tsc` has to accept, infer and refuse. Nothing here is run. */
import { compose, type Gate, type RunOptions, type TaskContext, wrap } from 'sluice';
import type { Permit, Semaphore } from 'sluice/semaphore';
import { expectTypeOf } from 'vitest';

interface TicketContext extends TaskContext {
  readonly ticket: { readonly id: string };
}
interface LeaseContext extends TaskContext {
  readonly lease: { readonly cost: number };
}
interface QueueOptions extends RunOptions {
  readonly priority?: number | undefined;
}
interface LimiterOptions extends RunOptions {
  readonly cost: number;
}

declare const queue: Gate<TicketContext, QueueOptions>;
declare const limiter: Gate<LeaseContext, LimiterOptions>;
declare const plain: Gate;
declare const semaphore: Semaphore;

export async function contexts(): Promise<void> {
  await compose(queue, limiter, semaphore).run(
    (context) => {
      expectTypeOf(context.signal).toEqualTypeOf<AbortSignal>();
      expectTypeOf(context.ticket.id).toEqualTypeOf<string>();
      expectTypeOf(context.lease.cost).toEqualTypeOf<number>();
      expectTypeOf(context.permit).toEqualTypeOf<Permit>();
      // @ts-expect-error -- no gate hands this out
      void context.session;
    },
    { cost: 1 },
  );
  await compose(plain).run((context) => {
    expectTypeOf(context.signal).toEqualTypeOf<AbortSignal>();
    // @ts-expect-error -- no gate hands this out
    void context.ticket;
  });
  await compose(compose(queue, semaphore), plain).run((context) => {
    expectTypeOf(context.ticket.id).toEqualTypeOf<string>();
    expectTypeOf(context.permit.weight).toEqualTypeOf<number>();
  });
}

export async function options(): Promise<void> {
  const { signal } = new AbortController();
  const gate = compose(queue, limiter, semaphore);
  await gate.run(() => 1, { priority: 1, cost: 2, weight: 3, waitTimeoutMs: 50, signal });
  // @ts-expect-error -- a misspelt option
  await gate.run(() => 1, { prioritty: 1, cost: 2 });
  // @ts-expect-error -- an option of the wrong type
  await gate.run(() => 1, { priority: 'high', cost: 2 });
  // @ts-expect-error -- the limiter wants a cost
  await gate.run(() => 1, { priority: 1 });
  await compose(plain).run(() => 1, { signal });
}

export async function results(): Promise<void> {
  const gate = compose(queue, semaphore);
  expectTypeOf(gate.run(() => 1)).resolves.toEqualTypeOf<number>();
  expectTypeOf(gate.run(async () => 'text')).resolves.toEqualTypeOf<string>();
  expectTypeOf(gate.run(() => undefined)).resolves.toEqualTypeOf<undefined>();
}

export function gates(): void {
  // A composition is a gate, and goes where a gate with less to hand out is wanted.
  expectTypeOf(compose(queue, semaphore)).toExtend<Gate<TicketContext, QueueOptions>>();
  expectTypeOf(semaphore).toExtend<Gate>();
  // @ts-expect-error -- at least one gate
  compose();
  // @ts-expect-error -- not a gate
  compose(queue, { acquire: () => 1 });
}

export async function wrapped(): Promise<void> {
  const embed = wrap(limiter, async (text: string, size?: number) => [text.length, size ?? 1], {
    cost: 1,
  });
  expectTypeOf(embed).parameters.toEqualTypeOf<[text: string, size?: number | undefined]>();
  expectTypeOf(embed('a')).resolves.toEqualTypeOf<number[]>();

  const sync = wrap(
    limiter,
    (text: string) => text.length,
    (text) => ({ cost: text.length }),
  );
  expectTypeOf(sync('a')).toEqualTypeOf<Promise<number>>();

  const method = wrap(semaphore, function (this: { base: number }, a: number) {
    return this.base + a;
  });
  expectTypeOf(method).thisParameter.toEqualTypeOf<{ base: number }>();
  // @ts-expect-error -- without its `this`
  await method(1);

  // @ts-expect-error -- an option of the wrong type
  wrap(limiter, (text: string) => text, { cost: 'much' });
  const wrong = (text: string): { cost: string } => ({ cost: text });
  // @ts-expect-error -- made of the wrong type
  wrap(limiter, (text: string) => text, wrong);
}
