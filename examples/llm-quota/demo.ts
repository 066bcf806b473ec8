import { type ModelServer, startModelServer } from '../model-server/server.ts';
import type { Quota } from './limited.ts';
import { anthropic, openai, type Provider } from './providers.ts';
import { exhaust, type Report } from './report.ts';

/** Per two seconds instead of per minute, so that it need not run for minutes. */
const WINDOW_MS = 2000;

/** Here it is tokens that are short, … */
const OPENAI: Quota = { requests: 60, tokens: 2400, windowMs: WINDOW_MS };
/** … and here requests. */
const ANTHROPIC: Quota = { requests: 40, tokens: 6000, windowMs: WINDOW_MS };

/** Both providers side by side, each with `calls` questions. Resolves when nothing is left of it. */
export function demo(calls: number): Promise<Report[]> {
  return Promise.all([
    ask((url) => openai(`${url}/v1`), OPENAI, calls),
    ask((url) => anthropic(url), ANTHROPIC, calls),
  ]);
}

async function ask(
  providerAt: (url: string) => Provider,
  quota: Quota,
  calls: number,
): Promise<Report> {
  const server = await startProvider(quota);
  try {
    return await exhaust(providerAt(server.url), quota, calls);
  } finally {
    await server.close();
  }
}

/** A provider on this machine, which counts by itself. */
export function startProvider({ requests, tokens, windowMs }: Quota): Promise<ModelServer> {
  return startModelServer({
    port: 0,
    parallel: 1000,
    prefillMsPerToken: 0.5,
    decodeMsPerToken: 2,
    requestsPerWindow: requests,
    tokensPerWindow: tokens,
    quotaWindowMs: windowMs,
  });
}
