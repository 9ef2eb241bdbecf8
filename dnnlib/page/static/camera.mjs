// Cameras as the server computes them (datasets/trajectories.py): axes x right, y down, z forward; the photograph's
// camera stands at the origin. Lengths in pictures are in units of the side of the square that is seen.

export const START = {pan_deg: 0, tilt_deg: 0, roll_deg: 0, right: 0, up: 0, forward: 0, zoom: 1};
export const SUBJECT = 3.5; // units of moves: how far away the network takes what it sees to be

const radians = degrees => degrees * Math.PI / 180;
const degrees = radians => radians * 180 / Math.PI;

// 3x3 matrices are arrays of nine numbers, row by row.
export const multiply = (a, b) => a.map((_, k) => {
  const row = 3 * Math.floor(k / 3), column = k % 3;
  return a[row] * b[column] + a[row + 1] * b[column + 3] + a[row + 2] * b[column + 6];
});
const transpose = m => [m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]];
const apply = (m, v) => [0, 3, 6].map(row => m[row] * v[0] + m[row + 1] * v[1] + m[row + 2] * v[2]);
export function inverse(m) {
  const [a, b, c, d, e, f, g, h, i] = m;
  const cofactors = [e * i - f * h, c * h - b * i, b * f - c * e, f * g - d * i, a * i - c * g, c * d - a * f,
                     d * h - e * g, b * g - a * h, a * e - b * d];
  const determinant = a * cofactors[0] + b * cofactors[3] + c * cofactors[6];
  return cofactors.map(value => value / determinant);
}
const turn = (axis, angle) => {
  const [c, s] = [Math.cos(radians(angle)), Math.sin(radians(angle))];
  return [[1, 0, 0, 0, c, -s, 0, s, c], [c, 0, s, 0, 1, 0, -s, 0, c], [c, -s, 0, s, c, 0, 0, 0, 1]][axis];
};

export const focal = fov => 0.5 / Math.tan(radians(fov) / 2);

// The camera after a move: {fx, fy, cx, cy, rotation, translation}, world to camera, in distances of the subject;
// `scale` multiplies how far it goes.
export function moved(move, fov, scale) {
  const rotation = multiply(multiply(turn(2, -move.roll_deg), turn(0, -move.tilt_deg)), turn(1, -move.pan_deg));
  const translation = apply(rotation, [move.right, -move.up, move.forward]).map(value => -value * scale / SUBJECT);
  const f = focal(fov) * move.zoom;
  return {fx: f, fy: f, cx: 0.5, cy: 0.5, rotation, translation};
}

// The same from the sixteen numbers that the server tells of a camera.
export function fromNumbers([fx, fy, cx, cy, ...p]) {
  return {fx, fy, cx, cy, rotation: [p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]],
          translation: [p[3], p[7], p[11]].map(value => value / SUBJECT)};
}

// The move that leads to a camera: the inverse of `moved`.
export function moveTo(camera, fov, scale) {
  const r = camera.rotation, clamp = value => Math.min(1, Math.max(-1, value));
  const pan_deg = degrees(Math.atan2(r[6], r[8])), tilt_deg = degrees(Math.asin(clamp(-r[7])));
  const rest = multiply(r, transpose(multiply(turn(0, -tilt_deg), turn(1, -pan_deg))));
  const [x, y, z] = apply(transpose(r), camera.translation).map(value => value * SUBJECT / scale);
  return {pan_deg, tilt_deg, roll_deg: -degrees(Math.atan2(rest[3], rest[0])), right: -x, up: y, forward: -z,
          zoom: camera.fx / focal(fov)};
}

const INSET = 0.5; // pixels, as in torch_utils/aiming.py
const SMALLEST = 0.501; // square, of the shorter side: a little more than the library asks for

