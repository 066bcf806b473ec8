/** The page of the tutoring chat: asks, shows the place in line and the answer, and the live panel. */

const SUGGESTIONS = [
  'What does a semaphore promise?',
  'Why is a line first come, first served?',
  'How does a rate limiter count tokens?',
  'What if somebody leaves the line?',
];

/** As long as the server says nothing else. */
const RETRY_AFTER_MS = 5000;
const POLL_MS = 2000;
const COME_BACK_MS = 1000;
/** What a server says that goes away: those in line keep their places, the others may. */
const GOING = new Map([
  ['ERR_RESTARTING', 'The server restarts and keeps your place…'],
  ['ERR_CLOSED', 'The server is gone. Waiting for it to come back…'],
]);
const MOST_PEOPLE = 14;

const element = (id) => document.getElementById(id);
const log = element('log');
const composer = element('composer');
const field = element('question');
const send = element('send');
const stop = element('stop');

/** The question that is being asked, if any: there is one at a time. */
let asking;

/** Under which the server keeps what is asked here and answered. */
const student = (localStorage['student'] ??= crypto.randomUUID());

/* ------------------------------------------------------------------ asking */

/** One question and what became of it. */
class Exchange {
  #article = element('exchange').content.firstElementChild.cloneNode(true);
  #line = this.#article.querySelector('.line');
  #place = this.#article.querySelector('.place');
  #people = this.#article.querySelector('.people');
  #answer = this.#article.querySelector('.answer');
  #text = this.#article.querySelector('.text');
  #note = this.#article.querySelector('.note');
  #again = this.#article.querySelector('.again');
  #leaving = new AbortController();
  #askedAt = performance.now();
  #id;
  #isBack = false;
  #startedAt;
  #position;
  #readyAt;
  #timer;

