// A small chart of how large a share was violated, oldest on the left.

import { fitted } from "./dom.js";
import { colour } from "./theme.js";

// `samples`: shares from 0 to 1. The height goes by their square root, so that one in a hundred is seen as well.
export function drawSparkline(canvas, samples) {
  const { context, width, height } = fitted(canvas);
  const top = 2;
  const bottom = height - 1.5;
  const step = width / Math.max(samples.length - 1, 1);
  const y = (share) => bottom - Math.sqrt(Math.min(share, 1)) * (bottom - top);
  const violated = samples.some((share) => share > 0);
  context.strokeStyle = colour("line");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, bottom + 0.5);
  context.lineTo(width, bottom + 0.5);
  context.stroke();
  if (!violated) return;
  context.beginPath();
  samples.forEach((share, index) => (index ? context.lineTo(index * step, y(share)) : context.moveTo(0, y(share))));
  context.strokeStyle = colour("bad");
  context.lineWidth = 1.6;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(width, bottom);
  context.lineTo(0, bottom);
  context.closePath();
  context.fillStyle = colour("bad-wash");
  context.fill();
}
