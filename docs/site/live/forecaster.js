// A model that runs in a worker: `load` first, then as many forecasts as wanted.

export class Forecaster {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #asked = 0;

  constructor() {
    this.#worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data);
    };
    this.#worker.onerror = (event) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(event.message || "the worker could not start"));
      this.#waiting.clear();
    };
  }

  // model: an entry of models.json. Gives {device, threads}.
  load(model) {
    return this.#ask({ kind: "load", model });
  }

  // past: Float32Array of (frames, channels, height, width). Gives {future, milliseconds}.
  forecast(past, height, width, steps) {
    return this.#ask({ kind: "forecast", past, height, width, steps });
  }

  #ask(question) {
    const id = this.#asked++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...question });
    });
  }
}
