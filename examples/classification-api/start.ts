import { parseArgs } from 'node:util';

import { type ClassificationApi, startApi } from './api.ts';
import { startClassifier } from './classifier.ts';
import { overload, tableOf } from './overload.ts';
import { modelURLIn, readSettings } from './settings.ts';

const USAGE = `Usage: npx node examples/classification-api/start.ts [options]

  --overload SECONDS   send three times as much as the rate limit allows for so long, print what
                       became of it, and end
  --service-ms N       how long the model takes for a request (400)
  --help               this

The environment variables are in examples/classification-api/README.md.`;

/** Who sends in an overload. */
const KEYS = Array.from({ length: 10 }, (_, index) => `key-${index}`);

try {
  await start();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

async function start(): Promise<void> {
  const { values } = parseArgs({
    options: {
      overload: { type: 'string' },
      'service-ms': { type: 'string', default: '400' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const seconds =
    values.overload === undefined ? 0 : integer('--overload', values.overload, 1, 3600);
  const serviceMs = integer('--service-ms', values['service-ms'], 0, 60_000);
  const env = seconds === 0 ? process.env : { ...process.env, ...forOverload() };
  // Before anything is started: all of them have to be right.
  readSettings(env, '');
  const classifier =
    modelURLIn(env) === undefined ? await startClassifier({ port: 0, serviceMs }) : undefined;
  const settings = readSettings(env, classifier?.url ?? '');
  let api: ClassificationApi;
  try {
    api = await startApi(settings);
  } catch (error) {
    await classifier?.close();
    throw error;
  }
  console.log(`Model  ${settings.modelURL}`);
  console.log(`API    ${api.url}`);

  const end = async (): Promise<void> => {
    const { active, waiting } = api.stats();
    console.log(`Finishing: ${active} are worked on, ${waiting} are in line.`);
    const { finished, aborted, stuck } = await api.close();
    await classifier?.close();
    console.log(`Finished: ${finished} by themselves, ${aborted + stuck.length} cut short.`);
  };
  if (seconds > 0) {
    const perSecond = 3 * settings.perSecond;
    console.log(`Sending ${perSecond} a second for ${seconds} s …`);
    console.log(tableOf(await overload({ url: api.url, perSecond, seconds, keys: KEYS })));
    if (classifier !== undefined) {
      console.log(`the model has seen ${classifier.stats().peak} at once at most`);
    }
    await end();
    return;
  }
  console.log('Ctrl-C lets what was accepted finish; a second one ends at once.');
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      process.once(signal, () => process.exit(130));
      void end();
    });
  }
}

/** Ten users whose limits leave the limit on all of them something to do, on any port. */
function forOverload(): Record<string, string> {
  return {
    CLASSIFY_PORT: '0',
    CLASSIFY_KEYS: KEYS.map((key, index) => `user-${index}=${key}`).join(','),
  };
}

function integer(option: string, text: string, min: number, max: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  const got = JSON.stringify(text.slice(0, 64));
  throw new RangeError(`Expected ${option} to be an integer from ${min} to ${max}, got ${got}.`);
}
