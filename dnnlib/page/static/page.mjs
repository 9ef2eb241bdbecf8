// The page: what is on it, what is asked of the server, and what survives when it is loaded again.

import {START, fromNumbers, moveTo, moved} from "./camera.mjs";
import {Crop} from "./crop.mjs";
import {KeyFrames} from "./keyframes.mjs";
import {Results} from "./results.mjs";
import {Said, Server, sentence} from "./server.mjs";
import {Stage} from "./stage.mjs";

const $ = id => document.getElementById(id);
const AXES = [["pan_deg", "Pan °", -45, 45], ["tilt_deg", "Tilt °", -45, 45], ["roll_deg", "Roll °", -45, 45],
              ["right", "Right", -2, 2], ["up", "Up", -2, 2], ["forward", "Forward", -2, 2], ["zoom", "Zoom", 0.5, 3]];
const FILE = "from a file";
const KEPT = ["fov", "scale", "seed", "samples", "condition", "name", "frames", "amount", "keycount"]; // over a reload
const FOLDED = ["cropping", "numbers", "paths", "keyframes", "more"];
const FRAME_MS = 1000 / 12, MOST_FRAMES = 600, FOV = [1, 170];

const memory = JSON.parse(sessionStorage.getItem("visit") ?? "{}");
const server = new Server(memory.visit);
const state = {photograph: null, move: {...START}, followed: null, asked: 0, pathFile: null};
const number = id => $(id).value === "" ? undefined : Number($(id).value);
const optics = () => number("fov") >= FOV[0] && number("fov") <= FOV[1] ? {fov: number("fov"), center: [0.5, 0.5]}
  : state.followed ?? {fov: state.photograph?.fov ?? 58, center: [0.5, 0.5]};
const fov = () => crop.square.fov;
const scale = () => number("scale") || 1;
const moveCamera = () => moved(state.move, fov(), scale());

const crop = new Crop({optics, change: () => change(here()), settle: show});
const stage = new Stage({square: () => crop.square, scale, move: here, change, settle: show});
const results = new Results(server, (address, camera) => {
  stage.look(camera);
  return stage.showView(address, camera);
});
const keyframes = new KeyFrames({
  move: () => ({...here()}),
  go: move => { change(move); show(); },
  changed: remember,
});

function say(text, error = false) { $("message").textContent = text; $("message").className = error ? "error" : ""; }
function tell(error) {
  if (!(error instanceof Said)) console.error(error);
  say(error instanceof Said ? error.message : "The page made a mistake: load it again.", true);
}
const attempt = action => async (...values) => {
  try { await action(...values); } catch (error) { tell(error); }
};

function remember() {
  if (!state.photograph) return;
  Object.assign(memory, {visit: server.visit, photograph: state.photograph.photograph, move: state.move,
    crop: crop.point, pathFile: state.pathFile, keys: keyframes?.keys ?? [],
    result: results?.result && {name: results.result, cameras: results.cameras},
    values: Object.fromEntries(KEPT.map(id => [id, $(id).value])), open: FOLDED.filter(id => $(id).open)});
  sessionStorage.setItem("visit", JSON.stringify(memory));
}

// The photograph

const open = attempt(async file => {
  if (!file) return;
  say("Reading the photograph …");
  halt();
  const photograph = await server.upload(file);
  begin(photograph);
  $("fov").value = "";
  const guess = photograph.fov_from === "default" ? ", a guess" : "";
  say(`${photograph.name}; field of view ${Number(photograph.fov.toFixed(1))}°${guess}.`);
});

// Everything on the page is that photograph's.
function begin(photograph, point = null) {
  Object.assign(state, {photograph, followed: null});
  document.body.classList.remove("empty");
  results.clear();
  keyframes.clear();
  const address = server.file(photograph.photograph, "photograph.jpg");
  crop.open(address, photograph, point);
  stage.open(address, photograph.width, photograph.height);
  $("compare").value = 0;
  stage.compare(0);
  lens();
  setMove({...START});
  remember();
}
function lens() {
  const {fov, fov_from} = state.followed ?? state.photograph;
  $("fov").placeholder = Number(fov.toFixed(1));
  crop.draw();
  const source = {default: "nothing: a guess", path: "the path", given: "you"}[fov_from] ?? fov_from;
  $("lens").textContent = `Field of view in degrees, of the shorter side; from ${source}.`;
}

// The camera

