// The page: which model, which past, how many steps; then a forecast, and its animation.

import { framesOf } from "./files.js";
import { Forecaster } from "./forecaster.js";
import { chart, errors, key } from "./pictures.js";
import { Player } from "./player.js";
import { drawnRain, movingDigits } from "./scenes.js";
import { Sheet } from "./sheet.js";

const $ = (id) => document.getElementById(id);
const LONGEST = 40; // steps that can be asked for, so that many frames of truth are made
const DRAWN = "drawn";
const PATIENCE = 10_000; // milliseconds that the page waits for its service worker, without which it works as well

const forecaster = new Forecaster();
const player = new Player({
  forecast: $("forecast"), truth: $("truth"), truthPanel: $("truth-panel"),
  play: $("play"), frame: $("frame"), where: $("where"),
});
const sheet = new Sheet($("sheet"), () => drawn(digitScene));

let model = null; // the entry of models.json that is chosen
let placed = null; // where it runs: {device, threads}
let scene = null; // {frames, from, height, width, note}: frames as they are shown; the forecast begins at number `from`
let given = null; // the files of the reader's that the scene was read from, or is to be read from
let shown = null; // the name of the model whose forecast is on the page
let turn = 0; // forecasts that a newer wish has overtaken are dropped
let choice = 0; // and so are scenes, which take long to read from a large file

const { models, digits, example } = await content().catch((error) => {
  fail(`This page could not be loaded: ${error.message}`);
  throw error; // nothing of it works without
});

// What a model reads: rain is shown in mm/h and read in dBR, in which everything dry has one number.
const QUANTITIES = {
  brightness: {
    unit: ", of values from 0 to 1",
    read: (value) => value,
    made: (value) => Math.min(1, Math.max(0, value)),
  },
  rain: {
    unit: ", in (mm/h)²",
    read: (rate, m) => (rate < 0.1 ? m.fill : 10 * Math.log10(rate)),
    made: (dbr) => (dbr < -10 ? 0 : 10 ** (dbr / 10)),
  },
};

const SCENES = { digits: digitScene, rain: rainScene, people: exampleScene };

function digitScene() {
  const sheets = [0, 1].map((k) => $(`digit-${k}`).value).map((d) => (d === DRAWN ? sheet.bytes : digits[Number(d)]));
  const note = "Digits that this page moves.";
  return { ...movingDigits(sheets, model.frames_in + LONGEST), from: model.frames_in, note };
}

function rainScene() {
  const note = "Rain that this page draws; no radar saw it.";
  return { ...drawnRain(model.frames_in + LONGEST), from: model.frames_in, note };
}

function exampleScene() {
  const frames = example.frames.map((frame) => Float32Array.from(frame, (byte) => byte / 255));
  return { frames, from: model.frames_in, height: example.height, width: example.width, note: example.note };
}

async function choose(name) {
  const mine = ++turn;
  choice++; // what is still read was for the model before
  model = models.find((m) => m.name === name);
  placed = null;
  for (const kind of Object.keys(SCENES)) $(kind).hidden = model.scene !== kind;
  $("about").textContent = `${model.summary}. ${(model.bytes / 1e6).toFixed(1)} MB.`;
  say(`Loading ${name} ...`);
  try {
    const found = await forecaster.load(model);
    if (mine !== turn) return;
    placed = found;
    await (given && model.quantity !== "rain" ? opened(given) : begin(SCENES[model.scene]));
  } catch (error) {
    if (mine === turn) fail(`${name} could not be started here: ${error.message}`);
  }
}

function drawn(make) {
  given = null;
  return begin(make);
}

async function begin(make) {
  if (!placed) return;
  const mine = ++choice;
  try {
    const made = await make();
    if (mine !== choice) return;
    scene = made;
  } catch (error) {
    if (mine === choice) fail(error.message);
    return;
  }
  await forecast();
}

async function forecast() {
  if (!placed || !scene) return;
  const mine = ++turn;
  const steps = Number(document.querySelector("[name=steps]:checked").value);
  const { frames: known, from, height, width } = scene;
  const { read, made } = QUANTITIES[model.quantity];
  const past = known.slice(0, from).slice(-model.frames_in);
  const truth = known.slice(from, from + steps);
  if (past.length < model.frames_in) {
    fail(`${model.name} reads ${model.frames_in} frames, and the file has ${past.length}. Choose a longer one.`);
    return;
  }
  say("Forecasting ...");
  $("message").textContent = "";
  const input = new Float32Array(past.length * height * width);
  past.forEach((frame, t) => input.set(frame.map((value) => read(value, model)), t * height * width));
  try {
    const { future, milliseconds } = await forecaster.forecast(input, height, width, steps);
    if (mine !== turn) return;
    const frames = Array.from({ length: steps }, (_, t) =>
      future.slice(t * height * width, (t + 1) * height * width).map((value) => made(value)));
    shown = model.name;
    player.play({ past, forecast: frames, truth, height, width, quantity: model.quantity });
    $("key").hidden = model.quantity !== "rain";
    $("unit").textContent = QUANTITIES[model.quantity].unit;
    $("source").textContent = scene.note;
    $("errors").hidden = !truth.length;
    if (truth.length) chart($("curve"), errors(frames, truth), errors(truth.map(() => past.at(-1)), truth));
    say(`${steps} frames in ${milliseconds.toFixed(0)} ms on ${where()}.${lack()}`);
  } catch (error) {
    if (mine === turn) fail(`The forecast failed: ${error.message}`);
  }
}

