/**
 * Resolves when the event loop has come round: what can happen without I/O or timers has happened
 * before, and I/O and timers have had their turn.
 */
export function tick(): Promise<void> {
  return new Promise((resolve) => {
    // Not every platform has it.
    if (typeof setImmediate === 'function') setImmediate(resolve);
    else setTimeout(resolve, 0);
  });
}
