/**
 * `check`, asked at most once in `ttlMs`, and by one caller at a time: whoever comes meanwhile gets the
 * same result, be it good or bad.
 */
export function cached<T>(ttlMs: number, check: () => Promise<T>): () => Promise<T> {
  let last: Promise<T> | undefined;
  let goodUntil = 0;
  return () => {
    if (last !== undefined && performance.now() < goodUntil) return last;
    goodUntil = Infinity;
    const keep = (): void => {
      goodUntil = performance.now() + ttlMs;
    };
    last = check();
    last.then(keep, keep);
    return last;
  };
}
