export { encodeEvents } from './encode-events.ts';
export { type HttpError, toHttpError } from './http-error.ts';
export type { EncodeOptions, ResponseOptions } from './options.ts';
export { pipeToResponse } from './pipe-to-response.ts';
export { toResponse } from './to-response.ts';
