/** Why a request is not answered as it wished, in the form of the library's own refusals. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
    this.code = code;
  }

  get body(): { readonly error: { readonly code: string; readonly message: string } } {
    const { code, message } = this;
    return { error: { code, message } };
  }
}
