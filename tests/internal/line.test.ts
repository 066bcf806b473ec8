import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { Line, type Slotted } from '../../src/internal/line.ts';

class Node implements Slotted {
  slot = 0;
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

function lineOf(names: string): { line: Line<Node>; nodes: Node[] } {
  const line = new Line<Node>();
  const nodes = names.split('').map((name) => new Node(name));
  for (const node of nodes) line.push(node);
  return { line, nodes };
}

function order(line: Line<Node>): string {
  return [...line].map(({ name }) => name).join('');
}

describe('Line', () => {
  it('is in the order in which nodes join', () => {
    const { line } = lineOf('abc');
    expect([order(line), line.length, line.first?.name, line.last?.name]).toEqual([
      'abc',
      3,
      'a',
      'c',
    ]);
  });

  it.each([
    ['a', 'bc'],
    ['b', 'ac'],
    ['c', 'ab'],
    ['ab', 'c'],
    ['cba', ''],
    ['bca', ''],
  ])('lets %s leave, and keeps %s', (leaving, left) => {
    const { line, nodes } = lineOf('abc');
    for (const name of leaving) line.remove(nodes.find((node) => node.name === name)!);
    expect([order(line), line.length]).toEqual([left, left.length]);
    expect([line.first?.name, line.last?.name]).toEqual([left.at(0), left.at(-1)]);
    expect(nodes.map((node) => line.has(node) !== leaving.includes(node.name))).not.toContain(
      false,
    );
    line.push(new Node('z'));
    expect(order(line)).toBe(`${left}z`);
  });

  it.each([
    [0, 'zabc'],
    [1, 'azbc'],
    [2, 'abzc'],
  ])('takes a node in front of number %s', (index, right) => {
    const { line, nodes } = lineOf('abc');
    line.insertBefore(nodes[index]!, new Node('z'));
    expect([order(line), line.length]).toEqual([right, 4]);
    // Both ways.
    const back: string[] = [];
    for (let node = line.last; node !== undefined; node = line.before(node)) back.push(node.name);
    expect(back.toReversed().join('')).toBe(right);
  });

  it('can be gone through while the one that is shown leaves', () => {
    const { line } = lineOf('abcd');
    const shown: string[] = [];
    for (const node of line) {
      shown.push(node.name);
      line.remove(node);
    }
    expect([shown.join(''), line.length]).toEqual(['abcd', 0]);
  });

  it('shows nobody who has left before its turn', () => {
    const { line, nodes } = lineOf('abcd');
    const shown: string[] = [];
    for (const node of line) {
      shown.push(node.name);
      if (node.name === 'b') line.remove(nodes[2]!);
    }
    expect(shown.join('')).toBe('abd');
  });

  it.each([
    ['', true],
    ['a', true],
    ['ab', true],
    ['d', true],
    ['ad', true],
    ['ba', true],
    ['abc', true],
    ['abcd', true],
    ['b', false],
    ['bc', false],
    ['ac', false],
    ['bd', false],
  ])('has no gaps where nobody is left on both sides of one who has left: %s', (leaving, right) => {
    const { line, nodes } = lineOf('abcd');
    for (const name of leaving) line.remove(nodes.find((node) => node.name === name)!);
    expect(line.gapless).toBe(right);
    line.push(new Node('z'));
    expect(line.gapless).toBe(right);
  });

  // Long enough that empty slots are packed and dropped many times over.
  test.prop([
    fc.array(
      fc.oneof(
        { weight: 3, arbitrary: fc.constant('push' as const) },
        { weight: 2, arbitrary: fc.constant('shift' as const) },
        { weight: 2, arbitrary: fc.nat() },
        { weight: 1, arbitrary: fc.nat().map((at) => ({ at })) },
        {
          weight: 2,
          arbitrary: fc.constantFrom('many' as const, 'serve many' as const, 'thin' as const),
        },
      ),
      { maxLength: 60, size: 'max' },
    ),
  ])('is an array from which anybody may leave (H209)', (steps) => {
    const line = new Line<Node>();
    const model: Node[] = [];
    const leave = (index: number): void => {
      const [node] = model.splice(index, 1);
      const slots = model.map(({ slot }) => slot);
      if (line.remove(node!)) return;
      if (model.some(({ slot }, i) => slot !== slots[i])) throw new Error('Moved unsaid.');
    };
    const join = (): void => {
      const node = new Node('');
      line.push(node);
      model.push(node);
    };
    for (const step of steps) {
      if (step === 'push') join();
      else if (step === 'many') for (let i = 0; i < 150; i++) join();
      else if (model.length === 0) continue;
      else if (step === 'shift') leave(0);
      else if (step === 'serve many') for (let i = 0; i < 120 && model.length > 0; i++) leave(0);
      else if (step === 'thin') {
        for (let i = model.length - 1; i >= 0; i--) if (i % 5 > 0) leave(i);
      } else if (typeof step === 'number') leave(step % model.length);
      else {
        const node = new Node('');
        const index = step.at % model.length;
        line.insertBefore(model[index]!, node);
        model.splice(index, 0, node);
      }
      expect([...line]).toEqual(model);
      expect([line.length, line.first, line.last]).toEqual([model.length, model[0], model.at(-1)]);
      expect(line.gapless).toBe(model.every(({ slot }, i) => slot === model[0]!.slot + i));
      expect(model.slice(0, 9).map((node) => line.before(node))).toEqual(
        model.slice(0, 9).map((_, index) => model[index - 1]),
      );
    }
  });

  it('packs itself when most of its slots are empty, and gives new ones then', () => {
    const { line, nodes } = lineOf('a'.repeat(1000));
    const moved = nodes.filter((_, i) => i % 10 > 0).filter((node) => line.remove(node));
    expect(moved.length).toBeGreaterThan(0);
    expect(nodes.filter((_, i) => i % 10 === 0).map(({ slot }) => slot)).not.toContain(990);
  });

  it.each([
    // How many there are, and how many leave from the middle before the rest moves together.
    [65, 33],
    [66, 34],
    [101, 51],
  ])('packs itself when more than half of %i slots are empty, not before', (length, leave) => {
    const { line, nodes } = lineOf('a'.repeat(length));
    const leaving = nodes.slice(1, 1 + leave);
    const moved = leaving.map((node) => line.remove(node));
    expect(moved).toEqual([...Array(leave - 1).fill(false), true]);
    expect([...line].map(({ slot }) => slot)).toEqual([...Array(length - leave).keys()]);
  });

  it('gives no new slots to few, nor for those who have left in their turn', () => {
    const few = lineOf('a'.repeat(64));
    const many = lineOf('a'.repeat(1000));
    const left = [
      ...few.nodes.slice(1, -1).map((node) => few.line.remove(node)),
      ...many.nodes.map((node) => many.line.remove(node)),
    ];
    expect(left).not.toContain(true);
    expect(few.nodes[63]!.slot).toBe(63);
  });

  it('keeps no room for those who have left, however long somebody waits (H235)', () => {
    const { line } = lineOf('a');
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 400_000; i++) {
      line.push(new Node(''));
      line.remove(line.first!);
    }
    collect();
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(2_000_000);
    expect(line.length).toBe(1);
  });
});
