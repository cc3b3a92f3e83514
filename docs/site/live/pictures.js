// How frames are shown: brightness as grey, rain as the colours of a radar picture, errors as a chart.

const DRY = [24, 28, 34];
const RAIN = [ // mm/h from which on a colour is used
  [0.1, [170, 210, 240]], [0.5, [90, 160, 230]], [1, [30, 100, 200]], [2, [40, 170, 90]], [5, [240, 220, 60]],
  [10, [245, 150, 30]], [20, [225, 50, 40]], [50, [150, 30, 130]],
];

export function show(canvas, frame, height, width, quantity) {
  canvas.width = width;
  canvas.height = height;
  const picture = new ImageData(width, height);
  for (let i = 0; i < frame.length; i++) {
    const grey = Math.round(255 * Math.min(1, Math.max(0, frame[i])));
    picture.data.set([...(quantity === "rain" ? colour(frame[i]) : [grey, grey, grey]), 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function colour(rate) {
  let found = DRY;
  for (const [from, shade] of RAIN) if (rate >= from) found = shade;
  return found;
}

// Which colour of rain is how much, as the items of a list.
export function key(list) {
  const limits = RAIN.map(([from]) => from);
  for (const [i, shade] of [DRY, ...RAIN.map(([, shade]) => shade)].entries()) {
    const item = document.createElement("li");
    const patch = document.createElement("span");
    patch.style.backgroundColor = `rgb(${shade})`;
    const last = i === limits.length ? "and more" : `to ${limits[i]}`;
    item.append(patch, i ? `${limits[i - 1]} ${last}` : `below ${limits[0]}`);
    list.append(item);
  }
}

// The squared error of each frame of which the truth is known, summed over its pixels.
export function errors(forecast, truth) {
  return truth.map((frame, t) => frame.reduce((sum, value, i) => sum + (value - forecast[t][i]) ** 2, 0));
}

// Each of the two is a list of errors. What it shows is said in words, too, for whoever cannot see it.
export function chart(canvas, ours, persistence) {
  const text = (value) => (value >= 10 ? value.toFixed(0) : value.toPrecision(2));
  const [first, last] = [0, ours.length - 1].map((t) =>
    `of frame ${t + 1} ${text(ours[t])}, and of repetition ${text(persistence[t])}`);
  canvas.setAttribute("aria-label", `The error is ${first}; ${last}.`);
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  const style = getComputedStyle(document.documentElement);
  const [ink, accent] = ["--soft", "--accent"].map((name) => resolved(style.getPropertyValue(name)));
  const top = Math.max(...ours, ...persistence) || 1;
  const [left, right, low, high] = [72, width - 12, height - 28, 12];
  const x = (t) => (ours.length > 1 ? left + ((right - left) * t) / (ours.length - 1) : left);
  const y = (value) => low - ((low - high) * value) / top;
  pen.clearRect(0, 0, width, height);
  pen.font = "14px system-ui, sans-serif";
  pen.fillStyle = pen.strokeStyle = ink;
  pen.textAlign = "right";
  for (const value of [0, top / 2, top]) {
    pen.fillText(text(value), left - 8, y(value) + 5);
    pen.globalAlpha = 0.3;
    pen.strokeRect(left, y(value), right - left, 0);
    pen.globalAlpha = 1;
  }
  pen.textAlign = "center";
  pen.fillText("1", x(0), height - 8);
  pen.fillText(String(ours.length), x(ours.length - 1) - 6, height - 8);
  for (const [values, shade, dash] of [[persistence, ink, [6, 5]], [ours, accent, []]]) {
    pen.strokeStyle = shade;
    pen.lineWidth = 2.5;
    pen.setLineDash(dash);
    pen.beginPath();
    values.forEach((value, t) => pen[t ? "lineTo" : "moveTo"](x(t), y(value)));
    pen.stroke();
  }
  pen.setLineDash([]);
  pen.lineWidth = 1;
}

// A colour of the style sheet as a canvas takes it: light-dark() must be decided first.
function resolved(value) {
  const probe = document.createElement("span");
  probe.style.color = value;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
