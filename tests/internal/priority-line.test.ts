import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import {
  MAX_PRIORITIES,
  PriorityLine,
  type PriorityNode,
} from '../../src/internal/priority-line.ts';

class Node implements PriorityNode {
  slot = 0;
  priority: number;
  readonly at: number;

  constructor(priority: number, at: number) {
    this.priority = priority;
    this.at = at;
  }
}

const kind = fc.constantFrom('push', 'push', 'push', 'shift', 'remove', 'insert', 'move', 'ask');
const step = fc.record({
  kind,
  priority: fc.integer({ min: 1, max: MAX_PRIORITIES }),
  which: fc.nat(),
});

describe('PriorityLine', () => {
  test.prop([fc.array(step, { maxLength: 400, size: 'max' }), fc.integer({ min: 1, max: 32 })], {
    numRuns: 60,
  })('is a sorted array, with an index of every age', (steps, priorities) => {
    const line = new PriorityLine<Node>(priorities);
    const right: Node[] = [];
    let now = 0;
    const place = (node: Node): void => {
      const behind = right.findIndex(
        (other) =>
          other.priority > node.priority ||
          (other.priority === node.priority && other.at > node.at),
      );
      right.splice(behind === -1 ? right.length : behind, 0, node);
    };
    const take = (index: number): Node => {
      const [node] = right.splice(index, 1);
      line.remove(node!);
      return node!;
    };
    for (const { kind: what, priority: wanted, which } of steps) {
      const priority = ((wanted - 1) % priorities) + 1;
      now++;
      if (what === 'push') {
        const node = new Node(priority, now);
        place(node);
        line.push(node);
      } else if (what === 'insert') {
        const node = new Node(priority, which % now);
        place(node);
        line.insert(node, (other) => other.at > node.at);
      } else if (right.length > 0 && what === 'shift') {
        expect(line.head).toBe(right[0]);
        take(0);
      } else if (right.length > 0 && what === 'remove') {
        take(which % right.length);
      } else if (right.length > 0 && what === 'move') {
        take(which % right.length);
        const moved = new Node(priority, now);
        place(moved);
        line.push(moved);
      } else if (what === 'ask') {
        expect(right.map((node) => line.position(node))).toEqual(right.map((_, i) => i + 1));
      }
      expect(line.length).toBe(right.length);
      expect(line.head).toBe(right[0]);
      const below = right.at(-1);
      expect(line.lastBelow(priority)).toBe(
        below !== undefined && below.priority > priority ? below : undefined,
      );
    }
    expect([...line]).toEqual(right);
    expect(right.map((node) => line.position(node))).toEqual(right.map((_, i) => i + 1));
  });

  it('knows positions when it has grown, shrunk and been empty since it was asked first', () => {
    const line = new PriorityLine<Node>(1);
    let right: Node[] = [];
    const join = (count: number): void => {
      for (let i = 0; i < count; i++) {
        const node = new Node(1, 0);
        line.push(node);
        right.push(node);
      }
    };
    const leave = (from: number, to: number): void => {
      for (const node of right.slice(from, to)) line.remove(node);
      right = right.toSpliced(from, to - from);
    };
    const ask = (): void => {
      expect(right.map((node) => line.position(node))).toEqual(right.map((_, i) => i + 1));
    };
    join(50);
    leave(0, 20);
    ask();
    // More than an index has bits for, with and without a question in between.
    join(300);
    ask();
    join(1000);
    ask();
    // So many that those who are left get new slots.
    leave(10, 1300);
    ask();
    leave(0, right.length);
    join(3);
    ask();
  });

  it('finds the head and the last in every one of 32 priorities', () => {
    const line = new PriorityLine<Node>(MAX_PRIORITIES);
    const nodes = Array.from({ length: MAX_PRIORITIES }, (_, i) => new Node(i + 1, 0));
    for (const node of nodes.toReversed()) line.push(node);
    for (const node of nodes) {
      expect(line.head).toBe(node);
      expect(line.lengthOf(node.priority)).toBe(1);
      expect(line.lastBelow(1)).toBe(
        node.priority < 32 || nodes.length > 1 ? nodes[31] : undefined,
      );
      line.remove(node);
    }
    expect([line.head, line.lastBelow(1), line.length]).toEqual([undefined, undefined, 0]);
  });
});
