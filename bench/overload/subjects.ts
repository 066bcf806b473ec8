export interface Gauges {
  readonly active: number;
  readonly waiting: number;
}

/** An example, and how it is asked. */
export interface Subject {
  readonly name: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** The first word of the line that says where it is. */
  readonly title: string;
  /** What it lets in by its settings; without, it is measured how much so many at a time get done. */
  readonly perSecond?: number;
  readonly atOnce: number;
  readonly path: string;
  /** Of the request with this number. */
  headers(number: number): Readonly<Record<string, string>>;
  body(number: number): string;
  /** Where it tells how full it is, and that in its words. */
  readonly gaugesPath: string;
  gauges(told: unknown): readonly Gauges[];
}

const JSON_TYPE = { 'content-type': 'application/json' };

const USERS = 10;

const TEXT = 'A permit is given back when the task has settled, not when its caller has left. ';

/** Each with a line that is soon full. */
export const SUBJECTS: readonly Subject[] = [
  {
    name: 'tutoring-chat',
    args: ['--port', '0', '--prefill-ms-per-token', '0.1', '--decode-ms-per-token', '5'],
    env: { CHAT_MAX_WAITING: '50' },
    title: 'Chat',
    atOnce: 10,
    path: '/api/chat/stream',
    headers: () => JSON_TYPE,
    body: (number) => JSON.stringify({ question: `What is question ${number} about?` }),
    gaugesPath: '/api/queue/stats',
    gauges: (told) => [told as Gauges],
  },
  {
    name: 'document-service',
    args: ['--port', '0'],
    env: { DOCUMENT_MAX_WAITING: '40' },
    title: 'Documents',
    atOnce: 20,
    path: '/documents',
    headers: () => ({ 'content-type': 'text/plain' }),
    body: (number) => `Document ${number}. ${TEXT.repeat(5)}`,
    gaugesPath: '/health',
    gauges: (told) => {
      const { documents, calls } = (told as { parts: Record<'documents' | 'calls', Gauges> }).parts;
      return [documents, calls];
    },
  },
  {
    name: 'classification-api',
    args: [],
    env: {
      CLASSIFY_PORT: '0',
      CLASSIFY_KEYS: Array.from({ length: USERS }, (_, i) => `user-${i}=key-${i}`).join(','),
    },
    title: 'API',
    // CLASSIFY_PER_SECOND.
    perSecond: 100,
    atOnce: 20,
    path: '/classify',
    headers: (number) => ({ ...JSON_TYPE, authorization: `Bearer key-${number % USERS}` }),
    body: (number) => JSON.stringify({ text: `Who gets permit ${number}, and in which order?` }),
    gaugesPath: '/queue/health',
    gauges: (told) => [told as Gauges],
  },
  {
    name: 'provider-gateway',
    args: ['--questions', '0'],
    env: { GATEWAY_PORT: '0' },
    title: 'gateway',
    atOnce: 8,
    path: '/v1/chat/completions',
    headers: () => JSON_TYPE,
    body: (number) =>
      JSON.stringify({
        model: 'short',
        messages: [{ role: 'user', content: `What is question ${number} about?` }],
        stream: true,
      }),
    gaugesPath: '/health',
    gauges: (told) => {
      const { providers, sessions } = told as {
        providers: readonly Gauges[];
        sessions: { active: number };
      };
      return [...providers, { active: sessions.active, waiting: 0 }];
    },
  },
  {
    name: 'embedding-service',
    args: ['--serve', '--port', '0'],
    env: { EMBEDDING_LOAD_MS: '0', EMBEDDING_USE_MS: '200' },
    title: 'Embeddings',
    atOnce: 20,
    path: '/v1/embeddings',
    headers: () => JSON_TYPE,
    // A text of its own for each: nobody shares an answer.
    body: (number) => JSON.stringify({ input: `${TEXT}${number}` }),
    gaugesPath: '/model',
    gauges: (told) => [told as Gauges],
  },
];
