import { html, raw } from 'hono/html';
import type { SessionPhase, SessionRecord } from 'sluice';

import type { ProviderHealth } from './provider.ts';

const SHOWN = 40;

/** A bar for what follows each phase, until the next one that was reached. */
const COLOURS: readonly [phase: SessionPhase, colour: string, meaning: string][] = [
  ['received', '#b8bfca', 'on its way to the line'],
  ['queued', '#e0a63a', 'in line'],
  ['dequeued', '#c9d46a', 'let in'],
  ['allocated', '#9fd0a0', 'has its place'],
  ['callStart', '#4f8fd6', 'with the provider'],
  ['callEnd', '#8f79c4', 'giving back'],
  ['released', '#d48bb4', 'cleaning up'],
];

type Html = ReturnType<typeof html>;

/** Each attempt as a row, and in it what it spent its time with; drawn anew every two seconds. */
export function timelinePage(
  records: readonly SessionRecord[],
  providers: readonly ProviderHealth[],
): Html {
  const shown = records.slice(0, SHOWN);
  const longestMs = Math.max(1, ...shown.map(({ elapsedMs }) => elapsedMs));
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <meta http-equiv="refresh" content="2" />
        <title>Attempts and their phases</title>
        ${raw(`<style>${STYLE}</style>`)}
      </head>
      <body>
        <h1>Attempts and their phases</h1>
        <p>
          ${providers.map(
            ({ name, circuit, active, waiting }) => html`
              <span class="provider ${circuit}">
                <b>${name}</b> circuit ${circuit}, ${active} active, ${waiting} waiting
              </span>
            `,
          )}
        </p>
        <p>
          ${COLOURS.map(
            ([phase, colour, meaning]) =>
              html`<span class="key"
                ><i style="background:${colour}"></i>${phase}: ${meaning}</span
              >`,
          )}
        </p>
        <table>
          <tr>
            <th>request</th>
            <th>attempt</th>
            <th>provider</th>
            <th>model</th>
            <th>status</th>
            <th>ms</th>
            <th class="wide">phases</th>
          </tr>
          ${shown.map((record) => row(record, longestMs))}
        </table>
      </body>
    </html>`;
}

function row(record: SessionRecord, longestMs: number): Html {
  const { requestId = '', provider, model, status, error, elapsedMs, metadata } = record;
  return html`
    <tr class="${status}">
      <td>${requestId.slice(0, 8)}</td>
      <td>${metadata['attempt']}</td>
      <td>${provider}</td>
      <td>${model}</td>
      <td>${status} ${error?.code ?? ''}</td>
      <td>${Math.round(elapsedMs)}</td>
      <td class="wide"><div class="bar">${bars(record, longestMs)}</div></td>
    </tr>
  `;
}

function bars({ phases, elapsedMs }: SessionRecord, longestMs: number): Html[] {
  const reached = COLOURS.filter(([phase]) => phases[phase] !== undefined);
  return reached.map(([phase, colour], index) => {
    const from = phases[phase]!;
    const next = reached[index + 1];
    const ms = (next === undefined ? elapsedMs : phases[next[0]]!) - from;
    const width = ((100 * ms) / longestMs).toFixed(2);
    const title = `${phase} at ${Math.round(from)} ms, for ${Math.round(ms)} ms`;
    return html`<i style="background:${colour};width:${width}%" title="${title}"></i>`;
  });
}

const STYLE = `
  body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }
  h1 { font-size: 1.3rem; }
  table { border-collapse: collapse; width: 100%; }
  th, td { text-align: left; padding: 0.15rem 0.6rem 0.15rem 0; white-space: nowrap; }
  .wide { width: 60%; }
  .bar { display: flex; height: 1rem; background: #f3f4f6; }
  .bar i { min-width: 1px; }
  .key, .provider { display: inline-block; }
  .key { margin-right: 1rem; }
  .key i { display: inline-block; width: 0.8rem; height: 0.8rem; margin-right: 0.3rem; }
  .provider { margin-right: 2rem; padding-left: 0.5rem; border-left: 0.3rem solid #4a9d5b; }
  .provider.open { border-color: #c2413a; }
  .provider.halfOpen { border-color: #e0a63a; }
  .failed, .timedOut { color: #b3352f; }
  .cancelled { color: #666; }
  @media (width < 60rem) {
    body { margin: 1rem; }
    table, tbody { display: block; }
    tr { display: flex; flex-wrap: wrap; padding-bottom: 0.5rem; }
    .wide { width: 100%; }
    th { display: none; }
  }
`;
