/**
 * Ends a command that cannot go on: one line says why, and the exit code is 1. `choice`: with what
 * another port is chosen, of a command that serves.
 */
export function fail(error: unknown, choice = ''): void {
  console.error(messageOf(error, choice));
  process.exitCode = 1;
}

function messageOf(error: unknown, choice: string): string {
  if (!(error instanceof Error)) return String(error);
  const { code, port } = error as { code?: unknown; port?: unknown };
  return code === 'EADDRINUSE'
    ? `Port ${String(port)} is taken. Choose another one with ${choice}.`
    : error.message;
}
