import { parseArgs } from 'node:util';

import { fail } from '../support/command.ts';
import { demo } from './demo.ts';
import { tableOf } from './report.ts';

const MAX_CALLS = 100_000;

try {
  const { values } = parseArgs({ options: { calls: { type: 'string', default: '60' } } });
  const calls = callsOf(values.calls);
  console.log(`${calls} questions for each provider, all at once …`);
  console.log(tableOf(await demo(calls)));
} catch (error) {
  fail(error);
}

function callsOf(text: string): number {
  const calls = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isSafeInteger(calls) && calls >= 1 && calls <= MAX_CALLS) return calls;
  const got = JSON.stringify(text.slice(0, 64));
  throw new RangeError(`Expected --calls to be an integer from 1 to ${MAX_CALLS}, got ${got}.`);
}
