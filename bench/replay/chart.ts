import type { Outcome } from './outcome.ts';
import { percentile, type Run, waitOf } from './report.ts';

const WIDTH = 860;
const LEFT = 62;
const RIGHT = 16;
const PANEL = 190;
const TOPS = [44, 292];
const HEIGHT = 530;
/** So many points has a line. */
const BUCKETS = 120;

const INK = '#1d2226';
const SOFT = '#5a6268';
const EDGE = '#dedbd2';
const COLOURS = { median: '#17695c', most: '#c2772b', announced: '#7a5ea8', refused: '#a33a1f' };
const AREAS = { waiting: '#8fc7ba', active: '#17695c' };

type Point = readonly [x: number, y: number | undefined];

/** The waits, told and true, and how full everything was, over the time of a run, as SVG. */
export function chartOf({ outcomes, concurrency }: Run, title: string): string {
  const endMs = Math.max(...outcomes.map(({ endedAt }) => endedAt));
  const buckets = bucketsOf(outcomes, endMs);
  const at = (index: number): number => ((index + 0.5) / BUCKETS) * endMs;
  const waits = (percent: number): Point[] =>
    buckets.map((bucket, index) => [
      at(index),
      percentile(
        bucket.flatMap((each) => waitOf(each) ?? []),
        percent,
      ),
    ]);
  const announced = buckets.map((bucket, index): Point => {
    const told = bucket.flatMap((each) => each.announced?.waitMs ?? []);
    return [at(index), percentile(told, 50)];
  });
  const lines = { most: waits(95), median: waits(50), announced };
  const topMs = niceTop(Math.max(1, ...Object.values(lines).flatMap(ysOf)));
  const upper = new Panel(TOPS[0]!, endMs, topMs);

  const active = gaugeOf(outcomes, endMs, ({ startedAt, endedAt }) => [startedAt, endedAt]);
  const waiting = gaugeOf(outcomes, endMs, ({ result, sentAt, startedAt, endedAt }) =>
    result === 'refused' ? [undefined, 0] : [sentAt, startedAt ?? endedAt],
  );
  const all = active.map(([x, y], index): Point => [x, y! + waiting[index]![1]!]);
  const most = niceTop(Math.max(concurrency, ...ysOf(all)));
  const lower = new Panel(TOPS[1]!, endMs, most);
  const refused = outcomes.filter(({ result }) => result === 'refused');
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${title}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    upper.axes('time in line, by when a call was sent', (ms) => `${ms / 1000} s`),
    upper.line(lines.most, COLOURS.most),
    upper.line(lines.median, COLOURS.median),
    upper.line(lines.announced, COLOURS.announced, '4 3'),
    legend(TOPS[0]!, [
      ['p50', COLOURS.median],
      ['p95', COLOURS.most],
      ['announced at first, p50', COLOURS.announced],
    ]),
    lower.axes('calls', String),
    lower.area(all, AREAS.waiting),
    lower.area(active, AREAS.active),
    ...refused.map(({ sentAt }) => lower.mark(sentAt, COLOURS.refused)),
    legend(TOPS[1]!, [
      ['at the model', AREAS.active],
      ['in line', AREAS.waiting],
      ...(refused.length > 0 ? ([['refused', COLOURS.refused]] as const) : []),
    ]),
    '</svg>\n',
  ].join('\n');
}

/** One pair of axes and what is drawn between them. */
class Panel {
  readonly #top: number;
  readonly #endMs: number;
  readonly #most: number;

  constructor(top: number, endMs: number, most: number) {
    this.#top = top;
    this.#endMs = endMs;
    this.#most = most;
  }

  axes(title: string, label: (value: number) => string): string {
    const marks = [0, 0.5, 1].map((share) => {
      const y = this.#y(share * this.#most);
      return (
        `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}" stroke="${EDGE}"/>` +
        `<text x="${LEFT - 8}" y="${y + 4}" text-anchor="end" fill="${SOFT}">${label(share * this.#most)}</text>`
      );
    });
    const times = [0, 0.25, 0.5, 0.75, 1].map((share) => {
      const ms = share * this.#endMs;
      const anchor = share === 0 ? 'start' : share === 1 ? 'end' : 'middle';
      return `<text x="${this.#x(ms)}" y="${this.#top + PANEL + 18}" text-anchor="${anchor}" fill="${SOFT}">${Math.round(ms / 1000)} s</text>`;
    });
    const name = `<text x="${LEFT}" y="${this.#top - 14}" font-weight="600" fill="${INK}">${title}</text>`;
    return [name, ...marks, ...times].join('\n');
  }

  line(points: readonly Point[], colour: string, dashes = 'none'): string {
    // A bucket without a value breaks the line.
    let path = '';
    let pen = 'M';
    for (const [x, y] of points) {
      if (y !== undefined) path += `${pen}${this.#x(x)},${this.#y(y)}`;
      pen = y === undefined ? 'M' : 'L';
    }
    return `<path d="${path}" fill="none" stroke="${colour}" stroke-width="1.5" stroke-dasharray="${dashes}"/>`;
  }

  area(points: readonly Point[], colour: string): string {
    const path = points.map(([x, y]) => `L${this.#x(x)},${this.#y(y!)}`).join('');
    const floor = this.#y(0);
    return `<path d="M${this.#x(points[0]![0])},${floor}${path}L${this.#x(points.at(-1)![0])},${floor}Z" fill="${colour}"/>`;
  }

  mark(ms: number, colour: string): string {
    const x = this.#x(ms);
    return `<line x1="${x}" x2="${x}" y1="${this.#top}" y2="${this.#top + 6}" stroke="${colour}" stroke-opacity="0.4"/>`;
  }

  #x(ms: number): string {
    return (LEFT + (ms / this.#endMs) * (WIDTH - LEFT - RIGHT)).toFixed(1);
  }

  #y(value: number): number {
    return Number((this.#top + PANEL - (value / this.#most) * PANEL).toFixed(1));
  }
}

function legend(top: number, entries: readonly (readonly [string, string])[]): string {
  let x = WIDTH - RIGHT;
  return entries
    .toReversed()
    .map(([name, colour]) => {
      x -= name.length * 6.4 + 26;
      return `<rect x="${x.toFixed(1)}" y="${top - 24}" width="10" height="10" rx="2" fill="${colour}"/><text x="${(x + 15).toFixed(1)}" y="${top - 15}" fill="${SOFT}">${name}</text>`;
    })
    .join('\n');
}

function bucketsOf(outcomes: readonly Outcome[], endMs: number): Outcome[][] {
  const buckets = Array.from({ length: BUCKETS }, (): Outcome[] => []);
  for (const each of outcomes) {
    buckets[Math.min(BUCKETS - 1, Math.floor((each.sentAt / endMs) * BUCKETS))]!.push(each);
  }
  return buckets;
}

/** How many calls were within their span at each of many moments. */
function gaugeOf(
  outcomes: readonly Outcome[],
  endMs: number,
  spanOf: (outcome: Outcome) => readonly [from: number | undefined, to: number],
): Point[] {
  const spans = outcomes.map(spanOf);
  return Array.from({ length: 4 * BUCKETS + 1 }, (_, index): Point => {
    const ms = (index / (4 * BUCKETS)) * endMs;
    const within = spans.filter(([from, to]) => from !== undefined && from <= ms && ms < to);
    return [ms, within.length];
  });
}

function ysOf(points: readonly Point[]): number[] {
  return points.flatMap(([, y]) => y ?? []);
}

/** The next number that is round. */
function niceTop(value: number): number {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((times) => times * unit).find((top) => top >= value)!;
}
