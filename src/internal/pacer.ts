import { Alarm, type Time } from './time.ts';

const SLICE = 64;
const PAUSE_MS = 5;

/**
 * Spreads work that is not urgent and comes in floods, such as telling ten thousand waiting clients
 * their new places when one of them is served: at most 64 turns every 5 ms, in the order of coming.
 * As long as there are fewer, each has its turn at once.
 */
export class Pacer<T> {
  readonly #time: Time;
  readonly #turn: (subject: T) => void;
  readonly #alarm: Alarm;
  readonly #line = new Set<T>();
  #left = SLICE;

  constructor(time: Time, turn: (subject: T) => void) {
    this.#time = time;
    this.#turn = turn;
    this.#alarm = new Alarm(time, () => this.#next());
  }

  /** Gives the subject a turn, now or as soon as it may be; one that is in line already has one. */
  enter(subject: T): void {
    this.#line.add(subject);
    this.#serve();
  }

  #serve(): void {
    for (const subject of this.#line) {
      if (this.#left === 0) break;
      this.#left--;
      this.#line.delete(subject);
      this.#turn(subject);
    }
    if (this.#alarm.at === Infinity) this.#alarm.set(this.#time.now() + PAUSE_MS);
  }

  #next(): void {
    this.#left = SLICE;
    if (this.#line.size > 0) this.#serve();
  }
}
