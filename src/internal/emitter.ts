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

/** What eventemitter3 calls: one for each subscription, so that none of ours is called for two. */
interface Guard {
  (payload: unknown): void;
  readonly listener: unknown;
}

/** The listeners of one primitive, and the events that have not reached them. */
class Hub {
  readonly #emitter = new EventEmitter();
  #outbox: { name: string; payload: unknown }[] | undefined;
  #delivering = false;
  #posted = 0;
  /** How many of the posted events have reached, or are reaching, the listeners. */
  #delivered = 0;

  subscribe(name: string, listener: Listener<never>, once: boolean): void {
    if (typeof listener !== 'function') {
      throw new TypeError('Expected `listener` to be a function.');
    }
    const emitter = this.#emitter;
    const since = this.#posted;
    const guard: Guard = Object.assign(
      (payload: unknown): void => {
        // Whatever was in the outbox already had happened before.
        if (this.#delivered <= since) return;
        if (once) emitter.off(name, guard);
        try {
          // What it returns is the listener's own affair: a rejection of it is not handled here.
          listener(payload as never);
        } catch (error) {
          // eventemitter3 stops at the first listener that throws: it never sees one.
          queueMicrotask(() => {
            throw error;
          });
        }
      },
      { listener },
    );
    emitter.on(name, guard);
  }

  unsubscribe(name: string, listener: unknown): void {
    for (const guard of this.#emitter.listeners(name) as Guard[]) {
      if (guard.listener === listener) this.#emitter.off(name, guard);
    }
  }

  hears(name: string): boolean {
    return this.#emitter.listenerCount(name) > 0;
  }

  post(name: string, payload: unknown): void {
    // All listeners get the one object: none of them can change what the others see.
    (this.#outbox ??= []).push({ name, payload: Object.freeze(payload) });
    this.#posted++;
  }

  deliver(): void {
    const outbox = this.#outbox;
    if (outbox === undefined || this.#delivering) return;
    this.#delivering = true;
    // A loop by index, since listeners append while it runs.
    for (let i = 0; i < outbox.length; i++) {
      const { name, payload } = outbox[i]!;
      this.#delivered++;
      this.#emitter.emit(name, payload);
    }
    this.#outbox = undefined;
    this.#delivering = false;
  }
}

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
  /**
   * Never there: it lets the functions above infer the events of a subclass.
   *
   * @internal
   */
  declare readonly events?: Events;

  /** Made with the first subscription: a primitive that nobody listens to pays one field. */
  #hub: Hub | undefined;

  static {
    post = (emitter, name, payload) => emitter.#hub?.post(name, payload);
    heard = (emitter, name) => emitter.#hub !== undefined && emitter.#hub.hears(name);
    deliver = (emitter) => emitter.#hub?.deliver();
  }

  /** Calls `listener` at each event of that name that happens from now on, until `off`. */
  on<Name extends keyof Events & string>(name: Name, listener: Listener<Events[Name]>): this {
    (this.#hub ??= new Hub()).subscribe(name, listener, false);
    return this;
  }

  /** Calls `listener` at the next event of that name only. */
  once<Name extends keyof Events & string>(name: Name, listener: Listener<Events[Name]>): this {
    (this.#hub ??= new Hub()).subscribe(name, listener, true);
    return this;
  }

  /**
   * Takes every subscription of `listener` to that name back. Called by a listener, it has no effect
   * on the delivery of the event at hand.
   */
  off<Name extends keyof Events & string>(name: Name, listener: Listener<Events[Name]>): this {
    this.#hub?.unsubscribe(name, listener);
    return this;
  }
}
