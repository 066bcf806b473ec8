import { parseArgs } from 'node:util';

import OpenAI, { APIError } from 'openai';

import { type ModelServer, startModelServer } from '../model-server/server.ts';
import { fail } from '../support/command.ts';
import { type GatewayServer, startGateway } from './server.ts';
import { baseURLIn, type ProviderName, readSettings } from './settings.ts';

const USAGE = `Usage: npx node examples/provider-gateway/start.ts [options]

  --questions N   ask so many at once first, with the openai client, and print who answered (12)
  --help          this

The environment variables are in examples/provider-gateway/README.md.`;

/** The providers on this machine: the same model, at two speeds. */
const DECODE_MS_PER_TOKEN = { fast: 8, slow: 30 };

const MAX_QUESTIONS = 1000;

try {
  await start();
} catch (error) {
  fail(error, 'GATEWAY_PORT');
}

async function start(): Promise<void> {
  const { values } = parseArgs({
    options: {
      questions: { type: 'string', default: '12' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const count = questionsOf(values.questions);
  const env = process.env;
  // Before anything is started: all of them have to be right.
  const checked = readSettings(env, { fast: '', slow: '' });
  const models: ModelServer[] = [];
  const baseURLs = { fast: '', slow: '' };
  let server: GatewayServer;
  try {
    for (const { name, concurrency } of checked.providers) {
      if (baseURLIn(env, name) !== undefined) continue;
      const model = await startProvider(name, concurrency);
      models.push(model);
      baseURLs[name] = `${model.url}/v1`;
    }
    server = await startGateway(readSettings(env, baseURLs));
  } catch (error) {
    await Promise.all(models.map((model) => model.close()));
    throw error;
  }
  endOnSignal(server, models);
  for (const [name, url] of Object.entries(baseURLs)) {
    console.log(`${name.padEnd(9)}${baseURLIn(env, name as ProviderName) ?? url}`);
  }
  console.log(`gateway  ${server.url}/v1, and how it goes at ${server.url}/`);
  if (count > 0) {
    console.log(`${count} questions at once …`);
    await ask(`${server.url}/v1`, count);
  }
  console.log('Ctrl-C lets answers finish; a second one ends at once.');
}

function startProvider(name: ProviderName, parallel: number): Promise<ModelServer> {
  return startModelServer({ port: 0, parallel, decodeMsPerToken: DECODE_MS_PER_TOKEN[name] });
}

/** As any client of that API would, but for the headers that it looks at. */
async function ask(baseURL: string, count: number): Promise<void> {
  const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
  const askOne = async (index: number): Promise<string> => {
    const startedAt = performance.now();
    const seconds = (): string => `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;
    const name = `question ${index}`.padEnd(12);
    try {
      const { data: stream, response } = await client.chat.completions
        .create({
          model: 'short',
          messages: [{ role: 'user', content: `What does a queue promise to number ${index}?` }],
          seed: index,
          stream: true,
        })
        .withResponse();
      const first = seconds();
      let tokens = 0;
      for await (const { choices } of stream) if (choices[0]?.delta.content) tokens += 1;
      const provider = response.headers.get('x-session-provider')!;
      const attempt = response.headers.get('x-session-attempt')!;
      return `${name}${provider}, attempt ${attempt}: first token ${first}, ${tokens} in ${seconds()}`;
    } catch (error) {
      if (!(error instanceof APIError)) throw error;
      const { status, code, headers } = error;
      return `${name}${status} ${code}, again in ${headers?.get('retry-after')} s`;
    }
  };
  const lines = await Promise.all(Array.from({ length: count }, (_, index) => askOne(index + 1)));
  console.log(lines.join('\n'));
}

function endOnSignal(server: GatewayServer, models: readonly ModelServer[]): void {
  const end = async (): Promise<void> => {
    const { active } = server.gateway.health().sessions;
    console.log(`Finishing: ${active} are being answered or in line.`);
    const { finished, aborted, stuck } = await server.close();
    await Promise.all(models.map((model) => model.close()));
    console.log(`Finished: ${finished} by themselves, ${aborted + stuck.length} cut short.`);
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      process.once(signal, () => process.exit(130));
      void end();
    });
  }
}

function questionsOf(text: string): number {
  const count = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isSafeInteger(count) && count >= 0 && count <= MAX_QUESTIONS) return count;
  const got = JSON.stringify(text.slice(0, 64));
  throw new RangeError(
    `Expected --questions to be an integer from 0 to ${MAX_QUESTIONS}, got ${got}.`,
  );
}
