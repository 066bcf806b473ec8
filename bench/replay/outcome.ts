import type { StreamEvent } from 'sluice';

/** What became of one call. Times are in ms, since the first call was sent. */
export interface Outcome {
  readonly result: 'completed' | 'refused' | 'failed';
  /** Of a refusal or a failure. */
  readonly code: string | undefined;
  readonly sentAt: number;
  readonly endedAt: number;
  /** When its turn came. */
  readonly startedAt: number | undefined;
  readonly firstTokenAt: number | undefined;
  readonly tokens: number;
  /** The first estimate that it was told, and when. */
  readonly announced: { readonly at: number; readonly waitMs: number } | undefined;
}

type Events = AsyncIterable<StreamEvent<string>>;

/** Sends a call and reads what it is answered with, to the end. Never rejects. */
export async function follow(
  send: () => Events | Promise<Events>,
  now: () => number,
): Promise<Outcome> {
  const sentAt = now();
  let announced: Outcome['announced'];
  let startedAt: number | undefined;
  let firstTokenAt: number | undefined;
  let letIn = false;
  let tokens = 0;
  let code: string | undefined;
  try {
    for await (const event of await send()) {
      if (event.type === 'error') {
        ({ code } = event);
        break;
      }
      letIn = true;
      if (event.type === 'position' && event.estimatedWaitMs !== undefined) {
        announced ??= { at: now(), waitMs: event.estimatedWaitMs };
      } else if (event.type === 'start') {
        startedAt = now();
      } else if (event.type === 'token') {
        firstTokenAt ??= now();
        tokens += 1;
      }
    }
  } catch (error) {
    code = codeOf(error);
  }
  return {
    result: code === undefined ? 'completed' : letIn ? 'failed' : 'refused',
    code,
    sentAt,
    endedAt: now(),
    startedAt,
    firstTokenAt,
    tokens,
    announced,
  };
}

/** `fetch` tells why it failed in the cause. */
function codeOf(error: unknown): string {
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
  return String(code ?? cause?.code ?? error);
}
