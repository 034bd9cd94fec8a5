// What is wrong with the labels of the console's chart, drawn on a canvas of this page with what is published in `json`, one each
// second until now: a sentence each. Asked for each width, and for every place that somebody may point at.
async ({ json, width }) => {
  const { Chart } = await import("/chart.js");
  const canvas = Object.assign(document.createElement("canvas"), { id: "drawn" });
  Object.assign(canvas.style, { display: "block", width: `${width}px`, height: "190px" });
  document.body.prepend(canvas);

  // Every frame as it is drawn: texts with the boxes of their ink, and the line.
  let frame;
  const { prototype: pen } = CanvasRenderingContext2D;
  const { clearRect, fillText, stroke } = pen;
  pen.clearRect = function (...box) {
    if (this.canvas === canvas) frame = { texts: [], line: [] };
    return clearRect.apply(this, box);
  };
  pen.fillText = function (text, x, y, most = Infinity) {
    if (this.canvas === canvas) {
      const ink = this.measureText(text);
      const long = Math.min(ink.width, most);
      const left = { left: x, center: x - long / 2, right: x - long }[this.textAlign];
      frame.texts.push({ text, isSqueezed: long < 0.75 * ink.width, left, right: left + long, top: y - ink.actualBoundingBoxAscent, bottom: y + ink.actualBoundingBoxDescent });
    }
    return fillText.call(this, text, x, y, ...(most === Infinity ? [] : [most]));
  };
  const points = new WeakMap();
  for (const name of ["moveTo", "lineTo"]) {
    const real = Path2D.prototype[name];
    Path2D.prototype[name] = function (x, y) {
      points.set(this, [...(points.get(this) ?? []), [x, y]]);
      return real.call(this, x, y);
    };
  }
  pen.stroke = function (...path) {
    if (this.canvas === canvas && path.length) frame.line = points.get(path[0]);
    return stroke.apply(this, path);
  };

  const chart = new Chart(canvas, document.createElement("select"), () => {});
  chart.open("a");
  json.forEach((text, nth) => {
    const ts = (Date.now() - 1000 * (json.length - nth)) * 1000;
    chart.add({ topic: "a", seq: nth + 1, ts, json: text, data: JSON.parse(text) });
  });
  const wrongs = new Set();
  const meet = (one, other) => one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
  const look = (where) => {
    chart.draw(performance.now() + 1e6);
    const { texts, line } = frame;
    const label = texts.at(-1);
    const said = ({ text }) => `${where}: "${text}"`;
    if (texts.length < 4) wrongs.add(`${where}: there are hardly any labels`);
    for (const one of texts) {
      if (one.isSqueezed) wrongs.add(`${said(one)} is too narrow to be read`);
      if (one.left < 0 || one.right > width || one.top < 0 || one.bottom > 190) wrongs.add(`${said(one)} is cut`);
      for (const other of texts) if (one !== other && meet(one, other)) wrongs.add(`${said(one)} and "${other.text}" lie over each other`);
    }
    line.slice(1).forEach(([x, y], nth) => {
      const [before, level] = line[nth];
      const piece = { left: Math.min(before, x), right: Math.max(before, x), top: Math.min(level, y), bottom: Math.max(level, y) };
      // A step is drawn along and then up or down; its ends have no width.
      if (meet(label, { ...piece, left: piece.left - 0.1, right: piece.right + 0.1, top: piece.top - 0.1, bottom: piece.bottom + 0.1 })) wrongs.add(`${said(label)} lies over the line`);
    });
  };
  look("nowhere");
  const box = canvas.getBoundingClientRect();
  for (let x = 1; x < width; x += 7) {
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + x, clientY: box.top + 50 }));
    look(`at ${x}`);
  }
  Object.assign(pen, { clearRect, fillText, stroke });
  canvas.remove();
  return [...wrongs].join("\n");
};
