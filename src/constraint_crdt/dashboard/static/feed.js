// The node's events as they happen (`GET /v1/events`, server-sent events), over fetch, since EventSource cannot carry a token.
//
// Rules: a stream that says nothing for 25 s, not even its heartbeat, counts as broken. It is taken up again after a pause that
// doubles, behind the last event that was heard; a hidden page keeps its stream.

const SILENCE = 25000;
const HISTORY = 200; // events from before this page was opened
const FIRST_PAUSE = 400;
const LONGEST_PAUSE = 8000;

export class Feed {
  #last = "";
  #wake = null;
  #pause = FIRST_PAUSE;
  #giveUp = new AbortController();

  // `heard(kind, data)` for each event; `turned({connected, since, next, why})` when the connection comes and goes.
  constructor(api, heard, turned) {
    this.api = api;
    this.heard = heard;
    this.turned = turned;
    addEventListener("pagehide", () => this.#giveUp.abort()); // else a page that is left keeps its connection
  }

  async run() {
    let since = null;
    for (;;) {
      let why = "the node ended the stream";
      try {
        await this.#follow(() => {
          since = null;
          this.#pause = FIRST_PAUSE;
          this.turned({ connected: true });
        });
      } catch (error) {
        why = error.name === "AbortError" ? "the node went silent" : error.message;
      }
      since ??= Date.now();
      const pause = this.#pause * (0.8 + 0.4 * Math.random());
      this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
      this.turned({ connected: false, since, next: Date.now() + pause, why });
      await this.#sleep(pause);
    }
  }

  // Do not wait any longer.
  retry() {
    this.#pause = FIRST_PAUSE;
    this.#wake?.();
  }

  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #follow(connected) {
    const giveUp = (this.#giveUp = new AbortController());
    let watch = setTimeout(() => giveUp.abort(), SILENCE);
    try {
      const headers = { accept: "text/event-stream", ...(this.#last ? { "last-event-id": this.#last } : {}) };
      const response = await this.api.open(`/v1/events?last=${HISTORY}`, { headers, signal: giveUp.signal });
      connected();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const lines = new EventLines((id, kind, data) => {
        if (id) this.#last = id;
        this.heard(kind, data);
      });
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(watch);
        watch = setTimeout(() => giveUp.abort(), SILENCE);
        lines.take(value);
      }
    } finally {
      clearTimeout(watch);
      giveUp.abort();
    }
  }
}

// Text as it arrives, into events (HTML standard, 9.2.6). Data is JSON.
class EventLines {
  #rest = "";
  #id = "";
  #kind = "message";
  #data = [];

  constructor(tell) {
    this.tell = tell;
  }

  take(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
  }

  #line(line) {
    if (line === "") {
      if (this.#data.length) this.tell(this.#id, this.#kind, JSON.parse(this.#data.join("\n")));
      this.#kind = "message";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: the heartbeat
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "id") this.#id = value;
    else if (field === "event") this.#kind = value;
    else if (field === "data") this.#data.push(value);
  }
}
