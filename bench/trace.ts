import { readFileSync } from 'node:fs';

/** One call of a trace. */
export interface Call {
  /** Since the first call. */
  readonly atMs: number;
  readonly contextTokens: number;
  readonly generatedTokens: number;
}

/** How long a model takes for a token of each kind. */
export interface Pace {
  readonly prefillMsPerToken: number;
  readonly decodeMsPerToken: number;
}

/** That of a large model on a busy GPU. */
export const STANDARD_PACE: Pace = { prefillMsPerToken: 0.2, decodeMsPerToken: 25 };

/**
 * The calls of a trace of real ones, the first `limit` of them, in the order of their times. The
 * file is CSV with the columns TIMESTAMP,ContextTokens,GeneratedTokens, as the Azure LLM inference
 * traces of 2023 (https://github.com/Azure/AzurePublicDataset, CC-BY 4.0). Throws an error that
 * names the line that is none.
 */
export function readTrace(path: string, limit: number = Infinity): Call[] {
  const lines = readFileSync(path, 'utf8').trim().split(/\r?\n/).slice(1);
  const calls = lines
    .slice(0, limit)
    .map(callOf)
    .toSorted((a, b) => a.atMs - b.atMs);
  const first = calls[0]?.atMs ?? 0;
  return calls.map((call) => ({ ...call, atMs: call.atMs - first }));
}

function callOf(line: string, index: number): Call {
  const [timestamp = '', context, generated] = line.split(',');
  const call = {
    // Of ten millionths of a second only the first three digits are for Date.
    atMs: Date.parse(`${timestamp.slice(0, 23).replace(' ', 'T')}Z`),
    contextTokens: Number(context),
    generatedTokens: Number(generated),
  };
  if (!Object.values(call).every(Number.isFinite)) {
    throw new TypeError(`Expected a time and two counts in line ${index + 2}, got "${line}".`);
  }
  return call;
}
