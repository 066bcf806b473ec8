/**
 * Streams as responses, refusals as statuses, a `fetch` behind a gate, health, and what an upstream says
 * in its headers.
 *
 * @module sluice/http
 */

export { encodeEvents } from './encode-events.ts';
export { gateFetch, type GateFetchOptions, type UpstreamLimiter } from './gate-fetch.ts';
export {
  type HealthPart,
  type HealthReport,
  healthReport,
  type HealthReportOptions,
} from './health-report.ts';
export { type HttpError, toHttpError } from './http-error.ts';
export type { EncodeOptions, Format, ResponseOptions } from './options.ts';
export { type NodeResponse, pipeToResponse } from './pipe-to-response.ts';
export { toResponse } from './to-response.ts';
export type { HeadersLike } from './header-values.ts';
export { parseRateLimitHeaders, type UpstreamLimit } from './rate-limit-headers.ts';
export { parseRetryAfter } from './retry-after.ts';
