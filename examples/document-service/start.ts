import { parseArgs } from 'node:util';

import { collectDefaultMetrics, Registry } from 'prom-client';

import { startModelServer, type ModelServer } from '../model-server/server.ts';
import { fail } from '../support/command.ts';
import { startDocumentServer, type DocumentServer } from './server.ts';
import { baseURLIn, readSettings } from './settings.ts';

const USAGE = `Usage: node examples/document-service/start.ts [options]

  --port N     where it serves, on 127.0.0.1; 0 takes a free port (DOCUMENT_PORT, or 3002)
  --help       this

With OPENAI_BASE_URL the model there is asked, and no model server is started. The environment variables
are in examples/document-service/README.md.`;

/** So that a document takes about a second. */
const DECODE_MS_PER_TOKEN = 5;

try {
  await start(process.argv.slice(2), process.env);
} catch (error) {
  fail(error, '--port or DOCUMENT_PORT');
}

async function start(args: string[], env: NodeJS.ProcessEnv): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { port: { type: 'string' }, help: { type: 'boolean', default: false } },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const serviceEnv = values.port === undefined ? env : { ...env, DOCUMENT_PORT: values.port };
  // Before anything is started: all of them have to be right.
  const { modelCalls: parallel } = readSettings(serviceEnv, '');
  const model =
    baseURLIn(env) === undefined
      ? await startModelServer({ port: 0, parallel, decodeMsPerToken: DECODE_MS_PER_TOKEN })
      : undefined;
  const settings = readSettings(serviceEnv, `${model?.url}/v1`);
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  let service: DocumentServer;
  try {
    service = await startDocumentServer(settings, registry);
  } catch (error) {
    await model?.close();
    throw error;
  }
  endOnSignal(service, model);
  console.log(`Model      ${settings.model} at ${settings.baseURL}`);
  console.log(`Documents  ${service.url}/documents`);
  console.log('Ctrl-C finishes the documents that were taken; a second one ends at once.');
}

function endOnSignal(service: DocumentServer, model: ModelServer | undefined): void {
  let ending = false;
  const end = async (): Promise<void> => {
    if (ending) process.exit(130);
    ending = true;
    const { active, waiting } = service.documents.queue.stats();
    console.log(`Finishing: ${active} are being worked on, ${waiting} are in line.`);
    await service.drain();
    await model?.close();
    console.log('Finished.');
  };
  process.on('SIGINT', () => void end());
  process.on('SIGTERM', () => void end());
}