// The square that is seen of a photograph: {fov, source}. `fov` are degrees that it spans; `source` is the camera
// of the photograph as `moved` has cameras, that of the square being the world; lengths there are shorter sides of the
// photograph. `lens`: {fov, center}: degrees that the shorter side spans, and the principal point; `crop`:
// what the square is taken around, or null; both points are fractions of the sides. null where there is no such square.
export function square({width, height}, {fov, center: [cx, cy]}, crop) {
  const shorter = Math.min(width, height), [w, h] = [width / shorter, height / shorter];
  const f = focal(fov), pixel = 1 / shorter;
  const source = {fx: f, fy: f, cx: cx * w, cy: cy * h, rotation: [1, 0, 0, 0, 1, 0, 0, 0, 1], translation: [0, 0, 0]};
  const centered = Math.abs(source.cx - w / 2) <= pixel && Math.abs(source.cy - h / 2) <= pixel;
  const [x, y] = (crop ?? [cx, cy]).map((part, axis) => part * [w, h][axis]);
  const [dx, dy] = centered ? [x - w / 2, y - h / 2] : [x - source.cx, y - source.cy];
  const anyway = !crop || (centered ? !dx && !dy : Math.hypot(dx, dy) < 1e-6);
  if (anyway) {
    const side = centered ? 1 : Math.min(1, 2 * source.cx, 2 * (w - source.cx), 2 * source.cy, 2 * (h - source.cy));
    if (centered) Object.assign(source, {cx: w / 2, cy: h / 2});
    return {fov: 2 * degrees(Math.atan(side / 2 / f)), source};
  }
  const [right, down] = [(x - source.cx) / f, (y - source.cy) / f];
  const pan = degrees(Math.atan2(right, 1)), tilt = degrees(Math.atan2(-down, Math.hypot(right, 1)));
  source.rotation = transpose(multiply(turn(0, -tilt), turn(1, -pan)));
  const pixels = multiply([f, 0, source.cx, 0, f, source.cy, 0, 0, 1], source.rotation), inset = INSET * pixel;
  let half = Infinity;
  for (const border of [[1, 0, -inset], [-1, 0, w - inset], [0, 1, -inset], [0, -1, h - inset]]) {
    const [i, j, middle] = apply(transpose(pixels), border);
    if (!(middle > 0)) return null;
    half = Math.min(half, middle / (Math.abs(i) + Math.abs(j)));
  }
  if (!(2 * half * f >= SMALLEST)) return null;
  return {fov: 2 * degrees(Math.atan(half)), source};
}

// Where the camera goes when it walks `ahead`, `right` and `up`, in its own direction but level.
export function walked(move, right, up, ahead) {
  const [c, s] = [Math.cos(radians(move.pan_deg)), Math.sin(radians(move.pan_deg))];
  return {...move, right: move.right + right * c + ahead * s, forward: move.forward - right * s + ahead * c,
          up: move.up + up};
}

// From points of the plane at the subject's distance, as the photograph's camera has them (x/z, y/z, 1), to a picture.
function fromPlane({fx, fy, cx, cy, rotation: r, translation: t}) {
  const plane = r.map((value, k) => k % 3 === 2 ? value + t[(k - 2) / 3] : value);
  return multiply([fx, 0, cx, 0, fy, cy, 0, 0, 1], plane);
}

// Where the picture of one camera is in that of another: exact where the camera only turns or zooms, and for what
// stands at the subject's distance.
export const homography = (from, to) => multiply(fromPlane(to), inverse(fromPlane(from)));

// Where it takes a point; and the corners of a rectangle, in turn.
export function project(h, [x, y]) {
  const [u, v, w] = apply(h, [x, y, 1]);
  return [u / w, v / w];
}
export const corners = (width, height) => [[0, 0], [width, 0], [width, height], [0, height]];

// The same for CSS, between elements whose unit is `side` pixels.
export function matrix3d(h, side) {
  const [a, b, c, d, e, f, g, i, j] = h, s = side;
  const columns = [a, d, 0, g / s, b, e, 0, i / s, 0, 0, 1, 0, c * s, f * s, 0, j];
  return `matrix3d(${columns.map(value => value.toPrecision(15)).join(",")})`;
}
