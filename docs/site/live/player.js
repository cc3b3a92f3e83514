// Plays past and then future frames, forecast beside truth, round and round.

import { show } from "./pictures.js";

export class Player {
  #clip = null;
  #at = 0;
  #timer = null;

  // elements: {forecast, truth, truthPanel, play, frame, where}
  constructor(elements) {
    this.elements = elements;
    elements.frame.addEventListener("input", () => {
      this.pause();
      this.#go(Number(elements.frame.value));
    });
    elements.play.addEventListener("click", () => (this.#timer ? this.pause() : this.resume()));
  }

  // clip: {past, forecast, truth, height, width, quantity}; the first three are lists of frames, the truth perhaps a
  // shorter one than the forecast.
  play(clip) {
    this.#clip = clip;
    const count = clip.past.length + clip.forecast.length;
    this.elements.frame.max = count - 1;
    this.elements.truthPanel.hidden = !clip.truth.length;
    this.#go(0);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.pause();
      this.#go(clip.past.length);
    } else {
      this.resume();
    }
  }

  get position() {
    return this.#at;
  }

  pause() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#say("Play");
  }

  resume() {
    if (!this.#clip) return;
    clearInterval(this.#timer);
    const count = this.#clip.past.length + this.#clip.forecast.length;
    this.#timer = setInterval(() => this.#go((this.#at + 1) % count), 160);
    this.#say("Pause");
  }

  #say(what) {
    this.elements.play.textContent = what;
    this.elements.play.setAttribute("aria-pressed", String(what === "Pause"));
  }

  #go(at) {
    if (!this.#clip) return;
    this.#at = at;
    const { past, forecast, truth, height, width, quantity } = this.#clip;
    const ahead = at - past.length;
    show(this.elements.forecast, ahead < 0 ? past[at] : forecast[ahead], height, width, quantity);
    const known = ahead < 0 ? past[at] : truth[ahead];
    if (known) show(this.elements.truth, known, height, width, quantity);
    this.elements.truth.style.opacity = known ? 1 : 0.2; // beyond what is known, the last true frame stays, pale
    this.elements.frame.value = at;
    const [what, number, all] = ahead < 0 ? ["past", at, past.length] : ["forecast", ahead, forecast.length];
    this.elements.where.textContent = `${what} ${number + 1} of ${all}`;
  }
}
