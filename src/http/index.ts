export { encodeEvents } from './encode-events.ts';
export { type HttpError, toHttpError } from './http-error.ts';
export type { EncodeOptions, ResponseOptions } from './options.ts';
export { pipeToResponse } from './pipe-to-response.ts';
export { toResponse } from './to-response.ts';
export type { HeadersLike } from './header-values.ts';
export { parseRateLimitHeaders, type UpstreamLimit } from './rate-limit-headers.ts';
export { parseRetryAfter } from './retry-after.ts';
