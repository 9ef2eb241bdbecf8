// The whole photograph, small, with the square that is seen of it: drag it, or move it by the arrow keys.

import {START, corners, homography, moved, project, square} from "./camera.mjs";

const $ = id => document.getElementById(id);
const STEP = 0.01, MIDDLE = [0.5, 0.5];
const ARROWS = {ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP]};
const HALVINGS = 20, HEIGHT_REM = 13;

export class Crop {
  // `control`: {optics(), change(), settle()}: the lens, and what is told of changes.
  constructor(control) {
    this.control = control;
    this.point = null; // what the square is taken around; null: what it is taken around anyway
    const whole = $("whole");
    whole.onpointerdown = event => {
      if (event.button > 0) return;
      event.preventDefault();
      whole.focus({preventScroll: true, focusVisible: false});
      whole.setPointerCapture(event.pointerId);
      this.to(this.under(event));
    };
    whole.onpointermove = event => { if (whole.hasPointerCapture(event.pointerId)) this.to(this.under(event)); };
    whole.onpointerup = whole.onpointercancel = () => control.settle();
    whole.onkeydown = event => {
      if (!(event.key in ARROWS)) return;
      event.preventDefault();
      event.stopPropagation();
      this.to((this.point ?? MIDDLE).map((part, axis) => part + ARROWS[event.key][axis]));
    };
    whole.onkeyup = event => { if (event.key in ARROWS) control.settle(); };
    $("middle").onclick = () => { this.point = null; control.change(); control.settle(); };
  }

  under(event) {
    const box = $("whole").getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  // A new photograph: its address and size in pixels.
  open(address, size, point = null) {
    this.size = size;
    this.point = point;
    $("whole_photograph").src = address;
    const shorter = Math.min(size.width, size.height), shape = size.width / size.height;
    Object.assign($("whole").style, {aspectRatio: shape, width: `${HEIGHT_REM * shape}rem`});
    $("outline").setAttribute("viewBox", `0 0 ${size.width / shorter} ${size.height / shorter}`);
    this.draw();
  }

  get square() {
    const optics = this.control.optics();
    return square(this.size, optics, this.point) ?? square(this.size, optics, null); // the server says what is wrong
  }

  // Towards a point, as far as there is a square around it.
  to(point) {
    if (!point.every(Number.isFinite)) return; // the photograph is not there yet
    const at = share => MIDDLE.map((middle, axis) => Number((middle + share * (point[axis] - middle)).toFixed(4)));
    const possible = share => square(this.size, this.control.optics(), at(share)) !== null;
    let [low, high] = possible(1) ? [1, 1] : [0, 1];
    for (let k = 0; k < HALVINGS && low < high; k++) {
      const middle = (low + high) / 2;
      if (possible(middle)) low = middle; else high = middle;
    }
    this.point = possible(low) ? at(low) : null;
    this.draw();
    this.control.change();
  }

  draw() {
    if (!this.size) return;
    const {fov, source} = this.square, out = homography(moved(START, fov, 1), source);
    const points = corners(1, 1).map(corner => project(out, corner));
    const shorter = Math.min(this.size.width, this.size.height);
    const [w, h] = [this.size.width / shorter, this.size.height / shorter];
    const ring = points.map(([x, y]) => `${x},${y}`).join("L");
    $("shade").setAttribute("d", `M0,0H${w}V${h}H0ZM${ring}Z`); // all but the square
    $("edge").setAttribute("d", `M${ring}Z`);
    $("middle").disabled = this.point === null;
  }
}
