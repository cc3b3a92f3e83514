// A sheet of 28x28 pixels to draw a digit on, by mouse, finger or keyboard.

const SIDE = 28;

export class Sheet {
  bytes = new Uint8Array(SIDE * SIDE);
  #pen;
  #at = [14, 14];

  constructor(canvas, changed) {
    this.#pen = canvas.getContext("2d");
    let last = null;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientY - box.top) / box.height) * SIDE, ((event.clientX - box.left) / box.width) * SIDE];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      last = place(event);
      this.#line(last, last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const next = place(event);
      this.#line(last, next);
      last = next;
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        if (last) changed();
        last = null;
      });
    }
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], " ": [0, 0] };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      this.#at = this.#at.map((place, axis) => Math.min(SIDE - 1, Math.max(0, place + move[axis])));
      if (event.key === " ") {
        this.#line(this.#at, this.#at);
        changed();
      } else {
        this.#show(true);
      }
    });
    canvas.addEventListener("blur", () => this.#show(false));
    this.#show(false);
  }

  wipe() {
    this.bytes.fill(0);
    this.#show(false);
  }

  // A stroke as wide as those of the digits that the model learnt.
  #line(from, to) {
    const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) * 2));
    for (let i = 0; i <= steps; i++) {
      const [cy, cx] = [0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * i) / steps);
      for (let y = 0; y < SIDE; y++) {
        for (let x = 0; x < SIDE; x++) {
          const ink = Math.round(255 * Math.min(1, Math.max(0, 2 - Math.hypot(y + 0.5 - cy, x + 0.5 - cx))));
          this.bytes[y * SIDE + x] = Math.max(this.bytes[y * SIDE + x], ink);
        }
      }
    }
    this.#show(false);
  }

  #show(cursor) {
    const picture = new ImageData(SIDE, SIDE);
    this.bytes.forEach((value, i) => picture.data.set([value, value, value, 255], 4 * i));
    if (cursor) picture.data.set([255, 120, 0, 255], 4 * (this.#at[0] * SIDE + this.#at[1]));
    this.#pen.putImageData(picture, 0, 0);
  }
}
