import { parseArgs } from 'node:util';

import { startModelServer, type ModelServer } from '../model-server/server.ts';
import { readSettings as readModelSettings } from '../model-server/settings.ts';
import { fail } from '../support/command.ts';
import { startChatServer, type ChatServer } from './server.ts';
import { baseURLIn, readSettings, type Settings } from './settings.ts';
import { startVisitors, type Visitors } from './visitors.ts';

const USAGE = `Usage: npm start -- [options]

  --visitors N    simulated visitors who ask all the time (0)
  --port N        where the chat is, on 127.0.0.1; 0 takes a free port (CHAT_PORT, or 3000)
  --help          this

Every other option is one of the model server's, such as --decode-ms-per-token. With OPENAI_BASE_URL
the model there is asked, and no model server is started. The environment variables are in
examples/tutoring-chat/README.md.`;

/** So that an answer takes some seconds, as from a busy GPU. */
const DECODE_MS_PER_TOKEN = 60;

const MAX_VISITORS = 10_000;

try {
  await start(process.argv.slice(2), process.env);
} catch (error) {
  fail(error, '--port or CHAT_PORT');
}

async function start(args: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  const { own, others } = splitArgs(args);
  const modelOptions = readModelSettings(others, env);
  if (modelOptions === 'help') {
    console.log(USAGE);
    return;
  }
  const count = visitorsOf(own.visitors);
  const chatEnv = own.port === undefined ? env : { ...env, CHAT_PORT: own.port };
  const elsewhere = baseURLIn(env);
  // Before anything is started: all of them have to be right.
  const { concurrency } = readSettings(chatEnv, '');
  const model =
    elsewhere === undefined
      ? await startModelServer({
          port: 0,
          parallel: concurrency,
          decodeMsPerToken: DECODE_MS_PER_TOKEN,
          ...modelOptions,
        })
      : undefined;
  const settings = readSettings(chatEnv, `${model?.url}/v1`);
  let chat: ChatServer;
  try {
    chat = await startChatServer(settings);
  } catch (error) {
    await model?.close();
    throw error;
  }
  const visitors = startVisitors(chat.url, count);
  endOnSignal(chat, visitors, model, settings);
  console.log(`Model      ${settings.model} at ${settings.baseURL}`);
  if (count > 0) console.log(`Visitors   ${count}, who ask every now and then`);
  if (chat.restored > 0) console.log(`Restored   ${chat.restored} in line, in their old places`);
  console.log(`Chat       ${chat.url}`);
  console.log('Ctrl-C lets answers finish; a second one ends at once.');
}

function endOnSignal(
  chat: ChatServer,
  visitors: Visitors,
  model: ModelServer | undefined,
  settings: Settings,
): void {
  let ending = false;
  const end = async (): Promise<void> => {
    if (ending) process.exit(130);
    ending = true;
    visitors.leave();
    const { active, waiting } = chat.stats();
    const kept = settings.stateFile === '' ? '' : ', whose places are kept';
    console.log(`Finishing: ${active} are being answered, ${waiting} are in line${kept}.`);
    const { aborted, stuck } = await chat.drain();
    await model?.close();
    const cut = aborted + stuck.length;
    console.log(cut === 0 ? 'Finished.' : `Finished; ${cut} took too long and were cut short.`);
  };
  process.on('SIGINT', () => void end());
  process.on('SIGTERM', () => void end());
}

/** The options of this command, and the rest as it is. */
function splitArgs(args: readonly string[]): {
  own: { visitors?: string; port?: string };
  others: string[];
} {
  const options = { visitors: { type: 'string' }, port: { type: 'string' } } as const;
  const { tokens } = parseArgs({ args: [...args], options, strict: false, tokens: true });
  const own: { visitors?: string; port?: string } = {};
  const taken = new Set<number>();
  for (const token of tokens) {
    if (token.kind !== 'option' || (token.name !== 'visitors' && token.name !== 'port')) continue;
    own[token.name] = token.value ?? '';
    taken.add(token.index);
    if (token.inlineValue === false) taken.add(token.index + 1);
  }
  return { own, others: args.filter((_, index) => !taken.has(index)) };
}

function visitorsOf(text = '0'): number {
  const count = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isSafeInteger(count) && count >= 0 && count <= MAX_VISITORS) return count;
  const got = JSON.stringify(text.slice(0, 64));
  throw new RangeError(
    `Expected --visitors to be an integer from 0 to ${MAX_VISITORS}, got ${got}.`,
  );
}
