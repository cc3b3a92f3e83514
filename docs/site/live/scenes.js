// Scenes that move: past and future frames together, so that a forecast can be seen beside the truth.
// A scene is {frames: [Float32Array(height * width), ...], height, width}, in the model's units.

const SIDE = 64;
const DIGIT = 28;
const FREE = SIDE - DIGIT;
const SPEED = 3.6; // pixels a frame, as in Moving MNIST

// Two sheets of 28x28 bytes drift straight on and bounce off the edges; where they overlap, the brighter one shows.
export function movingDigits(sheets, count) {
  const bodies = sheets.map((sheet) => {
    const angle = Math.random() * 2 * Math.PI;
    return {
      sheet,
      place: [Math.random() * FREE, Math.random() * FREE],
      velocity: [SPEED * Math.sin(angle), SPEED * Math.cos(angle)],
    };
  });
  const frames = Array.from({ length: count }, () => {
    const frame = new Float32Array(SIDE * SIDE);
    for (const body of bodies) {
      step(body);
      paint(frame, body);
    }
    return frame;
  });
  return { frames, height: SIDE, width: SIDE };
}

function step(body) {
  for (const axis of [0, 1]) {
    let at = body.place[axis] + body.velocity[axis];
    if (at <= 0 || at >= FREE) body.velocity[axis] *= -1;
    body.place[axis] = Math.min(FREE, Math.max(0, at));
  }
}

function paint(frame, { sheet, place }) {
  const [top, left] = place.map(Math.floor);
  for (let y = 0; y < DIGIT; y++) {
    for (let x = 0; x < DIGIT; x++) {
      const at = (top + y) * SIDE + left + x;
      frame[at] = Math.max(frame[at], sheet[y * DIGIT + x] / 255);
    }
  }
}

// Cells of rain in mm/h that one wind carries along while each grows and decays. No radar saw them.
export function drawnRain(count, side = 128) {
  const between = (low, high) => low + (high - low) * Math.random();
  const angle = between(0, 2 * Math.PI);
  const wind = [2.2 * Math.sin(angle), 2.2 * Math.cos(angle)];
  const cells = Array.from({ length: 14 }, () => ({
    y: between(0, side), x: between(0, side),
    radius: between(5, 16), long: between(1, 2.2), turn: between(0, Math.PI),
    peak: between(1, 14), period: between(40, 90), phase: between(0, 2 * Math.PI),
  }));
  const frames = Array.from({ length: count }, (_, t) => {
    const frame = new Float32Array(side * side);
    for (const cell of cells) addCell(frame, side, cell, wind, t);
    return frame.map((rate) => (rate < 0.1 ? 0 : rate));
  });
  return { frames, height: side, width: side };
}

function addCell(frame, side, cell, wind, t) {
  const strength = cell.peak * (0.75 + 0.25 * Math.sin((2 * Math.PI * t) / cell.period + cell.phase));
  const [cy, cx] = [cell.y + wind[0] * t, cell.x + wind[1] * t];
  const [sin, cos] = [Math.sin(cell.turn), Math.cos(cell.turn)];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const [dy, dx] = [around(y - cy, side), around(x - cx, side)];
      const [u, v] = [(dx * cos + dy * sin) / cell.long, dy * cos - dx * sin];
      frame[y * side + x] += strength * Math.exp(-(u * u + v * v) / (2 * cell.radius * cell.radius));
    }
  }
}

// What leaves on one side comes back on the other.
function around(distance, side) {
  return distance - side * Math.round(distance / side);
}