for (const [name, title, low, high] of AXES) { // a slider and a number each, always equal
  const row = document.createElement("div"), label = document.createElement("label");
  row.className = "row";
  label.textContent = title;
  label.htmlFor = name;
  const input = type => Object.assign(document.createElement("input"), {type, step: "any"});
  const [slider, field] = [input("range"), input("number")];
  Object.assign(slider, {min: low, max: high, step: 0.05, value: START[name], id: `${name}_slider`});
  Object.assign(field, {id: name, value: START[name]});
  slider.setAttribute("aria-label", title);
  const read = source => source.value === "" ? START[name] : Number(source.value);
  const set = source => change({...here(), [name]: read(source)}, source);
  slider.oninput = () => set(slider);
  field.oninput = () => { if (!(name === "zoom" && !(Number(field.value) > 0))) set(field); };
  slider.onchange = field.onchange = () => show();
  row.append(label, slider, field);
  $("move").append(row);
}

function setMove(move, source) {
  state.move = move;
  for (const [name] of AXES) {
    const shown = Number(move[name].toFixed(3));
    for (const input of [$(name), $(`${name}_slider`)]) if (input !== source) input.value = shown;
  }
  stage.look(moveCamera());
}

// The move that leads to what is seen: after a path one goes on from its frame.
function here() { return results.frames.length > 1 ? moveTo(results.camera, fov(), scale()) : state.move; }

// The camera moves: what is known is seen at once, a draft of the rest as soon as it is there.
function change(move, source) {
  if (!state.photograph) return;
  stopListening();
  stopSketch();
  if (results.frames.length > 1) results.clear();
  setMove(move, source);
  draft();
}

// A path tells its own lens; whoever goes on from it keeps that.
const base = wish => ({
  photograph: state.photograph.photograph,
  ...(number("fov") !== undefined || wish.path || wish.path_file ? {fov: number("fov")} : lensOfPath()),
  crop: crop.point ?? undefined,
  seed: number("seed") ?? 0,
  scene_scale: scale(),
  ...wish,
});
const lensOfPath = () => state.followed && {fov: state.followed.fov, center: state.followed.center};
let drafting = false, wantsDraft = false;
async function draft() {
  wantsDraft = true;
  if (drafting) return;
  drafting = true;
  try {
    while (wantsDraft) {
      wantsDraft = false;
      const camera = moveCamera(), asked = ++state.asked;
      const result = await server.render(base({move: state.move, preview: true}));
      const frame = await new Promise(resolve => server.listen(result, () => null, event => {
        if (event.frame) resolve(event.frame);
        if (event.error) say(event.error, true);
        if (event.error || event.cancelled) resolve(null);
      }));
      if (frame && asked === state.asked) await stage.showView(server.file(result, frame), camera, "draft");
    }
  } catch (error) { tell(error); }
  drafting = false;
}

// Rendering

let deaf = null; // stops listening to what is being rendered
function stopListening() {
  deaf?.();
  deaf = null;
  $("busy").className = "idle";
}
function halt() {
  wantsDraft = false;
  state.asked++;
  stopSketch();
  stopListening();
}

const render = attempt(async (wish, cameras) => {
  halt();
  say("Making it …");
  const asked = state.asked;
  const request = {...base(wish), samples: number("samples") ?? 1, condition: $("condition").value};
  if (!cameras) cameras = await plan(request);
  if (asked !== state.asked) return;
  const result = await server.render(request);
  if (asked === state.asked) hear(result, cameras);
});

// Where the cameras of a request will stand, and the lens that its file tells.
async function plan(request) {
  const planned = await server.plan(request);
  if (!request.keys) state.followed = planned.fov_from === "path" ? planned : null;
  $("pathnotes").textContent = planned.notes.map(note => `${sentence(note)} `).join("");
  lens();
  return planned.cameras.map(fromNumbers);
}

function hear(result, cameras) {
  deaf = server.listen(result, () => {
    results.begin(result, cameras);
    remember();
    busy({progress: 0});
  }, event => {
    if (event.place) busy({place: event.place});
    if ("progress" in event) busy(event);
    if (event.frame) results.add(event);
    if (event.error) say(event.error, true);
    if (event.cancelled) say(results.frames.length ? "Cancelled; what was made is here." : "Cancelled.");
    if (event.done) say(event.done.report ? `Done; ${event.done.report}.` : "Done.");
    if (event.done || event.cancelled) results.finish(event.done ?? {});
    if (event.done || event.error || event.cancelled) $("busy").className = "idle";
  });
}
function busy({place, progress = 0, seconds_left}) {
  $("busy").className = "";
  $("progress").value = progress;
  const left = seconds_left > 0 ? `${time(seconds_left)} left` : "";
  $("left").textContent = place ? `waiting, place ${place} in the queue` : left;
  say(place ? "Waiting for its turn …" : "Making it …");
}
const time = seconds => seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;

function show() {
  if (!state.photograph) return;
  results.stop();
  render({move: state.move}, [moveCamera()]);
}

// Paths

