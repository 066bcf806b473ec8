import { AdmissionQueue, type QueueContext } from 'sluice';
import { describe, expect, it } from 'vitest';

// 1. `run` a task that keeps its context and does not look at the ticket.
// 2. The task returns; nothing needs its value any more.
// 3. Ask the context for the ticket, and the ticket for its result: it never settled.
describe('AdmissionQueue', () => {
  it('has a result for who asks for the ticket only when the task is over', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    let kept: QueueContext | undefined;
    const answer = await queue.run((context) => {
      kept = context;
      return 'done';
    });
    expect(answer).toBe('done');
    expect(kept!.ticket.status).toBe('completed');
    expect(await kept!.ticket.result).toBe('done');
  });
});