  constructor(question) {
    this.question = question;
    this.#article.querySelector('.question').textContent = question;
    this.#again.addEventListener('click', () => {
      if (asking !== undefined) return;
      this.#article.remove();
      void ask(question);
    });
    log.append(this.#article);
    follow(true);
  }

  /** One that is over since long. */
  static past({ question, answer }) {
    const exchange = new Exchange(question);
    exchange.#text.textContent = answer;
    exchange.#end();
  }

  /** Resolves when it is over, in whatever way. */
  async run() {
    this.#note.textContent = 'Asking…';
    try {
      const response = await fetch('api/chat/stream', {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-student-id': student },
        body: JSON.stringify({ question: this.question }),
        signal: this.#leaving.signal,
      });
      this.#id = response.headers.get('x-request-id');
      if (response.ok) await this.#read(response.body);
      else this.#refused(await response.json(), response);
    } catch {
      if (this.#leaving.signal.aborted) this.#left();
      else this.#failed('The connection was lost.');
    } finally {
      this.#end();
    }
  }

  /** Closing the connection is all that it takes, if it is the one that was asked over. */
  leave() {
    this.#leaving.abort();
    if (this.#isBack) void fetch(`api/queue/${this.#id}`, { method: 'DELETE' }).catch(() => {});
  }

  async #read(body) {
    for await (const { event, data } of eventsOf(body)) {
      if (event === 'position') this.#moved(data);
      else if (event === 'start') this.#started();
      else if (event === 'token') this.#text.append(data.value);
      else if (event === 'done') return this.#done(data);
      else if (event === 'error') {
        return GOING.has(data.code) ? this.#comeBack(data) : this.#failed(data.message);
      }
      follow();
    }
    return this.#failed('The connection was lost.');
  }

  /** Asks for the same question again until the server is there that has its place. */
  async #comeBack({ code, message }) {
    this.#over(GOING.get(code));
    announce(GOING.get(code));
    for (;;) {
      await new Promise((resolve) => {
        setTimeout(resolve, COME_BACK_MS);
      });
      const response = await fetch(`api/chat/stream/${this.#id}`, {
        signal: this.#leaving.signal,
      }).catch((error) => {
        if (this.#leaving.signal.aborted) throw error;
      });
      if (response?.status === 404) return this.#failed(message);
      if (response?.ok) {
        this.#isBack = true;
        this.#startedAt = undefined;
        this.#text.textContent = '';
        return this.#read(response.body);
      }
    }
  }

  #moved({ position, estimatedWaitMs }) {
    this.#position = position;
    this.#readyAt = estimatedWaitMs === undefined ? undefined : performance.now() + estimatedWaitMs;
    this.#line.hidden = false;
    this.#note.textContent = '';
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#showPlace(), 500);
    this.#showPlace();
    this.#showPeople();
    announce(this.#place.textContent);
  }

  #showPlace() {
    const left = this.#readyAt === undefined ? undefined : this.#readyAt - performance.now();
    this.#place.textContent = `You are number ${this.#position}${
      left === undefined ? '' : left < 1000 ? ', any moment now' : `, about ${duration(left)}`
    }`;
  }

  /** Those ahead as dots, and oneself at the end of them. */
  #showPeople() {
    const ahead = Math.min(this.#position - 1, MOST_PEOPLE);
    const dots = Array.from({ length: ahead }, () => document.createElement('i'));
    const more = this.#position - 1 - ahead;
    this.#people.replaceChildren(
      ...dots,
      ...(more > 0 ? [`+${more}`] : []),
      Object.assign(document.createElement('i'), { className: 'you' }),
    );
  }

  #started() {
    clearInterval(this.#timer);
    this.#startedAt = performance.now();
    this.#line.hidden = true;
    this.#note.textContent = '';
    this.#article.classList.add('writing');
    announce('The answer begins.');
  }

  #done({ tokens }) {
    const wrote = performance.now() - this.#startedAt;
    this.#over(`${this.#waited()}${tokens} tokens in ${duration(wrote, 1)}`);
    announce('The answer is complete.');
  }

  #left() {
    this.#over(
      this.#startedAt === undefined ? 'You left the line.' : `${this.#waited()}stopped by you`,
    );
    announce('Stopped.');
  }

  #failed(message) {
    this.#over(this.#startedAt === undefined ? message : `The answer broke off. ${message}`);
    this.#article.classList.add('failed');
    this.#again.hidden = false;
    announce(message);
  }

  /** Not let in: says why, and when to try again. */
  #refused({ error }, response) {
    const canWait = response.status === 429 || response.status >= 500;
    const seconds = Number(response.headers.get('retry-after')) || RETRY_AFTER_MS / 1000;
    const wait = error.estimatedWaitMs;
    const about = wait === undefined ? '' : ` The wait would be about ${duration(wait)}.`;
    this.#over(error.message + about);
    this.#article.classList.add('failed');
    announce(error.message);
    if (canWait) this.#countDown(performance.now() + seconds * 1000);
  }

  #countDown(until) {
    const tick = () => {
      const left = Math.ceil((until - performance.now()) / 1000);
      this.#again.hidden = false;
      this.#again.disabled = left > 0;
      this.#again.textContent = left > 0 ? `Ask again in ${left} s` : 'Ask again';
      if (left > 0) setTimeout(tick, 250);
    };
    tick();
  }

  #waited() {
    const ms = this.#startedAt - this.#askedAt;
    return ms < 1000 ? '' : `waited ${duration(ms)} · `;
  }

  #over(note) {
    clearInterval(this.#timer);
    this.#line.hidden = true;
    this.#article.classList.remove('writing');
    this.#note.textContent = note;
  }

  #end() {
    this.#answer.setAttribute('aria-busy', 'false');
    this.#article.classList.add('over');
    follow();
  }
}

async function ask(question) {
  element('welcome')?.remove();
  asking = new Exchange(question);
  send.hidden = true;
  stop.hidden = false;
  await asking.run();
  asking = undefined;
  send.hidden = false;
  stop.hidden = true;
  field.focus();
}

