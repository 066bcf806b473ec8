import type { Depth, Sample, TrafficReport } from './traffic.ts';

const WIDTH = 860;
const LEFT = 60;
const RIGHT = 20;
const PANEL = 200;
const GAP = 60;
const TOP = 50;
const HEIGHT = TOP + PANEL + GAP + PANEL + 50;

const INK = '#24292f';
const FAINT = '#d0d7de';
const GOOD = '#0969da';
const BAD = '#cf222e';
const WAITING = '#bc4c00';
const CALLS = '#57606a';

interface Panel {
  readonly top: number;
  readonly title: string;
  readonly max: number;
  readonly unit: string;
}

/** An SVG image of two panels over the time of the run: how long each answer took, and the lines. */
export function chartOf({ samples, depths, elapsedMs, ...report }: TrafficReport): string {
  const seconds = Math.max(1, Math.ceil(elapsedMs / 1000));
  const latency: Panel = {
    top: TOP,
    title: `Seconds to an answer, of ${report.requests} documents, ${report.concurrency} at a time`,
    max: niceAbove(Math.max(...samples.map(({ latencyMs }) => latencyMs / 1000), 0)),
    unit: ' s',
  };
  const depth: Panel = {
    top: TOP + PANEL + GAP,
    title: 'Documents and calls of the model',
    max: niceAbove(Math.max(...depths.map(({ active, waiting }) => Math.max(active, waiting)), 1)),
    unit: '',
  };
  const x = (ms: number): number => round(LEFT + (ms / 1000 / seconds) * (WIDTH - LEFT - RIGHT));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12" fill="${INK}">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    ...frameOf(latency, seconds, x),
    ...samples.map((sample) => dotOf(sample, latency, x)),
    ...legendOf(latency.top, [
      ['answered', GOOD],
      ['refused or failed', BAD],
    ]),
    ...frameOf(depth, seconds, x),
    lineOf(depths, 'waiting', WAITING, depth, x),
    lineOf(depths, 'active', GOOD, depth, x),
    lineOf(depths, 'calls', CALLS, depth, x),
    ...legendOf(depth.top, [
      ['in line', WAITING],
      ['worked on', GOOD],
      ['calls', CALLS],
    ]),
    '</svg>',
    '',
  ].join('\n');
}

function frameOf(panel: Panel, seconds: number, x: (ms: number) => number): string[] {
  const bottom = panel.top + PANEL;
  const rows = [0, 0.25, 0.5, 0.75, 1].map((part) => {
    const y = round(bottom - part * PANEL);
    return (
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}" stroke="${FAINT}"/>` +
      `<text x="${LEFT - 8}" y="${y + 4}" text-anchor="end">${part * panel.max}${panel.unit}</text>`
    );
  });
  const step = Math.max(1, Math.ceil(seconds / 10));
  const columns = Array.from({ length: Math.floor(seconds / step) + 1 }, (_, index) => {
    const at = index * step;
    return `<text x="${x(at * 1000)}" y="${bottom + 18}" text-anchor="middle">${at} s</text>`;
  });
  const title = `<text x="${LEFT}" y="${panel.top - 14}" font-weight="bold">${panel.title}</text>`;
  return [title, ...rows, ...columns];
}

function legendOf(top: number, entries: readonly (readonly [string, string])[]): string[] {
  return entries.map(([name, colour], index) => {
    const left = WIDTH - RIGHT - (entries.length - index) * 120;
    return (
      `<rect x="${left}" y="${top - 23}" width="10" height="10" fill="${colour}"/>` +
      `<text x="${left + 15}" y="${top - 14}">${name}</text>`
    );
  });
}

/** Where it was answered. */
function dotOf(
  { startedMs, latencyMs, status }: Sample,
  panel: Panel,
  x: (ms: number) => number,
): string {
  const colour = status === 200 ? GOOD : BAD;
  const y = yOf(latencyMs / 1000, panel);
  return `<circle cx="${x(startedMs + latencyMs)}" cy="${y}" r="2.5" fill="${colour}" fill-opacity="0.6"/>`;
}

function lineOf(
  depths: readonly Depth[],
  figure: 'active' | 'waiting' | 'calls',
  colour: string,
  panel: Panel,
  x: (ms: number) => number,
): string {
  const points = depths.map((depth) => `${x(depth.atMs)},${yOf(depth[figure], panel)}`).join(' ');
  return `<polyline points="${points}" fill="none" stroke="${colour}" stroke-width="2"/>`;
}

function yOf(value: number, { top, max }: Panel): number {
  return round(top + PANEL - (value / max) * PANEL);
}

/** The next number of the form 1, 2, 4 or 8 times a power of ten: a quarter of it is a short one too. */
function niceAbove(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 0.1)));
  return [1, 2, 4, 8, 10].map((factor) => factor * power).find((nice) => nice >= value)!;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
