// The map of one file: a row for each peer, a column for each chunk, and a strip above them that
// shows where the relay has each chunk. Draws bits into an image of one pixel a cell, and that
// image, scaled, onto the page.

const STRIP = 9;
const GAP = 5;
/** Below the map: numbers of the first and the last chunk. */
const FOOT = 16;
const ROW_MAX = 14;
const HEIGHT_MAX = 560;
const HEIGHT_MIN = 56;
/** Of the window's height, so that what follows the map is in sight; less on a narrow one. */
const SHARE_MAX = 0.5;
const SHARE_MAX_NARROW = 0.28;
const NARROW = 640;
/** Names of rows stand to the left of them; one needs so much height. */
const LABELS = 182;
const LABELS_NARROW = 108;
const LABEL_TALL = 12;
const LABEL_FONT = "11px system-ui, sans-serif";
/** Cells of at least so many pixels get a line between them. */
const LINED = 6;

/** What a row's state is called. */
const STATES = {
  whole: "has all of it", leaving: "has all of it and would like to go", getting: "gets chunks", waiting: "waits",
  stalled: "takes no data", closing: "is being disconnected", left: "left with the file", dead: "dead",
  banned: "banned for wrong bytes",
};

/** Colours by name from the style sheet, as numbers for pixels and as text. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colours = {};
  for (const name of ["held", "lacks", "stalled", "dead", "dead-lacks", "left", "cached",
    "fetching", "missing", "draining", "card", "ink", "accent", "accent-soft", "line", "quiet"]) {
    const text = style.getPropertyValue("--" + name).trim();
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = text;
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    colours[name] = { text, pixel: (255 << 24 | b << 16 | g << 8 | r) >>> 0 };
  }
  return colours;
}

/** How a peer does, in words. */
export const stateOf = (row) => (row.origin ? "origin, " : "") + (STATES[row.state] || row.state);

export const percentOf = (row, chunkCount) => `${chunkCount ? Math.floor(100 * row.held / chunkCount) : 100} %`;

/** The two colours of a row: chunks that its peer has, and that it lacks. */
function inks(colours, state) {
  switch (state) {
    case "dead": case "banned": case "closing": return [colours.dead.pixel, colours["dead-lacks"].pixel];
    case "left": return [colours.left.pixel, colours.lacks.pixel];
    case "stalled": return [colours.stalled.pixel, colours.lacks.pixel];
    default: return [colours.held.pixel, colours.lacks.pixel];
  }
}

/** A text that fits, without its middle if need be. */
function fitted(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  for (let kept = text.length - 2; kept > 3; kept--) {
    const half = Math.ceil(kept / 2);
    const short = `${text.slice(0, half)}…${text.slice(text.length - (kept - half))}`;
    if (context.measureText(short).width <= room) return short;
  }
  return "…";
}