/** Server-sent events of a response that was asked for with POST, which EventSource cannot. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const records = (rest + value).split('\n\n');
    rest = records.pop();
    for (const record of records) {
      const fields = new Map(record.split('\n').map((line) => line.split(/: ?(.*)/s, 2)));
      // A comment is a sign of life, and has no event.
      if (fields.has('event')) {
        yield { event: fields.get('event'), data: JSON.parse(fields.get('data')) };
      }
    }
  }
}

/** What was asked here before. */
async function recall() {
  const response = await fetch('api/history', { headers: { 'x-student-id': student } });
  const exchanges = response.ok ? await response.json() : [];
  // Who was faster than that sees it the next time.
  if (exchanges.length === 0 || log.querySelector('article') !== null) return;
  element('welcome')?.remove();
  for (const exchange of exchanges) Exchange.past(exchange);
  follow(true);
}

composer.addEventListener('submit', (event) => {
  event.preventDefault();
  const question = field.value.trim();
  if (question === '' || asking !== undefined) return;
  field.value = '';
  fit();
  void ask(question);
});

stop.addEventListener('click', () => asking?.leave());

field.addEventListener('input', fit);
field.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});

for (const suggestion of SUGGESTIONS) {
  const button = Object.assign(document.createElement('button'), {
    type: 'button',
    textContent: suggestion,
  });
  button.addEventListener('click', () => void ask(suggestion));
  const item = document.createElement('li');
  item.append(button);
  element('suggestions').append(item);
}

/** As high as its text, within what the style sheet allows. */
function fit() {
  field.style.height = 'auto';
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

/** Keeps the end in view for who is at the end. */
let atEnd = true;
log.addEventListener('scroll', () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
});
function follow(always = false) {
  if (always || atEnd) log.scrollTop = log.scrollHeight;
}

function announce(text) {
  element('announcer').textContent = text;
}

/** 4 s, 12 s, 3 min; with digits also 4.2 s. */
function duration(ms, digits = 0) {
  const seconds = ms / 1000;
  if (seconds >= 90) return `${Math.round(seconds / 60)} min`;
  return `${Number(seconds.toFixed(digits))} s`;
}

/* -------------------------------------------------------------- live panel */

async function refresh() {
  try {
    const response = await fetch('api/queue/stats', { signal: AbortSignal.timeout(5000) });
    show(await response.json());
    element('panel-state').textContent = '';
    element('panel').classList.remove('stale');
  } catch {
    element('panel-state').textContent = 'No connection. Trying again…';
    element('panel').classList.add('stale');
  }
}

function show({ active, waiting, concurrency, throughputPerSecond, waitMs, recent }) {
  element('active').textContent = active;
  element('concurrency').textContent = ` of ${concurrency}`;
  element('waiting').textContent = waiting;
  element('throughput').textContent = Math.round(throughputPerSecond * 60);
  element('mean-wait').textContent = waitMs.mean === undefined ? '–' : duration(waitMs.mean, 1);
  draw(recent, concurrency);
}

/** Who is being answered, and on top of them who waits, over the last minutes. */
function draw(recent, concurrency) {
  const minutes = Math.max(1, Math.ceil((recent.active.length * recent.everyMs) / 60_000));
  const samples = (minutes * 60_000) / recent.everyMs;
  const totals = recent.active.map((active, i) => active + recent.waiting[i]);
  const top = niceTop(Math.max(concurrency, ...totals));
  const x = (i) => 100 - ((totals.length - 1 - i) / (samples - 1)) * 100;
  const y = (value) => 100 - (value / top) * 100;
  const line = (values) => values.map((value, i) => `${x(i)},${y(value)}`).join('L');
  const floor = `L100,100L${x(0)},100Z`;
  element('chart-waiting').setAttribute('d', `M${line(totals)}${floor}`);
  element('chart-active').setAttribute('d', `M${line(recent.active)}${floor}`);
  element('chart-top').textContent = top;
  element('chart-middle').textContent = top / 2;
  element('chart-since').textContent = `${minutes} min ago`;
  element('chart').setAttribute(
    'aria-label',
    `Over the last minutes up to ${Math.max(...recent.waiting)} waited in line; ` +
      `${recent.waiting.at(-1)} do now.`,
  );
}

/** The next number that is even and round. */
function niceTop(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10]
    .map((times) => times * unit)
    .find((top) => top >= value && top % 2 === 0);
}

async function keepRefreshing() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((resolve) => {
      setTimeout(resolve, POLL_MS);
    });
  }
}
void keepRefreshing();
void recall().catch(() => {});
