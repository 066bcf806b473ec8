import { EventEmitter } from 'eventemitter3';

type Listener<Payload> = (payload: Payload) => unknown;

/** Puts an event into the outbox of `emitter`; `deliver` calls the listeners. */
export let post: <Events, Name extends keyof Events & string>(
  emitter: Emitter<Events>,
  name: Name,
  payload: Events[Name],
) => void;

/** Calls the listeners of everything in the outbox, unless a call further up the stack does. */
export let deliver: <Events>(emitter: Emitter<Events>) => void;

/** Whether anybody listens: payloads are built only then. */
export let heard: <Events>(emitter: Emitter<Events>, name: keyof Events & string) => boolean;

/**
 * The subscription side of a primitive, over eventemitter3. Sending is not on the class but in the
 * functions above, which only the library imports: nobody outside can forge an event.
 *
 * A primitive changes its whole state, posts what happened and delivers as the last thing of the
 * public call. Listeners may call back into the primitive: events of such calls join the outbox, so
 * that everybody hears everything in the order in which it happened, without recursion. A listener
 * that throws silences nobody and changes nothing; its error surfaces as an uncaught exception, as
 * with EventTarget, and a promise that it returns is not awaited.
 */
export class Emitter<Events> {
  #emitter: EventEmitter | undefined;
  #guards: WeakMap<object, Listener<unknown>> | undefined;
  #outbox: { name: string; payload: unknown }[] | undefined;
  #delivering = false;

  static {
    post = (emitter, name, payload) => {
      if (emitter.#emitter !== undefined) (emitter.#outbox ??= []).push({ name, payload });
    };
    heard = (emitter, name) =>
      emitter.#emitter !== undefined && emitter.#emitter.listenerCount(name) > 0;
    deliver = (emitter) => {
      if (emitter.#outbox !== undefined && !emitter.#delivering) emitter.#deliver();
    };
  }

  /** Calls `listener` at each event of that name, until `off`. */
  on<Name extends keyof Events & string>(name: Name, listener: Listener<Events[Name]>): this {
    (this.#emitter ??= new EventEmitter()).on(name, this.#guard(listener));
    return this;
  }

  /** Calls `listener` at the next event of that name only. */
  once<Name extends keyof Events & string>(name: Name, listener: Listener<Events[Name]>): this {
    (this.#emitter ??= new EventEmitter()).once(name, this.#guard(listener));
    return this;
  }

  /** Takes every subscription of `listener` to that name back. */
  off<Name extends keyof Events & string>(name: Name, listener: Listener<Events[Name]>): this {
    const guard = this.#guards?.get(listener);
    if (guard !== undefined) this.#emitter?.off(name, guard);
    return this;
  }

  /** eventemitter3 stops at the first listener that throws; none of ours lets it see one. */
  #guard<Payload>(listener: Listener<Payload>): Listener<unknown> {
    if (typeof listener !== 'function')
      throw new TypeError('Expected `listener` to be a function.');
    this.#guards ??= new WeakMap();
    let guard = this.#guards.get(listener);
    if (guard === undefined) {
      guard = (payload) => {
        try {
          // What it returns is the listener's own affair: a rejection of it is not handled here.
          listener(payload as Payload);
        } catch (error) {
          queueMicrotask(() => {
            throw error;
          });
        }
      };
      this.#guards.set(listener, guard);
    }
    return guard;
  }

  #deliver(): void {
    const outbox = this.#outbox!;
    this.#delivering = true;
    // A loop by index, since listeners append while it runs.
    for (let i = 0; i < outbox.length; i++) {
      const { name, payload } = outbox[i]!;
      this.#emitter!.emit(name, payload);
    }
    this.#outbox = undefined;
    this.#delivering = false;
  }
}
