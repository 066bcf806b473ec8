/** The names of the methods that a class adds: what a test of "everything" has to go through. */
export function methodsOf(prototype: object): string[] {
  return (
    Reflect.ownKeys(prototype)
      .filter(
        (key) =>
          key !== 'constructor' &&
          typeof Object.getOwnPropertyDescriptor(prototype, key)!.value === 'function',
      )
      // Its own name is another one on Node 22.
      .map((key) => (key === Symbol.asyncDispose ? 'Symbol(Symbol.asyncDispose)' : String(key)))
      .toSorted()
  );
}
