// Key frames: cameras at times between 0 and 1, on a line on which they are dragged. The server draws the path.

import {START} from "./camera.mjs";

const $ = id => document.getElementById(id);

export class KeyFrames {
  // `control`: {move(), go(move), changed()}.
  constructor(control) {
    this.control = control;
    this.clear();
    $("addkey").onclick = () => this.add(control.move());
    $("setkey").onclick = () => { if (this.chosen) { this.chosen.move = control.move(); this.draw(); } };
    $("dropkey").onclick = () => {
      this.keys = this.keys.filter(key => key !== this.chosen);
      this.chosen = this.keys.at(-1) ?? null;
      this.draw();
    };
    $("timeline").onpointerdown = event => this.hold(event);
  }

  clear() { this.keys = []; this.chosen = null; this.draw(); }
  restore(keys) { this.keys = keys; this.chosen = keys.at(-1) ?? null; this.draw(); }

  // One more at the end; the first one stands where the photograph was taken.
  add(move) {
    if (!this.keys.length) this.keys = [{time: 0, move: {...START}}];
    const count = this.keys.length, last = this.keys.at(-1).time;
    if (last > 0) for (const key of this.keys) key.time *= (count - 1) / count;
    this.chosen = {time: 1, move};
    this.keys.push(this.chosen);
    this.draw();
  }

  // What the server is asked for.
  get request() {
    return {keys: this.keys.map(({time, move}) => ({time, ...move})), frames: Number($("keycount").value)};
  }

  hold(event) {
    const index = [...$("timeline").children].indexOf(event.target);
    if (index < 0) return;
    const key = this.chosen = this.keys[index], timeline = $("timeline");
    this.control.go(key.move);
    this.draw();
    if (index === 0) return; // the path begins with it
    timeline.setPointerCapture(event.pointerId);
    const box = timeline.getBoundingClientRect();
    timeline.onpointermove = at => {
      key.time = Math.min(1, Math.max(0.01, (at.clientX - box.left) / box.width));
      this.draw();
    };
    timeline.onpointerup = timeline.onpointercancel = () => {
      timeline.onpointermove = timeline.onpointerup = timeline.onpointercancel = null;
      this.keys.sort((a, b) => a.time - b.time);
      this.draw();
    };
  }

  draw() {
    $("timeline").replaceChildren(...this.keys.map((key, index) => {
      const mark = document.createElement("button");
      mark.type = "button";
      mark.setAttribute("role", "listitem");
      mark.setAttribute("aria-current", String(key === this.chosen));
      mark.textContent = index + 1;
      mark.title = describe(key.move);
      mark.style.left = `${100 * key.time}%`;
      mark.onkeydown = event => {
        if (event.key === "Enter") { this.chosen = key; this.control.go(key.move); this.draw(); }
      };
      return mark;
    }));
    for (const id of ["setkey", "dropkey"]) $(id).disabled = !this.chosen;
    for (const id of ["renderkeys", "sketchkeys"]) $(id).disabled = this.keys.length < 2;
    this.control.changed?.();
  }
}

function describe(move) {
  const parts = Object.entries(move).filter(([name, value]) => Math.abs(value - START[name]) > 5e-3)
    .map(([name, value]) => `${name.replace("_deg", "")} ${value.toFixed(2)}`);
  return parts.join(", ") || "where the photograph was taken";
}
