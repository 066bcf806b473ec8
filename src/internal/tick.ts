/**
 * As it is when this is loaded: fake timers, which nobody moves meanwhile, would keep it for ever. Not
 * every platform has `setImmediate`.
 */
const defer: (callback: () => void) => unknown =
  typeof setImmediate === 'function' ? setImmediate : setTimeout;

/**
 * Resolves when the event loop has come round: what can happen without I/O or timers has happened
 * before, and I/O and timers have had their turn.
 */
export function tick(): Promise<void> {
  return new Promise((resolve) => void defer(resolve));
}
