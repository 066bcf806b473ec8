import { expect } from 'vitest';

import type { Page } from '../../support/doc-examples.ts';

interface Model {
  readonly name: string;
  embed(text: string, options?: { signal: AbortSignal }): Promise<number[]>;
  unload(): void;
}

export const unloaded: string[] = [];

export async function loadModel(name: string, _options: { signal: AbortSignal }): Promise<Model> {
  return {
    name,
    embed: async () => [0.25, 0.5],
    unload: () => void unloaded.push(name),
  };
}

export const page = {
  check: () => expect(unloaded).toEqual(['minilm', 'bge']),
} satisfies Page;
