import { handleOf } from '../internal/stream-handle.ts';
import type { TokenStream } from '../token-streamer.ts';
import { clientGone } from './disconnect.ts';
import { Frames } from './frames.ts';
import { readResponseOptions, type ResponseOptions } from './options.ts';
import { refusalResponse } from './refusal.ts';

/**
 * A stream as a Web `Response`, for Hono, Next, Deno, Bun, and whatever else takes one. Resolves when
 * the stream waits in line or flows; a stream that was not let in is a response of its own, as
 * `toHttpError` has it. Cancelling the body ends the stream; give the request's `signal` to
 * `stream()` so that a client that leaves before there is a body ends it too. Where a HEAD may be
 * answered by the handler of GET, as in Hono and Next, cancel the body then: nobody reads it.
 *
 * Rejects only for bad options and for a stream that is being read already.
 */
export async function toResponse<T>(
  stream: TokenStream<T>,
  options?: ResponseOptions<NoInfer<T>>,
): Promise<Response> {
  const { encoder, status, headers, own } = readResponseOptions('toResponse', options);
  const handle = handleOf(stream);
  const frames = new Frames(handle, encoder);
  const verdict = await frames.verdict();
  if (verdict === 'nothing') return new Response(null, { status: 204, headers: own });
  if (verdict !== 'go') {
    const { body: refusal, ...init } = refusalResponse(verdict, own);
    return new Response(refusal, init);
  }
  const utf8 = new TextEncoder();
  let cancelled = false;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      async pull(controller) {
        const chunk = await frames.next();
        // Its controller takes nothing any more then, not even the end.
        if (cancelled) return;
        if (chunk !== undefined) controller.enqueue(utf8.encode(chunk));
        else if (frames.untold === undefined) controller.close();
        else controller.error(frames.untold.error);
      },
      cancel() {
        cancelled = true;
        handle.end(clientGone());
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { status, headers });
}