export class ChunkMap {
  constructor(canvas, readout) {
    this.canvas = canvas;
    this.readout = readout;
    this.rows = new Map();
    this.order = [];
    this.columns = 0;
    this.stride = 1;
    this.places = "";
    this.image = document.createElement("canvas");
    this.pixels = null;
    this.dirty = [Infinity, -1];
    this.cursor = null;
    this.colours = palette();
    this.pending = false;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Takes a frame's part about this file. */
  update(swarm, decode) {
    this.stride = swarm.stride;
    this.chunkCount = swarm.chunk_count;
    this.places = swarm.places;
    this.columns = Math.ceil(swarm.chunk_count / swarm.stride);
    const rowBytes = Math.ceil(this.columns / 8);
    for (const told of swarm.rows) {
      let row = this.rows.get(told.row);
      if (!row) {
        row = { bits: new Uint8Array(rowBytes), y: -1 };
        this.rows.set(told.row, row);
      }
      Object.assign(row, { name: told.name, held: told.held, origin: told.origin });
      const recoloured = row.state !== told.state;
      row.state = told.state;
      const bytes = decode(told.bits);
      row.bits.set(bytes.subarray(0, Math.max(0, rowBytes - told.offset)), told.offset);
      if (row.y < 0) continue;
      if (recoloured) this.paint(row, 0, rowBytes);
      else if (bytes.length) this.paint(row, told.offset, told.offset + bytes.length);
    }
    if (swarm.rows_order) this.arrange(swarm.rows_order);
    this.draw();
  }

  arrange(order) {
    const kept = new Set(order);
    for (const row of this.rows.keys()) if (!kept.has(row)) this.rows.delete(row);
    this.order = order.filter((row) => this.rows.has(row));
    this.image.width = Math.max(1, this.columns);
    this.image.height = Math.max(1, this.order.length);
    const context = this.image.getContext("2d");
    this.data = context.createImageData(this.image.width, this.image.height);
    this.pixels = new Uint32Array(this.data.data.buffer);
    this.repaint();
  }

  repaint() {
    this.order.forEach((id, y) => {
      const row = this.rows.get(id);
      row.y = y;
      this.paint(row, 0, row.bits.length);
    });
  }

  paint(row, from, to) {
    const [held, lacks] = inks(this.colours, row.state);
    const base = row.y * this.columns;
    for (let byte = from; byte < to; byte++) {
      const bits = row.bits[byte];
      const end = Math.min(8, this.columns - byte * 8);
      for (let bit = 0; bit < end; bit++) {
        this.pixels[base + byte * 8 + bit] = bits >> bit & 1 ? held : lacks;
      }
    }
    this.dirty = [Math.min(this.dirty[0], row.y), Math.max(this.dirty[1], row.y)];
  }

  recolour() {
    this.colours = palette();
    this.repaint();
    this.draw();
  }

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.drawNow(); });
  }

  /** Where the cells are, in pixels of the page. */
  layout() {
    const wide = this.canvas.clientWidth;
    const isNarrow = wide < NARROW;
    const left = isNarrow ? LABELS_NARROW : LABELS;
    const most = Math.min(HEIGHT_MAX, (isNarrow ? SHARE_MAX_NARROW : SHARE_MAX) * window.innerHeight);
    const rows = Math.max(1, this.order.length);
    const tall = Math.round(Math.max(HEIGHT_MIN, Math.min(most, rows * ROW_MAX)));
    return { left, top: STRIP + GAP, wide: Math.max(1, wide - left), tall, rows, isNarrow };
  }

  drawNow() {
    const { canvas, image, columns } = this;
    if (canvas.clientWidth === 0) return;
    const scale = window.devicePixelRatio || 1;
    const place = this.layout();
    const { rows } = place;
    const height = place.top + place.tall + FOOT;
    const [width, tall] = [Math.round(canvas.clientWidth * scale), Math.round(height * scale)];
    if (canvas.width !== width || canvas.height !== tall) {
      canvas.style.height = height + "px";
      canvas.width = width;
      canvas.height = tall;
    }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, tall);
    if (!this.pixels || !columns) return;
    if (this.dirty[1] >= 0) {
      const [top, bottom] = this.dirty;
      image.getContext("2d").putImageData(this.data, 0, 0, 0, top, columns, bottom - top + 1);
      this.dirty = [Infinity, -1];
    }
    this.labels(context, place, scale);
    const [left, top] = [Math.round(place.left * scale), Math.round(place.top * scale)];
    const [mapWide, mapTall] = [width - left, Math.round(place.tall * scale)];
    const [cellWide, cellTall] = [mapWide / columns, mapTall / rows];
    context.setTransform(1, 0, 0, 1, left, 0);
    this.strip(context, mapWide, STRIP * scale);
    context.imageSmoothingEnabled = cellWide < 2 || cellTall < 2;
    context.imageSmoothingQuality = "medium";
    context.drawImage(image, 0, 0, columns, rows, 0, top, mapWide, mapTall);
    this.lines(context, mapWide, top + mapTall, top, cellWide, cellTall, scale);
    this.cross(context, top, cellWide, cellTall, scale);
  }

  /** Whose row it is and how much it has, of every row that has room for it; and which chunks these are. */
  labels(context, place, scale) {
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.font = LABEL_FONT;
    context.fillStyle = this.colours.quiet.text;
    context.textBaseline = "middle";
    const room = place.left - 8;
    context.textAlign = "left";
    context.fillText("in the relay", 0, STRIP / 2 + 1.5);
    const cell = place.tall / place.rows;
    const every = Math.max(1, Math.ceil(LABEL_TALL / cell));
    for (let y = 0; y < this.order.length; y += every) {
      const row = this.rows.get(this.order[y]);
      const at = place.top + (y + 0.5) * cell;
      // A narrow page has room for the name only.
      const share = place.isNarrow ? "" : percentOf(row, this.chunkCount);
      const text = (row.origin && !place.isNarrow ? "origin " : "") + row.name;
      const name = fitted(context, text, room - (share ? context.measureText(share).width + 6 : 0));
      context.textAlign = "right";
      context.fillText(share, room, at);
      context.textAlign = "left";
      context.fillText(name, 0, at);
    }
    const foot = place.top + place.tall + FOOT / 2 + 2;
    context.fillText(this.chunkCount > 1 ? "chunk 0" : "the only chunk", place.left, foot);
    context.textAlign = "right";
    if (this.chunkCount > 1) context.fillText(`chunk ${this.chunkCount - 1}`, place.left + place.wide, foot);
  }

  lines(context, width, tall, top, cellWide, cellTall, scale) {
    context.fillStyle = this.colours.card.text;
    const line = Math.max(1, Math.round(scale));
    if (cellTall >= LINED * scale) {
      for (let y = 1; y < this.order.length; y++) context.fillRect(0, Math.round(top + y * cellTall) - line, width, line);
    }
    if (cellWide >= LINED * scale) {
      for (let x = 1; x < this.columns; x++) context.fillRect(Math.round(x * cellWide) - line, top, line, tall - top);
    }
  }

  strip(context, width, height) {
    const names = { c: "cached", f: "fetching", "!": "missing", d: "draining" };
    context.fillStyle = this.colours.line.text;
    context.fillRect(0, 0, width, height);
    const cell = width / this.columns;
    for (let column = 0; column < this.places.length; column++) {
      const name = names[this.places[column]];
      if (!name) continue;
      context.fillStyle = this.colours[name].text;
      context.fillRect(Math.floor(column * cell), 0, Math.max(2, Math.ceil(cell)), height);
    }
  }

  cross(context, top, cellWide, cellTall, scale) {
    if (!this.cursor) return;
    const { x, y } = this.cursor;
    context.strokeStyle = this.colours.ink.text;
    context.lineWidth = 2 * scale;
    const [wide, tall] = [Math.max(cellWide, 6 * scale), Math.max(cellTall, 6 * scale)];
    context.strokeRect(x * cellWide + (cellWide - wide) / 2, top + y * cellTall + (cellTall - tall) / 2, wide, tall);
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const { left, top, wide, tall } = this.layout();
      const y = Math.floor((event.clientY - box.top - top) / tall * this.order.length);
      this.point(Math.floor((event.clientX - box.left - left) / wide * this.columns), y);
    });
    canvas.addEventListener("pointerleave", () => this.unpoint());
    canvas.addEventListener("blur", () => this.unpoint());
    canvas.addEventListener("keydown", (event) => {
      const { x, y } = this.cursor || { x: 0, y: 0 };
      const page = Math.ceil(this.columns / 10);
      const moves = {
        ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1],
        Home: [0, y], End: [this.columns - 1, y], PageUp: [x - page, y], PageDown: [x + page, y],
      };
      if (event.key === "Escape") return this.unpoint();
      const to = moves[event.key];
      if (!to || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.point(...to);
    });
  }

  point(x, y) {
    if (!this.order.length || !this.columns) return;
    x = Math.min(this.columns - 1, Math.max(0, x));
    y = Math.min(this.order.length - 1, Math.max(0, y));
    this.cursor = { x, y };
    const row = this.rows.get(this.order[y]);
    const chunk = x * this.stride;
    const has = row.bits[x >> 3] >> (x & 7) & 1;
    const share = percentOf(row, this.chunkCount);
    this.readout.textContent = `${row.name}: ${stateOf(row)}, ${share}; chunk ${chunk}: ${has ? "has it" : "lacks it"}`;
    this.draw();
  }

  unpoint() {
    this.cursor = null;
    this.readout.textContent = "";
    this.draw();
  }
}
