import { parseArgs } from 'node:util';

import { fail } from '../support/command.ts';
import { type ClassificationApi, startApi } from './api.ts';
import { startClassifier } from './classifier.ts';
import { modelURLIn, readSettings } from './settings.ts';

const USAGE = `Usage: npx node examples/classification-api/start.ts [options]

  --service-ms N   how long the model takes for a request (400)
  --help           this

The environment variables are in examples/classification-api/README.md.`;

try {
  await start();
} catch (error) {
  fail(error, 'CLASSIFY_PORT');
}

async function start(): Promise<void> {
  const { values } = parseArgs({
    options: {
      'service-ms': { type: 'string', default: '400' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const serviceMs = integer('--service-ms', values['service-ms'], 0, 60_000);
  const env = process.env;
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
  console.log('Ctrl-C lets what was accepted finish; a second one ends at once.');
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      process.once(signal, () => process.exit(130));
      void end();
    });
  }
}

function integer(option: string, text: string, min: number, max: number): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  const got = JSON.stringify(text.slice(0, 64));
  throw new RangeError(`Expected ${option} to be an integer from ${min} to ${max}, got ${got}.`);
}
