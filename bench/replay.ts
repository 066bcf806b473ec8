// node bench/replay.ts TRACE.csv --target URL: real traffic against examples/tutoring-chat, or, with
// --simulate, through the primitives in virtual time. --help tells the rest; docs/replay.md, the results.
import { replay } from './replay/command.ts';

try {
  process.exitCode = await replay(process.argv.slice(2), console.log);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
