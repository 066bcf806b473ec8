import { type ModelServer, startModelServer } from '../model-server/server.ts';
import type { Quota } from './limited.ts';
import { anthropic, openai } from './providers.ts';
import { exhaust, type Report } from './report.ts';

/** Per two seconds instead of per minute, so that it need not run for minutes. */
const WINDOW_MS = 2000;

/** Here it is tokens that are short, … */
const OPENAI: Quota = { requests: 30, tokens: 1200, windowMs: WINDOW_MS };
/** … and here requests. */
const ANTHROPIC: Quota = { requests: 20, tokens: 3000, windowMs: WINDOW_MS };

/** Both providers side by side, each with `calls` questions. Resolves when nothing is left of it. */
export async function demo(calls: number): Promise<Report[]> {
  const servers = await Promise.all([startProvider(OPENAI), startProvider(ANTHROPIC)]);
  try {
    const [first, second] = servers;
    return await Promise.all([
      exhaust(openai(`${first.url}/v1`), OPENAI, calls),
      exhaust(anthropic(second.url), ANTHROPIC, calls),
    ]);
  } finally {
    await Promise.all(servers.map((server) => server.close()));
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
