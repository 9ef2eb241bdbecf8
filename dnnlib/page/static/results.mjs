// What was rendered: frames, their samples and spread, playing, downloads.

const $ = id => document.getElementById(id);
const FRAME_MS = 1000 / 12;

export class Results {
  // `show(address, camera)`: puts a picture on the stage.
  constructor(server, show) {
    this.server = server;
    this.show = show;
    this.clear();
    $("frame").oninput = () => { this.stop(); this.look(Number($("frame").value)); };
    $("play").onclick = () => this.playing ? this.stop() : this.play();
  }

  // Nothing was rendered, or something else will be.
  clear() {
    this.stop();
    Object.assign(this, {result: null, cameras: [], frames: [], at: 0, kind: 0});
    for (const id of ["steps", "shown", "downloads", "comparing"]) $(id).hidden = true;
  }
  begin(result, cameras) {
    this.clear();
    Object.assign(this, {result, cameras});
  }

  add(event) {
    this.frames.push([event.frame, ...event.samples, ...(event.spread ? [event.spread] : [])]);
    this.chips(this.frames[0].length, Boolean(event.spread));
    return this.look(this.frames.length - 1);
  }
  finish({files = []}) {
    const server = this.server, few = this.frames.length < 2;
    for (const [id, file] of [["mp4", "video.mp4"], ["gif", "video.gif"], ["path", "trajectory.json"]]) {
      $(id).href = server.file(this.result, file);
      $(id).hidden = !files.includes(file) || (few && id !== "path");
    }
    $("zip").href = server.archive(this.result);
    $("downloads").hidden = !this.frames.length;
  }

  // The k-th frame, in the sample that is chosen.
  look(k) {
    this.at = k;
    $("frame").max = this.frames.length - 1;
    $("frame").value = k;
    $("number").textContent = `${k + 1} / ${this.frames.length}`;
    $("steps").hidden = this.frames.length < 2;
    $("comparing").hidden = false;
    const file = this.frames[k][this.kind] ?? this.frames[k][0];
    $("png").href = this.server.file(this.result, file);
    return this.show($("png").href, this.cameras[k]);
  }
  get camera() { return this.cameras[this.at]; }

  chips(count, spread) {
    if (count < 2 || $("shown").childElementCount === count) { $("shown").hidden = count < 2; return; }
    $("shown").replaceChildren(...Array.from({length: count}, (_, kind) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = spread && kind === count - 1 ? "Spread" : `Sample ${kind + 1}`;
      button.setAttribute("aria-pressed", String(kind === this.kind));
      button.onclick = () => {
        this.kind = kind;
        [...$("shown").children].forEach((other, k) => other.setAttribute("aria-pressed", String(k === kind)));
        this.look(this.at);
      };
      return button;
    }));
    $("shown").hidden = false;
  }

  play() {
    this.playing = setInterval(() => this.look((this.at + 1) % this.frames.length), FRAME_MS);
    $("play").textContent = "Pause";
  }
  stop() { clearInterval(this.playing); this.playing = null; $("play").textContent = "Play"; }
}