function where() {
  if (placed.device === "webgpu") return "the graphics processor (WebGPU)";
  return `${placed.threads} thread${placed.threads > 1 ? "s" : ""} of the processor (WebAssembly)`;
}

// What this browser lacks, in a sentence.
function lack() {
  if (placed.device === "webgpu") return "";
  const missing = navigator.gpu ? "a graphics processor that WebGPU can use" : "WebGPU";
  return ` This browser lacks ${missing}${self.crossOriginIsolated ? "" : ", and the page may use one thread only"}.`;
}

function say(text) {
  $("status").textContent = text;
}

function fail(text) {
  given = null; // or another model would fail at it again
  $("message").textContent = text;
  say("");
}

function offerModels() {
  for (const { name } of models) {
    const label = document.createElement("label");
    const button = Object.assign(document.createElement("input"), { type: "radio", name: "model", value: name });
    button.checked = name === models[0].name;
    label.append(button, ` ${name}`);
    button.addEventListener("change", () => choose(name));
    $("models").append(label);
  }
}

function offerDigits() {
  for (const k of [0, 1]) {
    const choice = $(`digit-${k}`);
    for (let d = 0; d < 10; d++) choice.append(new Option(String(d), String(d)));
    choice.append(new Option("the one you draw", DRAWN));
    choice.value = String(k ? 7 : 3);
    choice.addEventListener("change", () => {
      $("pad").hidden = ![0, 1].some((other) => $(`digit-${other}`).value === DRAWN);
      drawn(digitScene);
    });
  }
}

async function opened(files) {
  if (!files.length) return;
  if (model.quantity === "rain") {
    fail("tau-radar reads rain in mm/h, which a picture does not hold. Choose another model for files.");
    return;
  }
  given = files;
  if (!placed) return; // it is read once the model is there
  say("Reading the file ...");
  await begin(async () => {
    const read = await framesOf(files, model.height);
    const note = `${files[0].name}: what comes after its last frame, in grey, cut to a square.`;
    return { ...read, from: read.frames.length, note };
  });
}

function listen() {
  $("new-paths").addEventListener("click", () => drawn(digitScene));
  $("new-rain").addEventListener("click", () => drawn(rainScene));
  $("example").addEventListener("click", () => drawn(exampleScene));
  $("wipe").addEventListener("click", () => sheet.wipe());
  $("file").addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // so that the same file may be chosen again
    opened(files);
  });
  $("steps").addEventListener("change", forecast);
  for (const kind of ["dragover", "dragleave", "drop"]) {
    $("drop").addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") opened([...event.dataTransfer.files]);
    });
  }
}

// What the page knows of the models, and what it shows them.
async function content() {
  const answer = await fetch("./models.json");
  if (!answer.ok) throw new Error(`the server answers ${answer.status} for models.json`);
  return answer.json();
}

// Isolates the page, so that threads can be used, and has its files kept for later.
async function keep() {
  if (!("serviceWorker" in navigator)) return;
  const slow = new Promise((resolve) => setTimeout(resolve, PATIENCE, false));
  if (!(await Promise.race([installed(), slow]))) return;
  if (!self.crossOriginIsolated && !sessionStorage.getItem("reloaded")) {
    sessionStorage.setItem("reloaded", "yes"); // once: a browser may refuse to isolate
    // Chromium puts this page aside as it waits here, and brings it back when the reader reloads the isolated one.
    self.addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
    location.reload();
    await new Promise(() => {});
  }
}

// Whether the service worker is there. One that cannot load its files is told by its state alone: `ready` waits on.
async function installed() {
  const { installing } = await navigator.serviceWorker.register("./service-worker.js");
  const failed = new Promise((resolve) => {
    installing?.addEventListener("statechange", () => installing.state === "redundant" && resolve(false));
  });
  return Promise.race([navigator.serviceWorker.ready.then(() => true), failed]);
}

// Loads the other models, too: whatever passes through the service worker is kept.
async function keepModels() {
  if (!navigator.serviceWorker?.controller) return;
  for (const { file } of models) if (!(await fetch(`./${file}`)).ok) return;
  if (!(await Promise.all(models.map(({ file }) => caches.match(`./${file}`)))).every(Boolean)) return; // no room
  $("kept").textContent = "Everything is loaded: from now on this page works without a network.";
}

await keep().catch(() => {}); // private windows may refuse; the page works without
key($("key"));
offerModels();
offerDigits();
listen();
// For whoever wants forecasts without the page, such as its test.
self.stzoo = {
  forecast: (past, height, width, steps) => forecaster.forecast(past, height, width, steps),
  player,
  get shown() {
    return shown;
  },
};

await choose(models[0].name);
keepModels().catch(() => {}); // without a network, or without room; the model at hand works
