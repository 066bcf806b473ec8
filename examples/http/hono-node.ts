import type { Server } from 'node:http';

import { createAdaptorServer } from '@hono/node-server';

import { type Answers, listen, main, type Running } from './answers.ts';
import { createApp } from './hono-web.ts';

/** Hono 4 in a server of Node: the same application, behind an adaptor. */
export function start(answers: Answers, port: number): Promise<Running> {
  return listen(createAdaptorServer({ fetch: createApp(answers).fetch }) as Server, port);
}

if (import.meta.main) await main(start);
