import Anthropic, { RateLimitError as AnthropicRateLimitError } from '@anthropic-ai/sdk';
import OpenAI, { RateLimitError as OpenAIRateLimitError } from 'openai';

export interface Question {
  readonly prompt: string;
  /** The longest answer, in tokens. */
  readonly maxTokens: number;
}

export interface Answer {
  readonly text: string;
  /** What it has used, of prompt and answer, as the provider counts. */
  readonly tokens: number;
}

/** `onHeaders` is called as soon as the provider has let the request in. */
type Ask = (
  question: Question,
  signal: AbortSignal,
  onHeaders: (headers: Headers) => void,
) => Promise<Answer>;

export interface Provider {
  readonly name: string;
  readonly ask: Ask;
}

const MODEL = 'trigram';

/** Retries of a client's own would be requests that no limiter knows of. */
const CLIENT_OPTIONS = { apiKey: 'none', maxRetries: 0 };

export function openai(baseURL: string): Provider {
  const client = new OpenAI({ ...CLIENT_OPTIONS, baseURL });
  return {
    name: 'openai',
    async ask({ prompt, maxTokens }, signal, onHeaders) {
      const { data: stream, response } = await client.chat.completions
        .create(
          {
            model: MODEL,
            max_completion_tokens: maxTokens,
            messages: [{ role: 'user', content: prompt }],
            stream: true,
            stream_options: { include_usage: true },
          },
          { signal },
        )
        .withResponse();
      onHeaders(response.headers);
      let text = '';
      let tokens: number | undefined;
      for await (const { choices, usage } of stream) {
        text += choices[0]?.delta.content ?? '';
        tokens = usage?.total_tokens ?? tokens;
      }
      return { text, tokens: known(tokens) };
    },
  };
}

export function anthropic(baseURL: string): Provider {
  const client = new Anthropic({ ...CLIENT_OPTIONS, baseURL });
  return {
    name: 'anthropic',
    async ask({ prompt, maxTokens }, signal, onHeaders) {
      const { data: stream, response } = await client.messages
        .create(
          {
            model: MODEL,
            max_tokens: maxTokens,
            messages: [{ role: 'user', content: prompt }],
            stream: true,
          },
          { signal },
        )
        .withResponse();
      onHeaders(response.headers);
      let text = '';
      let input = 0;
      let tokens: number | undefined;
      for await (const event of stream) {
        if (event.type === 'message_start') input = event.message.usage.input_tokens;
        if (event.type === 'message_delta') tokens = input + event.usage.output_tokens;
        if (event.type === 'content_block_delta' && event.delta.type === 'text_delta') {
          text += event.delta.text;
        }
      }
      return { text, tokens: known(tokens) };
    },
  };
}

/** The headers of a 429; undefined for every other error. */
export function refusalOf(error: unknown): Headers | undefined {
  const refused = error instanceof OpenAIRateLimitError || error instanceof AnthropicRateLimitError;
  return refused ? error.headers : undefined;
}

/** A connection that is closed too soon ends a stream as the end of the answer does. */
function known(tokens: number | undefined): number {
  if (tokens === undefined) throw new Error('The answer ended without its usage.');
  return tokens;
}
