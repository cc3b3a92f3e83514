// Frames of a file that the reader gives: a GIF, a video, or several pictures.
// Errors are sentences for the reader.

const LONGEST = 200; // frames: of longer files the last ones, for the forecast follows them
const RATE = 10; // frames that are taken from a second of a video

// files: File[]. Gives {frames: [Float32Array(height * width) in 0..1, ...], height, width}, grey, cut to a square.
export async function framesOf(files, side) {
  const pictures = await pictureList(files);
  const canvas = new OffscreenCanvas(side, side);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const frames = pictures.map((picture) => {
    const edge = Math.min(picture.width, picture.height);
    pen.fillRect(0, 0, side, side); // black, where the picture is transparent
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture, (picture.width - edge) / 2, (picture.height - edge) / 2, edge, edge, 0, 0, side, side);
    picture.close();
    return grey(pen.getImageData(0, 0, side, side).data);
  });
  return { frames, height: side, width: side };
}

async function pictureList(files) {
  if (files.length > 1) {
    const sorted = [...files].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    return Promise.all(sorted.slice(-LONGEST).map(still));
  }
  const [file] = files;
  if (file.type.startsWith("video/")) return videoFrames(file);
  if (file.type.startsWith("image/")) return animationFrames(file);
  const known = "Choose a GIF, a video, or several pictures.";
  throw new Error(`${file.name} is neither a picture nor a video that this browser knows. ${known}`);
}

async function still(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} could not be read as a picture.`);
  }
}

async function animationFrames(file) {
  if (!("ImageDecoder" in self)) {
    const instead = "Choose a video, or several pictures.";
    throw new Error(`This browser cannot take an animation apart (it lacks ImageDecoder). ${instead}`);
  }
  const decoder = new ImageDecoder({ data: await file.arrayBuffer(), type: file.type });
  try {
    await decoder.tracks.ready;
    const count = decoder.tracks.selectedTrack.frameCount;
    const frames = [];
    for (let frameIndex = Math.max(0, count - LONGEST); frameIndex < count; frameIndex++) {
      const { image } = await decoder.decode({ frameIndex });
      frames.push(await createImageBitmap(image));
      image.close();
    }
    return frames;
  } catch {
    throw new Error(`${file.name} could not be read as an animation. Is the file whole?`);
  } finally {
    decoder.close();
  }
}

async function videoFrames(file) {
  const video = document.createElement("video");
  const address = URL.createObjectURL(file);
  const told = (event) =>
    new Promise((resolve, reject) => {
      const refuse = () => reject(new Error(`${file.name} is a video that this browser cannot play.`));
      video.addEventListener(event, resolve, { once: true });
      video.addEventListener("error", refuse, { once: true });
    });
  const seek = async (second) => {
    const found = told("seeked");
    video.currentTime = second;
    await found;
  };
  try {
    video.muted = true;
    const loaded = told("loadeddata");
    video.src = address;
    await loaded;
    const frames = [];
    if (!Number.isFinite(video.duration)) await seek(1e9); // a browser's own recordings do not say how long they are
    const length = Number.isFinite(video.duration) ? video.duration : video.currentTime;
    const count = Math.ceil(length * RATE - 1e-6); // 1.1 s, say, is not exact, and not 12 frames
    for (let number = Math.max(0, count - LONGEST); number < count; number++) {
      await seek(number / RATE);
      frames.push(await createImageBitmap(video));
    }
    return frames;
  } finally {
    URL.revokeObjectURL(address);
  }
}

// RGBA bytes -> brightness in 0..1, by the weights that Pillow uses.
function grey(bytes) {
  const frame = new Float32Array(bytes.length / 4);
  for (let i = 0; i < frame.length; i++) {
    frame[i] = (0.299 * bytes[4 * i] + 0.587 * bytes[4 * i + 1] + 0.114 * bytes[4 * i + 2]) / 255;
  }
  return frame;
}
