const HIGH_SURROGATE = /[\uD800-\uDBFF]$/u;

/**
 * Turns tokens into text that is whole at every cut: what a token breaks off in the middle of a
 * character (half a surrogate pair, some bytes of a UTF-8 sequence) waits for the next one, and what
 * turns out not to be a character is U+FFFD.
 */
export class Pieces {
  readonly #toText: ((value: unknown) => string) | undefined;
  #decoder: TextDecoder | undefined;
  #half = '';

  /** `toText` is for tokens that are neither strings nor bytes of UTF-8. */
  constructor(toText: ((value: unknown) => string) | undefined) {
    this.#toText = toText;
  }

  /** The text of a token, as far as it is whole. Throws a TypeError where it has none. */
  next(value: unknown): string {
    const text = this.#half + this.#textOf(value);
    this.#half = HIGH_SURROGATE.test(text) ? text.slice(-1) : '';
    return (this.#half === '' ? text : text.slice(0, -1)).toWellFormed();
  }

  /** What is left at the end: halves of characters that never became whole ones. */
  end(): string {
    return (this.#half + (this.#decoder?.decode() ?? '')).toWellFormed();
  }

  #textOf(value: unknown): string {
    const text = this.#toText === undefined ? value : this.#toText(value);
    if (typeof text === 'string') return (this.#decoder?.decode() ?? '') + text;
    if (text instanceof Uint8Array) {
      this.#decoder ??= new TextDecoder();
      return this.#decoder.decode(text, { stream: true });
    }
    throw new TypeError(
      `Expected a token that is text, got a value of type ${typeof text}: give \`toText\`.`,
    );
  }
}
