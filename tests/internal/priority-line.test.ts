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

/** Counts how often somebody looks at a slot. */
class Watched implements PriorityNode {
  static looks = 0;
  readonly priority: number;
  #slot = 0;

  constructor(priority: number) {
    this.priority = priority;
  }

  get slot(): number {
    Watched.looks++;
    return this.#slot;
  }

  set slot(slot: number) {
    this.#slot = slot;
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

  it('knows positions where somebody has left from the middle, with an index of every age', () => {
    const line = new PriorityLine<Node>(2);
    const ahead = new Node(1, 0);
    line.push(ahead);
    let right: Node[] = [];
    const join = (count: number): void => {
      for (let i = 0; i < count; i++) {
        const node = new Node(2, 0);
        line.push(node);
        right.push(node);
      }
    };
    const leave = (from: number, to: number): void => {
      for (const node of right.slice(from, to)) line.remove(node);
      right = right.toSpliced(from, to - from);
    };
    const ask = (): void => {
      expect(right.some(({ slot }, i) => slot !== right[0]!.slot + i)).toBe(true);
      expect(right.map((node) => line.position(node))).toEqual(right.map((_, i) => i + 2));
    };
    join(50);
    leave(20, 25);
    ask();
    join(10);
    ask();
    // More than an index has bits for, with and without a question in between.
    join(300);
    ask();
    join(1000);
    ask();
    // So many that those who are left get new slots, and then another gap.
    leave(10, 1300);
    leave(3, 4);
    ask();
    // Everybody leaves, and the slots begin anew.
    leave(0, right.length);
    join(200);
    leave(100, 101);
    ask();
  });

  it('looks at two nodes, and later at one, where nobody has left but in turn', () => {
    const line = new PriorityLine<Watched>(2);
    const nodes = Array.from({ length: 1000 }, () => new Watched(2));
    for (const node of nodes) line.push(node);
    for (const node of nodes.splice(0, 300)) line.remove(node);
    const looksOf = (at: number): [position: number, looks: number] => {
      Watched.looks = 0;
      return [line.position(nodes[at]!), Watched.looks];
    };
    expect([looksOf(0), looksOf(0), looksOf(699)]).toEqual([
      [1, 2],
      [1, 1],
      [700, 1],
    ]);
    line.push(new Watched(2));
    expect([looksOf(500), looksOf(501)]).toEqual([
      [501, 2],
      [502, 1],
    ]);
    // A gap in one band is none in another.
    const others = Array.from({ length: 3 }, () => new Watched(1));
    for (const node of others) line.push(node);
    line.remove(others[1]!);
    expect([looksOf(500), looksOf(501)]).toEqual([
      [503, 3],
      [504, 1],
    ]);
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
