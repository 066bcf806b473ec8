import { setTimeout as sleep } from 'node:timers/promises';

export interface Embedding {
  readonly name: string;
  readonly dimensions: number;
  /** How many texts it has seen; 0 of one that knows no text. */
  readonly texts: number;
  /** A vector of length 1, or of 0 for a text without a word. Takes as long as it was made to. */
  embed(text: string, signal: AbortSignal): Promise<Float32Array>;
}

export interface EmbeddingOptions {
  readonly dimensions: number;
  /** What one text takes, in ms, as on a machine that has more to do than this one. */
  readonly useMs: number;
}

/** How many different features are told apart: a power of 2. */
const BUCKETS = 8192;
/** In so many steps a model is built, with a look at the signal and a pause after each. */
const STEPS = 50;
const SEED = 0x5eed;

/**
 * Words and pairs of words, hashed into buckets (Weinberger et al., "Feature Hashing for Large Scale
 * Multitask Learning", 2009), weighted by how rare each bucket is in `texts`, and projected at random
 * onto few dimensions (Achlioptas, "Database-friendly random projections", 2003). Texts that share
 * rare words have vectors that are close.
 *
 * Takes about `loadMs`. Rejects with the signal's reason as soon as that is aborted.
 */
export async function buildEmbedding(
  texts: readonly string[],
  options: EmbeddingOptions & { readonly loadMs: number; readonly signal: AbortSignal },
): Promise<Embedding> {
  const { loadMs, signal } = options;
  const startedAt = performance.now();
  const seenIn = new Uint32Array(BUCKETS);
  for (let step = 1; step <= STEPS; step += 1) {
    const from = Math.floor(((step - 1) * texts.length) / STEPS);
    const to = Math.floor((step * texts.length) / STEPS);
    for (const text of texts.slice(from, to)) {
      for (const bucket of new Set(featuresOf(text))) seenIn[bucket]! += 1;
    }
    const aheadMs = startedAt + (step * loadMs) / STEPS - performance.now();
    await pause(Math.max(0, aheadMs), signal);
  }
  const weights = Float32Array.from(seenIn, (count) => Math.log((texts.length + 1) / (count + 1)));
  return embeddingWith(weights, { name: 'trained', texts: texts.length, ...options });
}

/** The same without a text to learn from: every word counts as much as any other. */
export function plainEmbedding(options: EmbeddingOptions): Embedding {
  return embeddingWith(new Float32Array(BUCKETS).fill(1), { name: 'plain', texts: 0, ...options });
}

function embeddingWith(
  weights: Float32Array,
  { name, texts, dimensions, useMs }: EmbeddingOptions & { name: string; texts: number },
): Embedding {
  const signs = randomSigns(BUCKETS * dimensions);
  return {
    name,
    dimensions,
    texts,
    async embed(text, signal) {
      await pause(useMs, signal);
      return project(text, weights, signs, dimensions);
    },
  };
}

function project(
  text: string,
  weights: Float32Array,
  signs: Int8Array,
  dimensions: number,
): Float32Array {
  const counts = new Map<number, number>();
  for (const bucket of featuresOf(text)) counts.set(bucket, (counts.get(bucket) ?? 0) + 1);
  const vector = new Float32Array(dimensions);
  for (const [bucket, count] of counts) {
    const weight = weights[bucket]! * (1 + Math.log(count));
    const row = bucket * dimensions;
    for (let i = 0; i < dimensions; i += 1) vector[i]! += weight * signs[row + i]!;
  }
  const length = Math.hypot(...vector);
  return length === 0 ? vector : vector.map((value) => value / length);
}

/** The buckets of the words in a text, and of its pairs of neighbours. */
function featuresOf(text: string): number[] {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  const pairs = words.slice(1).map((word, index) => `${words[index]} ${word}`);
  return [...words, ...pairs].map((feature) => hash(feature) % BUCKETS);
}

/** FNV-1a, 32 bits, over UTF-16 code units. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) {
    value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  }
  return value >>> 0;
}

/** The same ones every time: vectors of one process can be compared with those of another. */
function randomSigns(length: number): Int8Array {
  const signs = new Int8Array(length);
  let state = SEED;
  for (let i = 0; i < length; i += 1) {
    // Xorshift, Marsaglia 2003.
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    signs[i] = (state & 0x10000) === 0 ? 1 : -1;
  }
  return signs;
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}
