/** Drawing on a canvas: the size of its box, sharp on dense screens, in the page's own colours. */

/** @typedef {{pen: CanvasRenderingContext2D, width: number, height: number, colour: (name: string) => string}} Sheet */

/** @type {CSSStyleDeclaration | undefined} */
let styles;

/** An empty sheet; null while it isn't seen. @param {HTMLCanvasElement} canvas @returns {Sheet | null} */
export function sheet(canvas) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const pen = canvas.getContext("2d");
  if (!pen || !width || !height) return null;
  const density = devicePixelRatio || 1;
  const [across, down] = [Math.round(width * density), Math.round(height * density)];
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  pen.setTransform(density, 0, 0, density, 0, 0);
  pen.clearRect(0, 0, width, height);
  const page = (styles ??= getComputedStyle(document.documentElement));
  return { pen, width, height, colour: (name) => page.getPropertyValue(`--${name}`) };
}

/**
 * A line with a shaded ground; `steps` holds each value until the next.
 * @param {Sheet} on @param {[number, number][]} points @param {number} bottom @param {boolean} steps
 */
export function line({ pen, colour }, points, bottom, steps) {
  if (points.length < 2) return;
  const path = new Path2D();
  points.forEach(([x, y], nth) => {
    if (!nth) return path.moveTo(x, y);
    if (steps) path.lineTo(x, points[nth - 1][1]);
    path.lineTo(x, y);
  });
  pen.strokeStyle = pen.fillStyle = colour("accent");
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  pen.stroke(path);
  path.lineTo(points[points.length - 1][0], bottom);
  path.lineTo(points[0][0], bottom);
  pen.globalAlpha = 0.1;
  pen.fill(path);
  pen.globalAlpha = 1;
}

/**
 * Figures with the places that they have in a list, as often as they follow each other without a hole; one alone twice, so that it is
 * seen.
 * @param {(number | undefined)[]} list
 */
export function runs(list) {
  /** @type {[number, number][][]} */
  const found = [];
  list.forEach((one, nth) => {
    if (one === undefined) return;
    if (nth === 0 || list[nth - 1] === undefined) found.push([]);
    found[found.length - 1].push([nth, one]);
  });
  for (const run of found) if (run.length === 1) run.unshift([run[0][0] - 0.3, run[0][1]]);
  return found;
}

/** The next 1, 2 or 5 of its decade, so that ticks read well. @param {number} step */
export function roundStep(step) {
  const decade = 10 ** Math.floor(Math.log10(step));
  return decade * ([1, 2, 5].find((factor) => factor * decade >= step * 0.999) ?? 10);
}
