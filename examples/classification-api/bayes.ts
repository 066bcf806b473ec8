export interface Example {
  readonly label: string;
  readonly text: string;
}

/** What a text is about, how sure that is, and the words that spoke for it most, the best first. */
export interface Classification {
  readonly label: string;
  readonly probability: number;
  readonly words: readonly string[];
}

/** Words of one label, and how many they are together. */
interface Counts {
  readonly words: Map<string, number>;
  total: number;
}

const MAX_WORDS = 5;

/**
 * Multinomial naive Bayes over words, with add-one smoothing and labels that are equally likely
 * beforehand (Manning, Raghavan and Schütze, Introduction to Information Retrieval, 13.2).
 *
 * Training is linear in the texts, classifying in the text times the labels.
 */
export class NaiveBayes {
  readonly #labels = new Map<string, Counts>();
  readonly #vocabulary = new Set<string>();

  /** Throws a RangeError when there is nothing to tell apart. */
  constructor(examples: Iterable<Example>) {
    for (const { label, text } of examples) this.#learn(label, text);
    if (this.#labels.size < 2) throw new RangeError('Expected examples of at least two labels.');
  }

  get labels(): string[] {
    return [...this.#labels.keys()];
  }

  classify(text: string): Classification {
    const words = wordsOf(text).filter((word) => this.#vocabulary.has(word));
    const scores = [...this.#labels].map(([label, counts]) => ({
      label,
      counts,
      score: words.reduce((sum, word) => sum + this.#logLikelihood(counts, word), 0),
    }));
    const [best] = scores.toSorted((a, b) => b.score - a.score);
    // Relative to the best one, a likelihood cannot underflow.
    const sum = scores.reduce((total, { score }) => total + Math.exp(score - best!.score), 0);
    return { label: best!.label, probability: 1 / sum, words: this.#telling(best!.counts, words) };
  }

  #learn(label: string, text: string): void {
    let counts = this.#labels.get(label);
    if (counts === undefined) this.#labels.set(label, (counts = { words: new Map(), total: 0 }));
    for (const word of wordsOf(text)) {
      this.#vocabulary.add(word);
      counts.words.set(word, (counts.words.get(word) ?? 0) + 1);
      counts.total += 1;
    }
  }

  #logLikelihood({ words, total }: Counts, word: string): number {
    return Math.log(((words.get(word) ?? 0) + 1) / (total + this.#vocabulary.size));
  }

  /** The words that are more likely under these counts than under all labels on average. */
  #telling(counts: Counts, words: readonly string[]): string[] {
    const all = [...this.#labels.values()];
    const weigh = (word: string): number =>
      this.#logLikelihood(counts, word) -
      all.reduce((sum, other) => sum + this.#logLikelihood(other, word), 0) / all.length;
    return [...new Set(words)]
      .map((word) => ({ word, weight: weigh(word) }))
      .filter(({ weight }) => weight > 0)
      .toSorted((a, b) => b.weight - a.weight)
      .slice(0, MAX_WORDS)
      .map(({ word }) => word);
  }
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/\p{L}[\p{L}\p{N}]*/gu) ?? [];
}
