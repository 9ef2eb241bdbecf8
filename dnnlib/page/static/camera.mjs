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

// The same for CSS, between elements whose unit is `side` pixels.
export function matrix3d(h, side) {
  const [a, b, c, d, e, f, g, i, j] = h, s = side;
  const columns = [a, d, 0, g / s, b, e, 0, i / s, 0, 0, 1, 0, c * s, f * s, 0, j];
  return `matrix3d(${columns.map(value => value.toPrecision(15)).join(",")})`;
}
