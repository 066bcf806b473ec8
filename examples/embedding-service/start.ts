import { parseArgs } from 'node:util';

import { fail } from '../support/command.ts';
import { startEmbeddingServer } from './server.ts';
import { readSettings, type Settings } from './settings.ts';
import { tour } from './tour.ts';

const USAGE = `Usage: node examples/embedding-service/start.ts [options]

  --serve      goes on serving, instead of showing what it does and ending
  --port N     where it serves, on 127.0.0.1; 0 takes a free port (EMBEDDING_PORT, or 3001)
  --help       this

The environment variables are in examples/embedding-service/README.md.`;

try {
  await start(process.argv.slice(2), process.env);
} catch (error) {
  fail(error, '--port or EMBEDDING_PORT');
}

async function start(args: string[], env: NodeJS.ProcessEnv): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      serve: { type: 'boolean', default: false },
      port: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const settings = readSettings(
    values.port === undefined ? env : { ...env, EMBEDDING_PORT: values.port },
  );
  if (values.serve) await serve(settings);
  else await tour(settings, console.log);
}

async function serve(settings: Settings): Promise<void> {
  const server = await startEmbeddingServer(settings);
  let ending = false;
  const end = async (): Promise<void> => {
    if (ending) process.exit(130);
    ending = true;
    await server.drain();
    console.log('Finished.');
  };
  process.on('SIGINT', () => void end());
  process.on('SIGTERM', () => void end());
  console.log(`Embeddings ${server.url}/v1/embeddings`);
  console.log('Ctrl-C lets those finish who use the model; a second one ends at once.');
}
