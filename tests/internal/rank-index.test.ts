import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { Line, type Slotted } from '../../src/internal/line.ts';
import { RankIndex } from '../../src/internal/rank-index.ts';

class Node implements Slotted {
  slot = 0;
}

function filled(length: number): { line: Line<Node>; nodes: Node[]; ranks: RankIndex<Node> } {
  const line = new Line<Node>();
  const nodes = Array.from({ length }, () => new Node());
  for (const node of nodes) line.push(node);
  return { line, nodes, ranks: new RankIndex(line) };
}

describe('RankIndex', () => {
  it.each([0, 1, 31, 32, 33, 63, 64, 65, 1000, 4096, 5000])(
    'ranks a line of %i as it stands, and has room for as many again',
    (length) => {
      const { line, nodes, ranks } = filled(length);
      expect(nodes.map((node) => ranks.rank(node))).toEqual(nodes.map((_, index) => index));
      for (let i = 0; i < length; i++) {
        const node = new Node();
        line.push(node);
        expect(ranks.append(node)).toBe(true);
        expect(ranks.rank(node)).toBe(length + i);
      }
    },
  );

  test.prop([
    fc.integer({ min: 0, max: 300 }),
    fc.array(fc.nat(), { maxLength: 300, size: 'max' }),
  ])('stays right whoever leaves, until it has no bits left, and says so', (length, steps) => {
    const { line, nodes, ranks } = filled(length);
    for (const step of steps) {
      if (step % 2 === 0 && nodes.length > 0) {
        const [node] = nodes.splice(step % nodes.length, 1);
        ranks.remove(node!);
        // The line has packed itself: the owner makes a new index.
        if (line.remove(node!)) return;
      } else {
        const node = new Node();
        line.push(node);
        if (!ranks.append(node)) return;
        nodes.push(node);
      }
      expect(nodes.map((node) => ranks.rank(node))).toEqual(nodes.map((_, index) => index));
    }
  });

  it('refuses who comes when all bits have been used, empty slots too', () => {
    const { line, nodes, ranks } = filled(10);
    for (const node of nodes.slice(1)) ranks.remove(node);
    let room = 0;
    for (;;) {
      const node = new Node();
      line.push(node);
      if (!ranks.append(node)) break;
      room++;
      expect(ranks.rank(node)).toBe(room);
      if (room > 10_000) break;
    }
    expect(room).toBeGreaterThanOrEqual(10);
    expect(room).toBeLessThan(1000);
  });

  it.each([
    [1, 0, 64],
    [32, 0, 64],
    [33, 0, 128],
    [64, 0, 128],
    [65, 0, 256],
    [5000, 4970, 64],
  ])(
    'has bits for twice the slots that are spanned, up to a power of two: %i less %i',
    (length, gone, bits) => {
      const { line, nodes } = filled(length);
      for (const node of nodes.slice(0, gone)) line.remove(node);
      const ranks = new RankIndex(line);
      let used = length - gone;
      for (; used < 1000; used++) {
        const node = new Node();
        line.push(node);
        if (!ranks.append(node)) break;
      }
      expect(used).toBe(bits);
    },
  );

  it.each([
    [50, 20],
    [5000, 4970],
  ])('counts from the first in the line, wherever that is: %i less %i', (length, gone) => {
    const { line, nodes } = filled(length);
    for (const node of nodes.slice(0, gone)) line.remove(node);
    const ranks = new RankIndex(line);
    expect(nodes.slice(gone).map((node) => ranks.rank(node))).toEqual([...Array(30).keys()]);
    ranks.remove(nodes[gone + 7]!);
    expect([7, 8, 29].map((at) => ranks.rank(nodes[gone + at]!))).toEqual([7, 7, 28]);
  });
});
