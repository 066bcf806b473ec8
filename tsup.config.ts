import { defineConfig } from 'tsup';

export default defineConfig({
  entry: [
    'src/index.ts',
    'src/admission-queue.ts',
    'src/semaphore.ts',
    'src/rate-limiter.ts',
    'src/session-manager.ts',
    'src/token-streamer.ts',
    'src/http/index.ts',
    'src/testing.ts',
  ],
  format: 'esm',
  target: 'es2023',
  platform: 'neutral',
  // One class, one identity across the subpaths: shared code goes into chunks.
  splitting: true,
  // Declarations come from `tsc -p tsconfig.build.json`.
  dts: false,
  clean: true,
  silent: true,
});
