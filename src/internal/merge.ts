/**
 * One object with every property of all of them, those of later ones first; methods of a class and
 * its getters included. Nothing is read until asked for: a getter may cost something.
 */
export function mergeContexts(contexts: readonly object[]): object {
  if (contexts.length === 1) return contexts[0]!;
  const merged = {};
  for (const context of contexts) {
    for (
      let holder: object | null = context;
      holder !== null && holder !== Object.prototype;
      holder = Object.getPrototypeOf(holder) as object | null
    ) {
      for (const name of Object.getOwnPropertyNames(holder)) {
        if (name === 'constructor') continue;
        Object.defineProperty(merged, name, {
          get: () => (context as Record<string, unknown>)[name],
          enumerable: true,
          configurable: true,
        });
      }
    }
  }
  return merged;
}
