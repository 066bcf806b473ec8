/** The `code` of an error of ours, else the thing itself: how a rejection is compared. */
export function codeOf(error: unknown): unknown {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  return typeof code === 'string' ? code : error;
}

/** Lets `ticks` microtasks pass. */
export async function microtasks(ticks: number): Promise<void> {
  for (let i = 0; i < ticks; i++) await Promise.resolve();
}
