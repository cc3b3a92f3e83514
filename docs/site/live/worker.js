// Runs the models, away from the page's own thread, so that the page stays usable while one computes.
//
// Takes {id, kind: "load", model} and {id, kind: "forecast", past, frames, height, width, steps};
// answers {id, ...} with what was made, or {id, error}.

let session = null;
let model = null; // the entry of models.json that the session runs
let runtime = null;

async function runtimeFor(device, folder) {
  const file = device === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  const ort = await import(`./${folder}/${file}`);
  ort.env.wasm.wasmPaths = new URL(`./${folder}/`, import.meta.url).href;
  // Threads need shared memory, which a browser only gives to a page that is isolated from all others.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  return ort;
}

async function hasWebGpu() {
  try {
    return Boolean(navigator.gpu && (await navigator.gpu.requestAdapter()));
  } catch {
    return false;
  }
}

// Gives back what a session holds, which is not left to the garbage collector.
async function release() {
  const old = session;
  session = null;
  await old?.release().catch(() => {}); // it may have failed as a whole, with its graphics processor
}

async function load(wanted) {
  const bytes = new Uint8Array(await (await fetched(`./${wanted.file}`)).arrayBuffer());
  const devices = (await hasWebGpu()) ? ["webgpu", "wasm"] : ["wasm"];
  let why = null;
  for (const device of devices) {
    await release(); // of the model before, or of the device that has just failed
    try {
      runtime = await runtimeFor(device, wanted.runtime);
      session = await runtime.InferenceSession.create(bytes, { executionProviders: [device] });
      model = wanted;
      const { frames_in, channels, height, width } = wanted;
      await forecast(new Float32Array(frames_in * channels * height * width), height, width, 1); // a first one is slow
      return { device, threads: device === "wasm" ? runtime.env.wasm.numThreads : 1 };
    } catch (error) {
      why = error;
    }
  }
  throw why;
}

async function fetched(address) {
  const answer = await fetch(new URL(address, import.meta.url));
  if (!answer.ok) throw new Error(`${address} could not be loaded (${answer.status})`);
  return answer;
}

// past: (frames, channels, height, width), in the model's units, as many frames as it reads or more.
// Gives (steps, channels, height, width), neither rounded nor clipped: a rollout reads its own forecasts as they are.
async function forecast(past, height, width, steps) {
  const size = model.channels * height * width;
  const read = model.frames_in;
  const seen = Array.from({ length: past.length / size }, (_, t) => past.subarray(t * size, (t + 1) * size));
  const from = seen.length;
  while (seen.length < from + steps) {
    const input = new Float32Array(read * size);
    seen.slice(-read).forEach((frame, t) => input.set(frame, t * size));
    const shape = [1, read, model.channels, height, width];
    const made = await session.run({ past: new runtime.Tensor("float32", input, shape) });
    const future = await made.future.getData();
    for (let t = 0; t < future.length / size && seen.length < from + steps; t++) {
      seen.push(future.slice(t * size, (t + 1) * size));
    }
    for (const tensor of Object.values(made)) tensor.dispose();
  }
  const whole = new Float32Array(steps * size);
  seen.slice(from).forEach((frame, t) => whole.set(frame, t * size));
  return whole;
}

let last = Promise.resolve(); // one question after the other: a session cannot run twice at once

self.onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      if (data.kind === "load") {
        postMessage({ id: data.id, ...(await load(data.model)) });
      } else {
        const begun = performance.now();
        const future = await forecast(data.past, data.height, data.width, data.steps);
        postMessage({ id: data.id, future, milliseconds: performance.now() - begun }, [future.buffer]);
      }
    } catch (error) {
      postMessage({ id: data.id, error: String(error?.message ?? error) });
    }
  });
};
