interface Call<V> {
  readonly result: Promise<V>;
  readonly everybodyLeft: AbortController;
  callers: number;
}

/**
 * Callers who want the same at the same time get it from one call. A caller who leaves is answered at
 * once, with the reason of the signal; the call itself is aborted with the last of them.
 */
export class SharedCalls<V> {
  readonly #calls = new Map<string, Call<V>>();
  readonly #make: (key: string, signal: AbortSignal) => Promise<V>;
  #joined = 0;

  constructor(make: (key: string, signal: AbortSignal) => Promise<V>) {
    this.#make = make;
  }

  stats(): { readonly calls: number; readonly joined: number } {
    return { calls: this.#calls.size, joined: this.#joined };
  }

  async get(key: string, signal: AbortSignal): Promise<V> {
    signal.throwIfAborted();
    let call = this.#calls.get(key);
    if (call === undefined) call = this.#begin(key);
    else this.#joined += 1;
    call.callers += 1;
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = (): void => reject(signal.reason);
    signal.addEventListener('abort', leave, { once: true });
    try {
      return await Promise.race([call.result, left]);
    } finally {
      signal.removeEventListener('abort', leave);
      call.callers -= 1;
      if (call.callers === 0 && signal.aborted) {
        this.#forget(key, call);
        call.everybodyLeft.abort(signal.reason);
      }
    }
  }

  #begin(key: string): Call<V> {
    const everybodyLeft = new AbortController();
    const call = { result: this.#make(key, everybodyLeft.signal), everybodyLeft, callers: 0 };
    this.#calls.set(key, call);
    // Who comes after the result is there asks anew: another model may be in service by then.
    const forget = (): void => this.#forget(key, call);
    call.result.then(forget, forget);
    return call;
  }

  #forget(key: string, call: Call<V>): void {
    if (this.#calls.get(key) === call) this.#calls.delete(key);
  }
}
