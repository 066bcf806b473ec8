/** Why a request has no answer, in the form of OpenAI's API and of the library's own refusals. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly status: number;
  readonly code: string;
  /** When to try again, where that is known. */
  readonly retryAfterMs: number | undefined;
  /** Whether it speaks against a provider: enough of these open its circuit. */
  readonly fault: boolean;

  constructor(
    status: number,
    code: string,
    message: string,
    {
      retryAfterMs,
      fault = false,
      cause,
    }: { readonly retryAfterMs?: number; readonly fault?: boolean; readonly cause?: unknown } = {},
  ) {
    super(message, { cause });
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
    this.fault = fault;
  }
}
