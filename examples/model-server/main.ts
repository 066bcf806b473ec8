import { fail } from '../support/command.ts';
import { startModelServer } from './server.ts';
import { readSettings, usage, type ModelServerOptions } from './settings.ts';

try {
  const options = readSettings(process.argv.slice(2), process.env);
  if (options === 'help') console.log(usage());
  else await serve(options);
} catch (error) {
  fail(error, '--port or MODEL_SERVER_PORT');
}

async function serve(options: ModelServerOptions): Promise<void> {
  const server = await startModelServer(options);
  const { model, vocabulary, parallel } = server.stats();
  console.log(`${model}: ${vocabulary} words known, ${parallel} requests at once`);
  console.log(`OPENAI_BASE_URL=${server.url}/v1`);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void server.close());
  }
}
