/** Under this name a gate of ours tells `compose` which options its `run` understands. */
export const optionNames: unique symbol = Symbol('sluice.optionNames');
