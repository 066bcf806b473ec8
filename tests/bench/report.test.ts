import { describe, expect, it } from 'vitest';

import { barsOf, chartsOf, linesOf } from '../../bench/report/charts.ts';
import { digits, pageOf, type Subject } from '../../bench/report/page.ts';

const MACHINE = { processor: '2 x Some CPU', memoryGiB: 8, node: 'v24.0.0', platform: 'linux x64' };

const SUBJECTS: Subject[] = [
  {
    name: 'admission-queue',
    sections: [
      {
        title: '100 tasks through a limit of 10, ms',
        figures: [
          { name: 'sluice', value: 12.345, unit: 'ms' },
          { name: 'a < b & "c"', value: 10, unit: 'ms' },
        ],
        verdicts: [
          { what: 'to the other', got: 1.2345, atMost: 1.3 },
          { what: 'to the fastest', got: 2, atMost: 0.5 },
        ],
        notes: ['Half of it is garbage.'],
      },
      {
        title: 'growth: ns per task',
        figures: [
          { name: 'sluice, 1000 waiting', value: 100, unit: 'ns' },
          { name: 'sluice, 100000 waiting', value: 200, unit: 'ns' },
          { name: 'other, 1000 waiting', value: 50, unit: 'ns' },
        ],
        verdicts: [],
        notes: [],
      },
    ],
  },
];

describe('pageOf()', () => {
  const page = pageOf(SUBJECTS, MACHINE, chartsOf(SUBJECTS));

  it('says of each goal whether it was met, and of all how many were', () => {
    expect(page).toContain('| to the other | 1.23 | 1.3 | met |');
    expect(page).toContain('| to the fastest | 2 | 0.5 | **missed** |');
    expect(page).toContain('1 of 2 goals were met');
  });

  it('shows every figure with its unit, the notes and the machine', () => {
    expect(page).toContain('| sluice | 12.3 ms |');
    expect(page).toContain('\nHalf of it is garbage.\n');
    expect(page).toContain('2 x Some CPU, 8 GiB, linux x64, Node v24.0.0');
  });

  it('shows the charts of what was measured, and none of what was not', () => {
    expect([...page.matchAll(/\(images\/(.*)\)/g)].map(([, file]) => file)).toEqual([
      'bench-admission-queue.svg',
      'bench-growth.svg',
    ]);
  });
});

describe('digits()', () => {
  it.each([
    [0.08812, '0.0881'],
    [1.2, '1.2'],
    [99.94, '99.9'],
    [1234567.8, '1,234,568'],
  ])('writes %d as %s', (value, text) => {
    expect(digits(value)).toBe(text);
  });
});

describe('barsOf()', () => {
  it('draws bars in proportion, ours in a colour of their own, and names that are no markup', () => {
    const svg = barsOf('a title', SUBJECTS[0]!.sections[0]!.figures);
    const bars = [...svg.matchAll(/<rect x="230".*? width="([\d.]+)".*? fill="(#\w+)"/g)];
    expect(Number(bars[1]![1]) / Number(bars[0]![1])).toBeCloseTo(10 / 12.345, 2);
    expect(bars[0]![2]).not.toBe(bars[1]![2]);
    expect(svg).toContain('a &lt; b &amp; &quot;c&quot;');
  });
});

describe('linesOf()', () => {
  it('draws equal factors as equal distances, and twice as much twice as high', () => {
    const points: [number, number][] = [
      [10, 1],
      [100, 2],
      [1000, 4],
    ];
    const svg = linesOf('a title', 'waiting', 'ns', [{ name: 'one', points }]);
    const drawn = /<polyline points="([^"]+)"/.exec(svg)![1]!.split(' ');
    const [a, b, c] = drawn.map((point) => point.split(',').map(Number));
    expect(b![0]! - a![0]!).toBeCloseTo(c![0]! - b![0]!, 0);
    const floor = 48 + 220;
    expect((floor - c![1]!) / (floor - b![1]!)).toBeCloseTo(2, 1);
  });
});
