// The picture that one looks into: the photograph and the newest view, laid to where the camera looks now, and the
// hand and keys that move the camera.

import {START, SUBJECT, corners, focal, homography, matrix3d, moved, project, walked} from "./camera.mjs";

const $ = id => document.getElementById(id);
const WALK = 0.8, LOOK = 25; // units, degrees a second
const KEYS = {KeyW: [0, 0, 1], KeyS: [0, 0, -1], KeyA: [-1, 0, 0], KeyD: [1, 0, 0], KeyR: [0, 1, 0], KeyF: [0, -1, 0]};
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
const NEARLY_STILL = 4; // pixels that a click may move

export class Stage {
  // `control`: {move(), square(), scale(), change(move), settle()}: what the camera is, the square of the photograph
  // that is seen (see camera.mjs), and what is told of changes.
  constructor(control) {
    this.control = control;
    this.camera = this.viewCamera = null;
    this.amount = 0;
    this.held = new Set();
    new ResizeObserver(() => this.draw()).observe($("stage"));
    this.listenToHand();
    this.listenToKeys();
  }

  get side() { return $("stage").clientWidth; }

  // A new photograph: its address and size; what was seen before goes.
  open(address, width, height) {
    this.size = [width, height].map(length => length / Math.min(width, height));
    for (const id of ["photograph", "original"]) {
      $(id).src = address;
      $(id).style.width = `${100 * this.size[0]}%`;
      $(id).style.height = `${100 * this.size[1]}%`;
    }
    this.hideView();
  }
  hideView() { $("view").hidden = true; this.viewCamera = null; $("badge").hidden = true; }

  // A picture from the server, and the camera that took it; resolves when it is there to be seen.
  async showView(address, camera, badge = "") {
    const wanted = this.wanted = new Image();
    wanted.src = address;
    await wanted.decode().catch(() => null);
    if (this.wanted !== wanted) return;
    $("view").src = address;
    $("view").hidden = false;
    $("badge").textContent = badge;
    $("badge").hidden = !badge;
    this.viewCamera = camera;
    this.draw();
  }

  // Look through another camera.
  look(camera) { this.camera = camera; this.draw(); }

  draw() {
    if (!this.size || !this.camera) return;
    const {fov, source} = this.control.square(), start = moved(START, fov, 1);
    $("photograph").style.transform = matrix3d(homography(source, this.camera), this.side);
    $("original").style.transform = matrix3d(homography(source, start), this.side);
    const clip = corners(this.amount / 100, 1).map(corner => project(homography(start, source), corner));
    const shares = clip.map(([x, y]) => `${100 * x / this.size[0]}% ${100 * y / this.size[1]}%`);
    $("original").style.clipPath = `polygon(${shares.join(", ")})`;
    if (this.viewCamera) $("view").style.transform = matrix3d(homography(this.viewCamera, this.camera), this.side);
  }

  // `amount`: percent of the stage, from the left, that shows the photograph itself.
  compare(amount) {
    $("original").hidden = $("divider").hidden = !(amount > 0);
    $("divider").style.left = `${amount}%`;
    this.amount = amount;
    this.draw();
  }

  // One finger, or the mouse, looks; with shift, or two fingers, it goes sideways, and ahead as the fingers part.
  listenToHand() {
    const stage = $("stage"), fingers = new Map();
    let grip = null;
    const hand = () => {
      const points = [...fingers.values()], count = points.length;
      const [x, y] = [0, 1].map(axis => points.reduce((sum, point) => sum + point[axis], 0) / count);
      return {x, y, count, span: count > 1 ? Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]) : 1};
    };
    const take = () => { grip = fingers.size ? {...hand(), move: grip?.move && this.control.move()} : null; };
    stage.onpointerdown = event => {
      if (event.button > 0) return;
      event.preventDefault();
      stage.focus({preventScroll: true, focusVisible: false});
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      take();
      stage.setPointerCapture(event.pointerId);
    };
    stage.onpointermove = event => {
      if (!fingers.has(event.pointerId)) return;
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      const now = hand(), [right, down] = [(now.x - grip.x) / this.side, (now.y - grip.y) / this.side];
      if (!grip.move && now.count < 2 && Math.hypot(right, down) * this.side < NEARLY_STILL) return;
      const from = grip.move ??= this.control.move();
      const {fov} = this.control.square(), distance = SUBJECT / this.control.scale();
      const degrees = fov / from.zoom, units = distance / (focal(fov) * from.zoom);
      this.control.change(event.shiftKey || now.count > 1
        ? walked(from, -right * units, down * units, distance * (1 - grip.span / now.span))
        : {...from, pan_deg: from.pan_deg - right * degrees, tilt_deg: from.tilt_deg + down * degrees});
    };
    stage.onpointerup = stage.onpointercancel = event => {
      const turned = grip?.move;
      fingers.delete(event.pointerId);
      take();
      if (turned && !fingers.size) this.control.settle();
    };
    stage.addEventListener("wheel", event => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode ? 16 : 1); // or lines
      this.control.change(walked(this.control.move(), 0, 0, -Math.max(-120, Math.min(120, pixels)) / 800));
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.control.settle(), 350);
    }, {passive: false});
  }

  listenToKeys() {
    const writing = event => event.target.closest("input, select, textarea, summary")
      || event.ctrlKey || event.metaKey || event.altKey;
    document.addEventListener("keydown", event => {
      if (!this.size || writing(event)) return;
      if (event.code in ARROWS && event.target !== $("stage")) return;
      if (!(event.code in KEYS || event.code in ARROWS)) return;
      event.preventDefault();
      if (!this.held.size) this.begin();
      this.held.add(event.code);
    });
    document.addEventListener("keyup", event => this.release(event.code));
    addEventListener("blur", () => [...this.held].forEach(code => this.release(code)));
  }
  release(code) { if (this.held.delete(code) && !this.held.size) this.control.settle(); }
  begin() {
    let before = performance.now() - 16;
    const step = now => {
      if (!this.held.size) return;
      const seconds = Math.min((now - before) / 1000, 0.1);
      before = now;
      let move = this.control.move();
      for (const code of this.held) {
        if (code in KEYS) move = walked(move, ...KEYS[code].map(value => value * WALK * seconds));
        else {
          const [right, up] = ARROWS[code].map(value => value * LOOK * seconds / move.zoom);
          move = {...move, pan_deg: move.pan_deg + right, tilt_deg: move.tilt_deg + up};
        }
      }
      this.control.change(move);
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
}
