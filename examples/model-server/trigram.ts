/** What an answer starts from, and how freely it wanders. */
export interface GenerateOptions {
  /** The answer begins with the rarest word of this text that the model knows, if it knows one. */
  readonly about: string;
  /** Any string. The same string, with the same options, gives the same answer. */
  readonly seed: string;
  /** 0 takes the most frequent continuation, 1 (the default) samples as trained, 2 is nearly flat. */
  readonly temperature?: number;
  /** An answer that ends earlier goes on with another paragraph. Default 0. */
  readonly minTokens?: number;
}

/** How often each token followed. */
type Followers = Map<number, number>;

/** Stands before and after every paragraph. */
const EDGE = 0;

/** Shorter words say little about a question. */
const MIN_TOPIC_LENGTH = 4;

/** Ids stay below this, so that a pair of them is one safe integer. */
const MAX_VOCABULARY = 2 ** 21;

const TOKEN = /(\s*)(`[^`]+`|[\p{L}\p{N}]+(?:['’._/:@-]+[\p{L}\p{N}]+)*|\S)/gu;

/**
 * A word-level trigram model: each token is drawn from those that followed the two before it in
 * the texts it was trained on. A token carries the space in front of it, as in the vocabularies
 * of large models, so that tokens joined together are properly spaced text.
 *
 * Training is linear in the text, a drawn token in the number of its possible followers.
 */
export class TrigramModel {
  readonly #tokens: string[] = [''];
  readonly #ids = new Map<string, number>();
  readonly #occurrences: number[] = [0];
  /** Lower-case word to the id of its most frequent spelling. */
  readonly #spellings = new Map<string, number>();
  readonly #afterOne = new Map<number, Followers>();
  readonly #afterTwo = new Map<number, Followers>();

  /** @param paragraphs plain prose; each is learnt from its first word to its end. */
  constructor(paragraphs: Iterable<string>) {
    for (const paragraph of paragraphs) this.#learn(paragraph);
    if (this.#tokens.length === 1) throw new RangeError('Expected `paragraphs` to hold a word.');
    for (const [token, id] of this.#ids) {
      const word = wordOf(token);
      const rival = this.#spellings.get(word);
      if (rival === undefined || this.#count(id) > this.#count(rival)) {
        this.#spellings.set(word, id);
      }
    }
  }

  /** Number of different tokens. */
  get vocabulary(): number {
    return this.#tokens.length - 1;
  }

  /** Tokens of one answer, without end only if every continuation leads in a circle. */
  *generate(options: GenerateOptions): Generator<string, void, void> {
    const { about, seed, temperature = 1, minTokens = 0 } = options;
    const random = mulberry32(fnv1a(seed));
    let before = EDGE;
    let last = this.#topic(about);
    if (last === EDGE) last = this.#draw(EDGE, EDGE, temperature, random);

    yield capitalise(this.#text(last).trimStart());
    for (let count = 1; ; count += 1) {
      let next = this.#draw(before, last, temperature, random);
      if (next === EDGE) {
        if (count >= minTokens) return;
        last = EDGE;
        next = this.#draw(EDGE, EDGE, temperature, random);
      }
      yield this.#text(next);
      before = last;
      last = next;
    }
  }

  #learn(paragraph: string): void {
    let before = EDGE;
    let last = EDGE;
    // The first word gets its space too: it is the same token as in the middle of a sentence.
    for (const token of tokenize(` ${paragraph.trim()}`)) {
      const id = this.#idOf(token);
      this.#occurrences[id] = this.#count(id) + 1;
      this.#follow(before, last, id);
      before = last;
      last = id;
    }
    if (last !== EDGE) this.#follow(before, last, EDGE);
  }

  #follow(before: number, last: number, next: number): void {
    countIn(this.#afterTwo, before * MAX_VOCABULARY + last, next);
    countIn(this.#afterOne, last, next);
  }

  #idOf(token: string): number {
    const known = this.#ids.get(token);
    if (known !== undefined) return known;
    const id = this.#tokens.length;
    if (id >= MAX_VOCABULARY) throw new RangeError(`More than ${MAX_VOCABULARY} different words.`);
    this.#tokens.push(token);
    this.#occurrences.push(0);
    this.#ids.set(token, id);
    return id;
  }

  /** The rarest known word says most about a question; of equals the first. */
  #topic(about: string): number {
    let topic = EDGE;
    for (const word of tokenize(about).map(wordOf)) {
      const id = this.#spellings.get(word);
      if (id === undefined || word.length < MIN_TOPIC_LENGTH) continue;
      if (topic === EDGE || this.#count(id) < this.#count(topic)) topic = id;
    }
    return topic;
  }

  #draw(before: number, last: number, temperature: number, random: () => number): number {
    // A topic word was met in other company than at an edge: its followers stand in.
    const followers =
      this.#afterTwo.get(before * MAX_VOCABULARY + last) ?? this.#afterOne.get(last);
    return followers === undefined ? EDGE : sample(followers, temperature, random);
  }

  #text(id: number): string {
    return this.#tokens[id] ?? '';
  }

  #count(id: number): number {
    return this.#occurrences[id] ?? 0;
  }
}

/** Words, code spans and single marks, each with one space in front if there was any. */
export function tokenize(text: string): string[] {
  const tokens: string[] = [];
  for (const [, space, token = ''] of text.matchAll(TOKEN)) {
    const bare = token.length > 1 && token.startsWith('`') ? token.slice(1, -1) : token;
    tokens.push(space === '' ? bare : ` ${bare}`);
  }
  return tokens;
}

function countIn(table: Map<number, Followers>, key: number, next: number): void {
  let followers = table.get(key);
  if (followers === undefined) table.set(key, (followers = new Map()));
  followers.set(next, (followers.get(next) ?? 0) + 1);
}

/** Softmax over the logarithms of the counts. */
function sample(followers: Followers, temperature: number, random: () => number): number {
  const most = Math.max(...followers.values());
  // Relative to the most frequent one, a weight cannot overflow, and at 0 only the best is left.
  const weigh = (count: number): number =>
    count === most ? 1 : Math.exp(Math.log(count / most) / temperature);
  let total = 0;
  for (const count of followers.values()) total += weigh(count);
  let left = temperature === 0 ? 0 : random() * total;
  let drawn = EDGE;
  for (const [next, count] of followers) {
    drawn = next;
    left -= weigh(count);
    if (left < 0) break;
  }
  return drawn;
}

function wordOf(token: string): string {
  return token.trimStart().toLowerCase();
}

/** Plain words only: `maxWaiting` and `node:http` are spelt as they are. */
function capitalise(token: string): string {
  return /^\p{Ll}[\p{Ll}'’-]*$/u.test(token)
    ? token.charAt(0).toUpperCase() + token.slice(1)
    : token;
}

/** FNV-1a, 32 bits, over UTF-16 code units (Fowler, Noll, Vo; draft-eastlake-fnv). */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return hash >>> 0;
}

/** Tommy Ettinger's mulberry32: 32 bits of state, numbers in [0, 1). */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
