export * from './errors.ts';
export { systemClock, type Clock } from './clock.ts';
export {
  compose,
  wrap,
  type ComposedGate,
  type Gate,
  type RunOptions,
  type TaskContext,
} from './gate.ts';
export * from './admission-queue.ts';
export * from './semaphore.ts';
