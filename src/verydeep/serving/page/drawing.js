// What is drawn over a picture: a heat map or a mask, and boxes.

const COLORS = [[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]]; // dark to bright

function color(share) {
  const place = Math.min(Math.max(share, 0), 1) * (COLORS.length - 1);
  const low = Math.min(Math.floor(place), COLORS.length - 2);
  return COLORS[low].map((value, k) => value + (COLORS[low + 1][k] - value) * (place - low));
}

// Cells as pixels; the outermost are repeated, so that what is smoothed between centers reaches the picture's edges.
function cells(heat) {
  const { scores } = heat;
  const around = Math.ceil(heat.window / 2 / heat.stride) + 1;
  const rows = scores.length, columns = scores[0].length;
  const canvas = document.createElement("canvas");
  canvas.width = columns + 2 * around;
  canvas.height = rows + 2 * around;
  const all = scores.flat();
  const least = Math.min(...all), range = Math.max(...all) - least || 1;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const inside = (place, count) => Math.min(Math.max(place - around, 0), count - 1);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const value = scores[inside(y, rows)][inside(x, columns)];
      pixels.data.set([...color((value - least) / range), 255], 4 * (y * canvas.width + x));
    }
  }
  context.putImageData(pixels, 0, 0);
  return { canvas, around };
}

export function draw(canvas, heat, opacity, found) {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
  if (!width || !height) return;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  if (heat instanceof Image) { // a mask of the picture's size
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(heat, 0, 0, width, height);
    context.globalAlpha = 1;
  } else if (heat) {
    const { canvas: small, around } = cells(heat);
    const across = width / heat.width * heat.stride, down = height / heat.height * heat.stride;
    const left = width / heat.width * (heat.window - heat.stride) / 2 - around * across;
    const top = height / heat.height * (heat.window - heat.stride) / 2 - around * down;
    context.globalAlpha = opacity;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, left, top, small.width * across, small.height * down);
    context.globalAlpha = 1;
  }
  for (const one of found?.top ?? []) box(context, one, width / found.width, height / found.height);
}

function box(context, one, across, down) {
  const [left, top, right, bottom] = [one.box[0] * across, one.box[1] * down, one.box[2] * across, one.box[3] * down];
  for (const [stroke, wide] of [["#000", 5], ["#fff", 2.5]]) {
    context.strokeStyle = stroke;
    context.lineWidth = wide;
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.font = "600 14px system-ui, sans-serif";
  const wide = context.measureText(one.class).width + 10;
  const x = Math.max(0, Math.min(left, context.canvas.clientWidth - wide)), y = Math.max(0, top - 22);
  context.fillStyle = "#000";
  context.fillRect(x, y, wide, 22);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(one.class, x + 5, y + 11.5);
}
