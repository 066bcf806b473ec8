import { readFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';

const FILES = [
  ['/', 'index.html', 'text/html'],
  ['/chat.js', 'chat.js', 'text/javascript'],
  ['/style.css', 'style.css', 'text/css'],
] as const;

const HEADERS = {
  'cache-control': 'no-cache',
  // The page needs nothing from anywhere else, and is not to be framed.
  'content-security-policy': "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
};

type Send = (_: unknown, response: ServerResponse) => void;

/** What answers for each path of the page. */
export async function readPage(): Promise<Map<string, Send>> {
  const entries = FILES.map(async ([path, file, type]): Promise<[string, Send]> => {
    const content = await readFile(new URL(`page/${file}`, import.meta.url));
    const headers = { ...HEADERS, 'content-type': `${type}; charset=utf-8` };
    return [path, (_, response) => response.writeHead(200, headers).end(content)];
  });
  return new Map(await Promise.all(entries));
}
