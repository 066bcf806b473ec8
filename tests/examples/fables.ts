import type { TrigramModel } from '../../examples/model-server/trigram.ts';

/** A small text with many branches, so that tests do not depend on the repository's own. */
export const FABLES: readonly string[] = [
  'The fox saw the grapes on the vine, but the fox could not reach the grapes.',
  'The lion let the mouse go, and the mouse freed the lion from the net.',
  'The crow had a piece of cheese, and the fox wanted the cheese of the crow.',
  'A crocodile wept, and the lion did not believe the tears.',
  'The tortoise won the race, since the hare slept by the side of the road.',
  'The dog saw a dog in the water, and lost the bone for the shadow of the bone.',
  'The wolf was at the door, and the boy cried, but nobody believed the boy.',
  'The ant worked in the summer, and the grasshopper sang in the summer.',
  'The fox had a friend, and the friend of the fox was the crow on the vine.',
  'The mouse saw the lion in the net, and the lion saw the mouse on the road.',
];

/** The tokens of one answer, cut where it goes round in circles. */
export function answerOf(
  model: TrigramModel,
  options: {
    readonly about?: string;
    readonly seed?: string;
    readonly temperature?: number;
    readonly minTokens?: number;
  },
): string[] {
  const tokens: string[] = [];
  for (const token of model.generate({ about: '', seed: '1', ...options })) {
    tokens.push(token);
    if (tokens.length === 500) break;
  }
  return tokens;
}
