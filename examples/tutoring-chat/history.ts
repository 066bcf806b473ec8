/** A question that was answered. */
export interface Exchange {
  readonly id: string;
  readonly question: string;
  readonly answer: string;
  /** When, as of ISO 8601. */
  readonly answeredAt: string;
}

/** Of each student, … */
const MAX_EXCHANGES = 20;
/** … and of all of them together: about 32 MB. */
const MAX_CHARACTERS = 16_777_216;

/** What each student asked and was told. Who has not asked for longest is forgotten first. */
export class History {
  /** In the order in which the students were answered last. */
  readonly #students = new Map<string, Exchange[]>();
  #characters = 0;

  /** The oldest first. */
  of(student: string | undefined): readonly Exchange[] {
    return (student !== undefined && this.#students.get(student)) || [];
  }

  add(student: string, exchange: Exchange): void {
    const exchanges = [...this.of(student), exchange];
    this.#characters += lengthOf(exchange);
    if (exchanges.length > MAX_EXCHANGES) this.#characters -= lengthOf(exchanges.shift()!);
    this.#students.delete(student);
    this.#students.set(student, exchanges);
    for (const [other, all] of this.#students) {
      if (this.#characters <= MAX_CHARACTERS) return;
      this.#students.delete(other);
      this.#characters -= all.reduce((sum, each) => sum + lengthOf(each), 0);
    }
  }

  toJSON(): [student: string, exchanges: readonly Exchange[]][] {
    return [...this.#students];
  }
}

function lengthOf({ id, question, answer, answeredAt }: Exchange): number {
  return id.length + question.length + answer.length + answeredAt.length;
}
