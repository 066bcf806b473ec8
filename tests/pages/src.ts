/** What the examples in the comments of the sources need. */
import { AdmissionQueue, RateLimiter, TokenStreamer } from 'sluice';
import { toResponse } from 'sluice/http';
import { vi } from 'vitest';

import type { Page } from '../support/doc-examples.ts';

export * from 'sluice';
export * from 'sluice/http';
export * from 'sluice/read-events';
export * from 'sluice/testing';

interface Interruptible {
  readonly signal: AbortSignal;
}

export const queue = new AdmissionQueue({ concurrency: 5 });
export const limiter = new RateLimiter({
  limits: { requests: { limit: 1000 }, tokens: { limit: 1_000_000 } },
});
export const streamer = new TokenStreamer();

export const { signal } = new AbortController();
export const request = new Request('http://server.test/');
export const prompt = 'Why?';
export const text = 'sky';
export const user = 'ann';
export const body = '{}';
export const url = 'http://model.test/';

/** Of an upstream, and on its way to a client. */
export const response = Object.assign(new Response(null, { status: 429 }), {
  writeHead: (_status: number, _headers: object) => ({ end: (_body: string): void => {} }),
});

async function* stream(_prompt: string, _options: Interruptible): AsyncGenerator<string> {
  yield 'Because.';
}
export const callModel = Object.assign(
  async (_prompt: string, _options: Interruptible) => ({
    text: 'Because.',
    usage: { total_tokens: 12 },
  }),
  { stream },
);
export const infer = async (_prompt: string, _options: Interruptible): Promise<string> =>
  'Because.';
export const ping = async (_url: string): Promise<object> => ({ ok: true });

interface Model {
  embed(text: string, options?: Interruptible): Promise<readonly number[]>;
  generate(
    prompt: string,
    listeners: {
      readonly onToken: (token: string) => void;
      readonly onDone: () => void;
      readonly onError: (error: unknown) => void;
    },
  ): { cancel(): void };
  unload(): void;
}

export const model: Model = {
  embed: async () => [0.25, 0.5],
  generate(given, { onToken, onDone }) {
    onToken(given);
    onDone();
    return { cancel: () => {} };
  },
  unload: () => {},
};
export const loadModel = async (_name: string, _options: Interruptible): Promise<Model> => model;

export const fetch = async (_path: string, _init: RequestInit): Promise<Response> =>
  toResponse(streamer.stream(() => ['Hel', 'lo']));

export const log = (_what: unknown): void => {};
export const refuse = (): void => {};
export const showPlace = (_position: number): void => {};
export const append = (_token: unknown): void => {};
export const show = (_event: unknown): void => {};
export const console = { log };

export const page = {
  open: () => vi.stubEnv('OPENAI_API_KEY', 'none'),
  close: () => vi.unstubAllEnvs(),
} satisfies Page;