let sketching = null;
function stopSketch() { clearInterval(sketching); sketching = null; }
const sketch = attempt(async wish => {
  halt();
  results.clear();
  stage.hideView();
  const cameras = await plan(base(wish));
  let k = 0;
  say("This is what the photograph knows of the path.");
  sketching = setInterval(() => {
    stage.look(cameras[k]);
    if (++k < cameras.length) return;
    stopSketch();
    setTimeout(() => { if (!sketching && !results.result) stage.look(moveCamera()); }, 600);
  }, FRAME_MS);
});

function wantedPath() {
  const name = $("name").value, frames = number("frames");
  if (name !== FILE) return {path: name, frames, amount: number("amount")};
  if (!state.pathFile) throw new Said("Choose the file of a path first.");
  const {path_file, matrices} = state.pathFile;
  const [convention, pose] = [$("convention").value, $("pose").value];
  return {path_file, frames, ...(matrices ? {convention, pose} : {})};
}
$("follow").onclick = attempt(() => render(wantedPath()));
$("sketch").onclick = attempt(() => sketch(wantedPath()));
$("renderkeys").onclick = () => render(keyframes.request);
$("sketchkeys").onclick = () => sketch(keyframes.request);

function choosePath() {
  const path = paths[$("name").value];
  for (const element of document.querySelectorAll(".named")) element.hidden = !path;
  for (const element of document.querySelectorAll(".filed")) element.hidden = Boolean(path);
  for (const element of document.querySelectorAll(".told")) element.hidden = Boolean(path) || !state.pathFile?.matrices;
  if (!path) { $("frames").value = ""; return; }
  $("frames").value ||= 12;
  $("amount").value = path.amount;
  $("unit").textContent = `The amount is in ${path.unit}.`;
}
$("name").onchange = choosePath;

// A file of a path is looked at as soon as it is chosen, or dropped.
const openPath = attempt(async files => {
  if (!files.length) return;
  say("Reading the path …");
  setPathFile(await server.uploadPath(files));
  $("name").value = FILE;
  choosePath();
  const {kind, cameras} = state.pathFile;
  $("frames").value = kind === "key frames" ? 24 : cameras > MOST_FRAMES ? MOST_FRAMES : "";
  $("paths").open = true;
  say(state.pathFile.matrices ? "Say what the matrices are, then try the path." : "");
  remember();
});
function setPathFile(file) {
  state.pathFile = file;
  if (file) $("pathfacts").textContent = `${file.name}: ${file.kind === "key frames" ? "" : `${file.kind}, `}${
    file.cameras} ${file.kind === "key frames" ? "key frames" : "cameras"}.`;
}
$("pathfile").onchange = () => { openPath([...$("pathfile").files]); $("pathfile").value = ""; };

// Everything else on the page

$("show").onclick = show;
$("reset").onclick = () => { change({...START}); show(); };
$("cancel").onclick = attempt(() => server.cancel(results.result));
$("compare").oninput = () => stage.compare(Number($("compare").value));
for (const id of ["fov", "scale", "seed", "samples"]) $(id).addEventListener("change", () => {
  if (results.frames.length > 1) return say("The next picture will have it."); // and the path stays
  crop.draw();
  change(state.move);
  show();
});
document.addEventListener("change", remember);
document.addEventListener("toggle", remember, true);

$("stage").addEventListener("pointerdown", () => results.stop(), true);

$("drop").onclick = $("another").onclick = () => $("file").click();
$("file").onchange = () => { open($("file").files[0]); $("file").value = ""; };
let inside = 0; // enter and leave come for every element that is crossed
const over = on => document.body.classList.toggle("over", on);
document.addEventListener("dragenter", event => { event.preventDefault(); inside++; over(true); });
document.addEventListener("dragleave", () => { if (--inside <= 0) over(false); });
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {
  event.preventDefault();
  inside = 0;
  over(false);
  const files = [...event.dataTransfer.files], ends = $("pathfile").accept.split(",");
  if (state.photograph && files.every(file => ends.some(end => file.name.toLowerCase().endsWith(end)))) openPath(files);
  else open(files[0]);
});
document.addEventListener("paste", event => open(event.clipboardData.files[0]));

let paths = {};
const restore = attempt(async () => {
  paths = await server.ask("paths");
  for (const name of [...Object.keys(paths), FILE]) $("name").append(new Option(name));
  choosePath();
  if (!memory.photograph) return;
  const {photograph, move, result, keys, values, open, pathFile, crop: point} = structuredClone(memory);
  begin(await server.photograph(photograph), point);
  setPathFile(pathFile);
  for (const [id, value] of Object.entries(values)) { $(id).value = value; if (id === "name") choosePath(); }
  for (const id of FOLDED) $(id).open = open.includes(id);
  keyframes.restore(keys);
  setMove(move);
  if (result) hear(result.name, result.cameras);
});
restore();
