import { digits, type Chart, type Subject } from './page.ts';

const INK = '#1d2226';
const SOFT = '#5a6268';
const EDGE = '#dedbd2';
const OURS = '#17695c';
const PEER = '#c9c4b6';
const COLOURS = [OURS, '#c2772b', '#7a5ea8', '#a33a1f'];

const WIDTH = 720;
const ROW = 26;

interface Bar {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
}

type Point = readonly [x: number, y: number];

interface Series {
  readonly name: string;
  readonly points: readonly Point[];
}

/** Which sections are drawn, by the beginning of their titles, and whether less of it is better. */
const BARS = [
  {
    subject: 'semaphore',
    title: /through a limit/,
    file: 'bench-semaphore.svg',
    better: 'shorter',
  },
  {
    subject: 'admission-queue',
    title: /through a limit/,
    file: 'bench-admission-queue.svg',
    better: 'shorter',
  },
  { subject: 'streams', title: /as fast as/, file: 'bench-streams.svg', better: 'longer' },
] as const;

const GROWTH = { subject: 'admission-queue', title: /^growth/, file: 'bench-growth.svg' };

export function chartsOf(subjects: readonly Subject[]): Chart[] {
  const charts: Chart[] = [];
  for (const { subject, title, file, better } of BARS) {
    const section = sectionsOf(subjects, subject).find((each) => title.test(each.title));
    if (section === undefined) continue;
    const heading = `${section.title} (${better} is better)`;
    charts.push({ file, title: heading, svg: barsOf(heading, section.figures) });
  }
  const growth = sectionsOf(subjects, GROWTH.subject).find((each) => GROWTH.title.test(each.title));
  if (growth !== undefined) {
    const series = seriesOf(growth.figures);
    charts.push({
      file: GROWTH.file,
      title: growth.title,
      svg: linesOf(growth.title, 'waiting', 'ns', series),
    });
  }
  return charts;
}

function sectionsOf(subjects: readonly Subject[], name: string): Subject['sections'] {
  return subjects.find((subject) => subject.name === name)?.sections ?? [];
}

/** Figures that are named `somebody, 1000 waiting` are points of the line of somebody. */
function seriesOf(figures: readonly Bar[]): Series[] {
  const points = new Map<string, Point[]>();
  for (const { name, value } of figures) {
    const [, who, count] = /^(.*), (\d+) waiting$/.exec(name) ?? [];
    if (who === undefined) continue;
    points.set(who, [...(points.get(who) ?? []), [Number(count), value]]);
  }
  return [...points].map(([who, its]) => ({ name: who, points: its }));
}

/** Horizontal bars, one below the other; ours stand out. */
export function barsOf(title: string, bars: readonly Bar[]): string {
  const left = 230;
  const right = 110;
  const most = Math.max(...bars.map(({ value }) => value));
  const height = 52 + bars.length * ROW;
  const rows = bars.map(({ name, value, unit }, index) => {
    const y = 44 + index * ROW;
    const width = Math.max(1, (value / most) * (WIDTH - left - right));
    const colour = name.startsWith('sluice') ? OURS : PEER;
    return (
      text(left - 10, y + 13, name, 'end', INK) +
      `<rect x="${left}" y="${y}" width="${width.toFixed(1)}" height="18" rx="2" fill="${colour}"/>` +
      text(left + width + 8, y + 13, `${digits(value)} ${unit}`, 'start', SOFT)
    );
  });
  const described = bars.map(({ name, value, unit }) => `${name}: ${digits(value)} ${unit}`);
  return svg(title, described.join('; '), height, rows);
}

/** Lines over a logarithmic axis of counts, from 0 upwards. */
export function linesOf(
  title: string,
  xName: string,
  unit: string,
  series: readonly Series[],
): string {
  const [left, right, top, panel] = [80, 170, 48, 220];
  const xs = [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))];
  xs.sort((a, b) => a - b);
  const [least, last] = [Math.log10(xs[0]!), Math.log10(xs.at(-1)!)];
  const most = Math.max(...series.flatMap(({ points }) => points.map(([, y]) => y)));
  const xAt = (x: number): number =>
    left + ((Math.log10(x) - least) / Math.max(last - least, 1e-9)) * (WIDTH - left - right);
  const yAt = (y: number): number => top + panel - (y / most) * panel;
  const grid = [0, 0.5, 1].map(
    (share) =>
      `<line x1="${left}" x2="${WIDTH - right}" y1="${yAt(share * most).toFixed(1)}" y2="${yAt(share * most).toFixed(1)}" stroke="${EDGE}"/>` +
      text(left - 8, yAt(share * most) + 4, `${digits(share * most)} ${unit}`, 'end', SOFT),
  );
  const ticks = xs.map((x) =>
    text(xAt(x), top + panel + 20, `${x.toLocaleString('en')} ${xName}`, 'middle', SOFT),
  );
  const lines = series.map(({ name, points }, index) => {
    const colour = COLOURS[index % COLOURS.length]!;
    const path = points.map(([x, y]) => `${xAt(x).toFixed(1)},${yAt(y).toFixed(1)}`).join(' ');
    const [endX, endY] = points.at(-1)!;
    return (
      `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>` +
      points.map(([x, y]) => dot(xAt(x), yAt(y), colour)).join('') +
      text(xAt(endX) + 10, yAt(endY) + 4, name, 'start', colour)
    );
  });
  const described = series.map(
    ({ name, points }) =>
      `${name}: ${points.map(([x, y]) => `${digits(y)} ${unit} at ${x}`).join(', ')}`,
  );
  return svg(title, described.join('; '), top + panel + 40, [...grid, ...ticks, ...lines]);
}

function dot(x: number, y: number, colour: string): string {
  return `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="3" fill="${colour}"/>`;
}

function text(x: number, y: number, what: string, anchor: string, colour: string): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" fill="${colour}">${escaped(what)}</text>`;
}

function svg(
  title: string,
  description: string,
  height: number,
  content: readonly string[],
): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-labelledby="title desc">`,
    `  <title id="title">${escaped(title)}</title>`,
    `  <desc id="desc">${escaped(description)}</desc>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="16" y="24" font-weight="600" fill="${INK}">${escaped(title)}</text>`,
    ...content,
    '</svg>\n',
  ].join('\n');
}

function escaped(what: string): string {
  return what.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
