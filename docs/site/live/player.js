// Plays past and then future frames, forecast beside truth, round and round.

import { show } from "./pictures.js";

export class Player {
  #clip = null;
  #at = 0;
  #timer = null;
  #stopped = matchMedia("(prefers-reduced-motion: reduce)").matches; // until the reader wants it to play

  // elements: {forecast, truth, truthPanel, play, frame, where}
  constructor(elements) {
    this.elements = elements;
    elements.frame.addEventListener("input", () => {
      this.pause();
      this.#go(Number(elements.frame.value));
    });
    elements.play.addEventListener("click", () => (this.#stopped ? this.resume() : this.pause()));
    this.#say();
  }

  // clip: {past, forecast, truth, height, width, quantity}; the first three are lists of frames, the truth perhaps a
  // shorter one than the forecast. Where the reader has stopped the animation, it stands at the first forecast frame.
  play(clip) {
    this.#clip = clip;
    const count = clip.past.length + clip.forecast.length;
    this.elements.frame.max = count - 1;
    this.elements.truthPanel.hidden = !clip.truth.length;
    this.#go(this.#stopped ? clip.past.length : 0);
    if (!this.#stopped) this.resume();
  }

  get position() {
    return this.#at;
  }

  pause() {
    clearInterval(this.#timer);
    this.#stopped = true;
    this.#say();
  }

  resume() {
    this.#stopped = false;
    this.#say();
    if (!this.#clip) return;
    clearInterval(this.#timer);
    const count = this.#clip.past.length + this.#clip.forecast.length;
    this.#timer = setInterval(() => this.#go((this.#at + 1) % count), 160);
  }

  #say() {
    this.elements.play.textContent = this.#stopped ? "Play" : "Pause";
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
