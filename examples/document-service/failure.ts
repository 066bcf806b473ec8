/** Why a request is not answered as it wished, in the form of the library's own refusals. */
export class HttpFailure extends Error {
  override readonly name = 'HttpFailure';
  readonly status: number;
  readonly code: string;
  /** For `Retry-After`, where it is known. */
  readonly retryAfterMs: number | undefined;

  constructor(
    status: number,
    code: string,
    message: string,
    options: ErrorOptions & { readonly retryAfterMs?: number } = {},
  ) {
    super(message, options);
    this.status = status;
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
  }

  get headers(): Readonly<Record<string, string>> {
    if (this.retryAfterMs === undefined) return {};
    return { 'retry-after': String(Math.max(1, Math.ceil(this.retryAfterMs / 1000))) };
  }

  get body(): { readonly error: { readonly code: string; readonly message: string } } {
    const { code, message } = this;
    return { error: { code, message } };
  }
}
