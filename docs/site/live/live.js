// The page: which model, which past, how many steps; then a forecast, and its animation.

import { framesOf } from "./files.js";
import { Forecaster } from "./forecaster.js";
import { chart, errors } from "./pictures.js";
import { Player } from "./player.js";
import { drawnRain, movingDigits } from "./scenes.js";
import { Sheet } from "./sheet.js";

const $ = (id) => document.getElementById(id);
const LONGEST = 40; // steps that can be asked for, so that many frames of truth are made
const DRAWN = "drawn";

const forecaster = new Forecaster();
const player = new Player({
  forecast: $("forecast"), truth: $("truth"), truthPanel: $("truth-panel"),
  play: $("play"), frame: $("frame"), where: $("where"),
});
const sheet = new Sheet($("sheet"), () => begin(digitScene));

const { models, digits, example } = await (await fetch("./models.json")).json();
let model = null; // the entry of models.json that is chosen
let placed = null; // where it runs: {device, threads}
let scene = null; // {frames, from, height, width, note}: frames as they are shown; the forecast begins at number `from`
let turn = 0; // forecasts that a newer wish has overtaken are dropped

// What a model reads: rain is shown in mm/h and read in dBR, in which everything dry has one number.
const QUANTITIES = {
  brightness: { read: (value) => value, shown: (value) => Math.min(1, Math.max(0, value)) },
  rain: {
    read: (rate, m) => (rate < 0.1 ? m.fill : 10 * Math.log10(rate)),
    shown: (dbr) => (dbr < -10 ? 0 : 10 ** (dbr / 10)),
  },
};

const SCENES = { digits: digitScene, rain: rainScene, people: exampleScene };

function digitScene() {
  const sheets = [0, 1].map((k) => ($(`digit-${k}`).value === DRAWN ? sheet.bytes : digits[Number($(`digit-${k}`).value)]));
  return { ...movingDigits(sheets, model.frames_in + LONGEST), from: model.frames_in, note: "Digits that this page moves." };
}

function rainScene() {
  return { ...drawnRain(model.frames_in + LONGEST), from: model.frames_in, note: "Rain that this page draws; no radar saw it." };
}

function exampleScene() {
  const frames = example.frames.map((frame) => Float32Array.from(frame, (byte) => byte / 255));
  return { frames, from: model.frames_in, height: example.height, width: example.width, note: example.note };
}

async function choose(name) {
  const mine = ++turn;
  model = models.find((m) => m.name === name);
  placed = null;
  for (const kind of Object.keys(SCENES)) $(kind).hidden = model.scene !== kind;
  $("about").textContent = `${model.summary}. ${(model.bytes / 1e6).toFixed(1)} MB.`;
  say(`Loading ${name} ...`);
  try {
    const found = await forecaster.load(model);
    if (mine !== turn) return;
    placed = found;
    await begin(SCENES[model.scene]);
  } catch (error) {
    if (mine === turn) fail(`${name} could not be started here: ${error.message}`);
  }
}

async function begin(make) {
  if (!placed) return;
  try {
    scene = await make();
  } catch (error) {
    fail(error.message);
    return;
  }
  await forecast();
}

async function forecast() {
  if (!placed || !scene) return;
  const mine = ++turn;
  const steps = Number(document.querySelector("[name=steps]:checked").value);
  const { frames, from, height, width } = scene;
  const { read, shown } = QUANTITIES[model.quantity];
  const past = frames.slice(0, from).slice(-model.frames_in);
  const truth = frames.slice(from, from + steps);
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
    const made = Array.from({ length: steps }, (_, t) =>
      future.slice(t * height * width, (t + 1) * height * width).map((value) => shown(value)));
    player.play({ past, forecast: made, truth, height, width, quantity: model.quantity });
    $("source").textContent = scene.note;
    $("errors").hidden = !truth.length;
    if (truth.length) chart($("curve"), errors(made, truth), errors(truth.map(() => past.at(-1)), truth));
    const where = placed.device === "webgpu" ? "the graphics processor (WebGPU)" : `${placed.threads} thread${placed.threads > 1 ? "s" : ""} of the processor (WebAssembly)`;
    say(`${steps} frames in ${milliseconds.toFixed(0)} ms on ${where}.${lack()}`);
  } catch (error) {
    if (mine === turn) fail(`The forecast failed: ${error.message}`);
  }
}

// What this browser lacks, in a sentence.
function lack() {
  if (placed.device === "webgpu") return "";
  const missing = navigator.gpu ? "a graphics processor that WebGPU can use" : "WebGPU";
  return self.crossOriginIsolated ? ` This browser lacks ${missing}.` : ` This browser lacks ${missing}, and the page may use one thread only.`;
}

function say(text) {
  $("status").textContent = text;
}

function fail(text) {
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
      begin(digitScene);
    });
  }
}

async function opened(files) {
  if (!files.length || !placed) return;
  if (model.quantity === "rain") {
    fail("tau-radar reads rain in mm/h, which a picture does not hold. Choose another model for files.");
    return;
  }
  say("Reading the file ...");
  await begin(async () => {
    const read = await framesOf([...files], model.height);
    return { ...read, from: read.frames.length, note: `${files[0].name}: what comes after its last frame, in grey, cut to a square.` };
  });
}

function listen() {
  $("new-paths").addEventListener("click", () => begin(digitScene));
  $("new-rain").addEventListener("click", () => begin(rainScene));
  $("example").addEventListener("click", () => begin(exampleScene));
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
      if (kind === "drop") opened(event.dataTransfer.files);
    });
  }
}

// Keeps the page for later without a network, and isolates it, so that threads can be used.
async function keep() {
  if (!("serviceWorker" in navigator)) return;
  await navigator.serviceWorker.register("./service-worker.js", { type: "module" });
  await navigator.serviceWorker.ready;
  if (!self.crossOriginIsolated && !sessionStorage.getItem("reloaded")) {
    sessionStorage.setItem("reloaded", "yes"); // once: a browser may refuse to isolate
    location.reload();
    await new Promise(() => {});
  }
}

await keep().catch(() => {}); // private windows may refuse; the page works without
offerModels();
offerDigits();
listen();
await choose(models[0].name);

// For whoever wants forecasts without the page, such as its test.
self.stzoo = { forecast: (past, height, width, steps) => forecaster.forecast(past, height, width, steps), choose, player };
