/**
 * The primitives, what puts them around each other and around a function, and the errors.
 *
 * @module sluice
 */

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
export * from './keyed.ts';
export * from './rate-limiter.ts';
export * from './semaphore.ts';
export {
  SessionManager,
  type JsonValue,
  type MarkablePhase,
  type ObservableGate,
  type OpenSession,
  type Session,
  type SessionCleanupFailedEvent,
  type SessionContext,
  type SessionEndedEvent,
  type SessionEvents,
  type SessionManagerOptions,
  type SessionManagerStats,
  type SessionMetadata,
  type SessionOptions,
  type SessionOverrunEvent,
  type SessionPhase,
  type SessionPhases,
  type SessionRecord,
  type SessionRefusedEvent,
  type SessionStartedEvent,
  type SessionStatus,
  type ShutdownOptions,
  type ShutdownReport,
} from './session-manager.ts';
export {
  fromCallback,
  fromEmitter,
  TokenStreamer,
  type EmitterOptions,
  type PushOptions,
  type Replay,
  type ReplayOptions,
  type StreamEvent,
  type StreamOptions,
  type StreamReport,
  type StreamStats,
  type TokenEmitter,
  type Tokens,
  type TokenSink,
  type TokenSource,
  type TokenStream,
  type TokenStreamerOptions,
  type TokenStreamerStats,
} from './token-streamer.ts';
export {
  SharedResource,
  type FallbackContext,
  type ResourceAcquireOptions,
  type ResourceContext,
  type ResourceEvent,
  type ResourceGauges,
  type ResourceHandle,
  type ResourceLoadedEvent,
  type ResourceLoadEvent,
  type ResourceLoadFailedEvent,
  type ResourceRanEvent,
  type ResourceRefusedEvent,
  type ResourceRunOptions,
  type ResourceWaitedEvent,
  type SharedResourceEvents,
  type SharedResourceOptions,
  type SharedResourceSettings,
  type SharedResourceStats,
} from './shared-resource.ts';
