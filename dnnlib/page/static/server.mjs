// Questions to the server. What goes wrong is `Said`.

const LOST = "The server does not answer. Is view_images.py still running? "
  + "If it was started again, open the address that it shows.";
export class Said extends Error {} // with a text for people
class Gone extends Said {}

export class Server {
  constructor(visit) { this.visit = visit; this.turn = Promise.resolve(); }

  async ask(path, options) {
    const response = await fetch(path, options).catch(() => { throw new Said(LOST); });
    const body = await response.json().catch(() => ({error: `The server answered ${response.status}.`}));
    if (response.status === 410) throw new Gone(body.error);
    if (!response.ok) throw new Said(sentence(body.error));
    return body;
  }

  async arrive() { this.visit = (await this.ask("visits", {method: "POST"})).visit; }
  // A question of this visit; where the server has forgotten it, a new one is begun.
  async own(path, options) {
    if (!this.visit) await this.arrive();
    try {
      return await this.ask(`visits/${this.visit}/${path}`, options);
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      this.visit = null;
      throw new Said("The server has forgotten this visit: drop the photograph again.");
    }
  }
  send(path, body) {
    return this.own(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
  }

  async upload(file) {
    if (!this.visit) await this.arrive();
    const options = {method: "POST", body: file, headers: {"Content-Type": "application/octet-stream"}};
    const path = "photographs?name=" + encodeURIComponent(file.name);
    return this.own(path, options).catch(error => {
      if (this.visit) throw error;
      return this.own(path, options); // the visit was forgotten; the photograph begins a new one
    });
  }
  // The file of a path, or those that make one together.
  uploadPath(files) {
    const body = new FormData();
    for (const file of files) body.append("file", file);
    return this.own("path-files", {method: "POST", body});
  }
  photograph(number) { return this.own(`photographs/${number}`); }
  plan(request) { return this.send("plans", request); }
  // Each request takes the place of the one before, so that they must arrive in their order.
  render(request) {
    const ask = async () => (await this.send("results", request)).result;
    return this.turn = this.turn.then(ask, ask);
  }
  cancel(result) { return this.own(`results/${result}`, {method: "DELETE"}).catch(() => null); }
  file(folder, name) { return `visits/${this.visit}/files/${folder}/${name}`; }
  archive(result) { return `visits/${this.visit}/results/${result}/all.zip`; }

  // The news of a result from its beginning; `begin` is called first, and again after a lost connection, since all
  // news come again. Returns a function that stops listening.
  listen(result, begin, hear) {
    const source = new EventSource(`visits/${this.visit}/results/${result}/events`);
    source.onopen = begin;
    source.onmessage = message => {
      const event = JSON.parse(message.data);
      if (event.done || event.error || event.cancelled) source.close();
      hear(event.error ? {error: sentence(event.error)} : event);
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) return hear({error: LOST});
      this.ask("paths").catch(error => { source.close(); hear({error: error.message}); });
    };
    return () => source.close();
  }
}

export const sentence = text =>
  text.replace(/^[a-z](?=[a-z]* )/, letter => letter.toUpperCase()) + (/[.!?]$/.test(text) ? "" : ".");
