import { describe, expect, it } from 'vitest';

import { Line, type LineNode } from '../../src/internal/line.ts';

class Node implements LineNode<Node> {
  previous: Node | undefined;
  next: Node | undefined;
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
    // Who has left keeps no neighbours alive.
    const gone = nodes.filter(({ name }) => leaving.includes(name));
    expect(gone.flatMap(({ previous, next }) => [previous, next]).filter(Boolean)).toEqual([]);
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
    for (let node = line.last; node !== undefined; node = node.previous) back.push(node.name);
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
});
