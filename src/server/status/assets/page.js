// The live page: takes frames from /api/v1/events and shows them. Everything that comes from
// outside is put into the page as text, never as markup.

import { ChunkMap, palette } from "/map.js";

const HISTORY_MS = 60000;
const RATE_OVER_MS = 1000;
/** Who has made progress so recently does not wait. */
const WAITS_MS = 1000;
const RECONNECT_MS = 2000;

const $ = (id) => document.getElementById(id);
const swarms = new Map();
let history = [];
let colours = palette();

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (count >= 999.5 && unit < units.length - 1) { count /= 1000; unit++; }
  return `${unit === 0 ? Math.round(count) : count.toPrecision(3)} ${units[unit]}`;
}
/** Sizes of files and chunks are powers of two where people chose them. */
function size(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit++; }
  return `${Number.isInteger(count) ? count : count.toFixed(1)} ${units[unit]}`;
}
const whole = (count) => Math.round(count).toLocaleString("en").replaceAll(",", "\u202f");
function duration(ms) {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60000)} min ${Math.floor(ms / 1000) % 60} s`;
}
const plural = (count, one, many) => `${whole(count)} ${count === 1 ? one : many}`;

function decode(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function takeFrame(frame) {
  if (frame.whole) {
    for (const view of swarms.values()) view.article.remove();
    swarms.clear();
  }
  showTotals(frame);
  showShards(frame.shards);
  const present = new Set();
  let before = $("nobody");
  for (const swarm of frame.swarms) {
    present.add(swarm.key);
    let view = swarms.get(swarm.key);
    if (!view) swarms.set(swarm.key, view = makeSwarm());
    if (before.nextElementSibling !== view.article) before.after(view.article);
    before = view.article;
    showSwarm(view, swarm);
  }
  for (const [key, view] of swarms) {
    if (!present.has(key)) { view.article.remove(); swarms.delete(key); }
  }
  $("nobody").hidden = swarms.size > 0;
  document.body.dataset.frames = Number(document.body.dataset.frames || 0) + 1;
}

function showTotals({ totals, at_ms: at }) {
  // A relay that was restarted counts from nothing.
  const last = history[history.length - 1];
  if (last && (at < last.at || totals.data_out_bytes < last.out)) history = [];
  history.push({ at, out: totals.data_out_bytes, in: totals.data_in_bytes });
  while (history[0].at < at - HISTORY_MS) history.shift();
  const since = history.findLast((point) => point.at <= at - RATE_OVER_MS) || history[0];
  const seconds = Math.max(0.001, (at - since.at) / 1000);
  const rate = (name) => (history[history.length - 1][name] - since[name]) / seconds;
  set($("out-rate"), bytes(rate("out")) + "/s");
  set($("in-rate"), bytes(rate("in")) + "/s");
  const fan = totals.data_in_bytes ? totals.data_out_bytes / totals.data_in_bytes : 0;
  set($("fan-out"), fan ? `; so far each byte went out ${fan.toFixed(fan < 10 ? 1 : 0)} times` : "");
  const asked = totals.cache_hits + totals.cache_misses;
  const figures = {
    peers: whole(totals.peers), swarms: whole(totals.swarms), sent: bytes(totals.data_out_bytes),
    delivered: whole(totals.chunks_delivered), hedges: whole(totals.hedges),
    hits: asked ? `${(100 * totals.cache_hits / asked).toFixed(1)} %` : "–",
    refused: whole(totals.connections_refused), banned: whole(totals.peers_banned),
  };
  for (const node of document.querySelectorAll("[data-figure]")) set(node, figures[node.dataset.figure]);
  document.querySelector("[data-figure=banned]").classList.toggle("alarm", totals.peers_banned > 0);
  const memory = $("memory");
  memory.max = totals.chunk_bytes_limit;
  memory.value = totals.chunk_bytes;
  set($("memory-text"), `${size(totals.chunk_bytes)} of ${size(totals.chunk_bytes_limit)}, at most ${size(totals.chunk_bytes_peak)} so far`);
  set($("build"), `${totals.version} · ${totals.driver} · ${totals.congestion}`);
  state(totals.is_draining ? "draining" : "live");
  drawSpark();
}

function state(name) {
  const pill = $("status");
  if (pill.dataset.state === name) return;
  pill.dataset.state = name;
  pill.textContent = name === "lost" ? "connection lost" : name;
}

function fit(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return { context, width, height, scale };
}

function drawSpark() {
  const { context, width, height, scale } = fit($("spark"));
  context.fillStyle = colours.line.text;
  context.fillRect(0, height - scale, width, scale);
  if (history.length < 2) return;
  const now = history[history.length - 1].at;
  const points = history.slice(1).map((point, i) => {
    const from = history[Math.max(0, i - 1)];
    return { x: width * (1 - (now - point.at) / HISTORY_MS), rate: (point.out - from.out) / Math.max(1, point.at - from.at) };
  });
  const most = Math.max(1, ...points.map((point) => point.rate));
  const seconds = Math.round(Math.min(HISTORY_MS, now - history[0].at) / 1000);
  set($("spark-text"), `the last ${plural(seconds, "second", "seconds")}, at most ${bytes(most > 1 ? 1000 * most : 0)}/s`);
  $("spark").setAttribute("aria-label", `Bytes a second in ${$("spark-text").textContent}`);
  const y = (rate) => height - 1 - rate / most * (height - 6 * scale);
  context.beginPath();
  points.forEach((point, i) => context[i ? "lineTo" : "moveTo"](point.x, y(point.rate)));
  context.lineWidth = 1.75 * scale;
  context.strokeStyle = colours.accent.text;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(points[0].x, height);
  context.fillStyle = colours["accent-soft"].text;
  context.fill();
}

function showShards(list) {
  const box = $("shards");
  while (box.children.length > list.length) box.lastElementChild.remove();
  list.forEach((shard, i) => {
    let line = box.children[i];
    if (!line) {
      line = document.createElement("div");
      line.className = "shard";
      line.append(document.createElement("span"), document.createElement("meter"), document.createElement("span"));
      box.append(line);
    }
    const [name, bar, text] = line.children;
    set(name, `shard ${shard.shard}`);
    bar.max = 1;
    bar.value = shard.busy_ratio;
    bar.setAttribute("aria-label", `load of shard ${shard.shard}`);
    const stuck = shard.heartbeat_age_seconds > 2;
    line.classList.toggle("stuck", stuck);
    set(text, stuck ? "stuck" : `${Math.round(100 * shard.busy_ratio)} %`);
    line.title = `${plural(shard.connections, "connection", "connections")}, ${bytes(shard.data_out_bytes)} sent, ${whole(shard.doorbell_rings)} wake-ups`;
  });
}

function makeSwarm() {
  const article = $("swarm").content.firstElementChild.cloneNode(true);
  const find = (selector) => article.querySelector(selector);
  return {
    article, map: new ChunkMap(find(".map"), find(".readout")), labelled: -Infinity,
    title: find("h2"), phase: find(".phase"), about: find(".about"), bar: find("progress"), done: find(".progress span"),
    cacheText: find(".cache p"), cacheCanvas: find(".cache canvas"),
    nobody: find(".tail .nobody"), table: find("table"), body: find("tbody"),
  };
}

function showSwarm(view, swarm) {
  const ended = swarm.phase === "ended";
  set(view.title, swarm.id.slice(0, 16) + "…");
  view.title.title = swarm.id;
  set(view.phase, ended ? `ended ${duration(swarm.ended_ms)} ago` : swarm.phase);
  view.phase.dataset.phase = swarm.phase;
  const shown = swarm.stride > 1 ? `, one of ${swarm.stride} shown` : "";
  set(view.about, `${size(swarm.size_bytes)} in ${plural(swarm.chunk_count, "chunk", "chunks")} of ${size(swarm.chunk_size_bytes)}${shown}, home on shard ${swarm.home_shard}`);
  view.map.update(swarm, decode);
  let held = 0;
  let counted = 0;
  for (const row of view.map.rows.values()) if (row.state !== "dead") { held += row.held; counted++; }
  const progress = counted ? held / (counted * Math.max(1, swarm.chunk_count)) : 0;
  view.bar.value = swarm.chunk_count === 0 ? 1 : progress;
  const dead = swarm.dead ? `, ${whole(swarm.dead)} dead` : "";
  const left = [...view.map.rows.values()].filter((row) => row.state === "left").length;
  const gone = left ? `, ${whole(left)} left with it` : "";
  set(view.done, `${whole(swarm.whole)} of ${plural(swarm.peers, "peer has", "peers have")} the file${gone}${dead}`);
  view.bar.setAttribute("aria-label", view.done.textContent);
  Object.assign(view.article.dataset, {
    id: swarm.id, phase: swarm.phase, peers: swarm.peers, whole: swarm.whole, dead: swarm.dead,
    cached: swarm.cached_count, held, rows: view.map.order.length,
    deadRows: [...view.map.rows.values()].filter((row) => row.state === "dead").length,
  });
  const now = performance.now();
  if (now - view.labelled > 5000) {
    view.labelled = now;
    view.map.canvas.setAttribute("aria-label", `Map of ${plural(swarm.peers, "peer", "peers")} by ${plural(swarm.chunk_count, "chunk", "chunks")}: ${Math.floor(100 * progress)} % filled, ${view.done.textContent}. Arrow keys read single cells.`);
  }
  showCache(view, swarm);
  showTail(view, swarm);
}

function showCache(view, swarm) {
  const wanted = swarm.cached.filter(([, needers]) => needers > 0).length;
  const more = swarm.cached.length < swarm.cached_count ? "at least " : "";
  const text = swarm.cached_count === 0 ? "Nothing is held." :
    `${plural(swarm.cached_count, "chunk is", "chunks are")} held (${size(swarm.cached_count * swarm.chunk_size_bytes)}); ${more}${whole(wanted)} still wanted, ${plural(swarm.fetching_count, "is", "are")} being fetched.`;
  set(view.cacheText, text);
  const { context, width, height, scale } = fit(view.cacheCanvas);
  const most = Math.max(1, ...swarm.cached.map(([, needers]) => needers));
  view.cacheCanvas.setAttribute("aria-label", `${text} The most wanted is lacked by ${plural(most, "peer", "peers")}.`);
  view.cacheCanvas.hidden = swarm.cached_count === 0;
  const step = Math.min(10 * scale, width / Math.max(1, swarm.cached.length));
  swarm.cached.forEach(([, needers], i) => {
    const tall = Math.max(2 * scale, needers / most * (height - 2 * scale));
    context.fillStyle = needers ? colours.cached.text : colours.line.text;
    context.fillRect(i * step, height - tall, Math.max(1, step - Math.min(scale, step / 3)), tall);
  });
}

function why(entry) {
  switch (entry.waits_for) {
    case "delivery": return entry.deliveries === 1 ? `chunk ${entry.chunk}, which is on its way to it` :
      `${whole(entry.deliveries)} chunks that are on their way to it, first ${entry.chunk}`;
    case "manifest": return "the file’s digests, which no peer has supplied yet";
    case "spread": return "its part: the file is being spread";
    case "credit": return "nothing: the relay waits for it to take more";
    case "missing": return `${plural(entry.count, "chunk", "chunks")} that nobody connected has, first ${entry.chunk}`;
    case "holder": return `chunk ${entry.chunk}, which ${entry.holder || "a peer that has gone"} was asked for ${duration(entry.asked_ms)} ago`;
    case "room": return "memory: the cache is full of what others still need";
    default: return "its turn";
  }
}

function showTail(view, swarm) {
  const waiting = swarm.tail.filter((entry) => entry.idle_ms >= WAITS_MS);
  view.table.hidden = waiting.length === 0;
  view.nobody.hidden = waiting.length > 0;
  while (view.body.rows.length > waiting.length) view.body.deleteRow(-1);
  waiting.forEach((entry, i) => {
    const line = view.body.rows[i] || view.body.insertRow();
    while (line.cells.length < 4) line.insertCell();
    const percent = Math.floor(100 * entry.held / Math.max(1, swarm.chunk_count));
    [entry.name, `${percent} %`, duration(entry.idle_ms), why(entry)].forEach((text, cell) => set(line.cells[cell], text));
    line.cells[2].classList.toggle("alarm", entry.idle_ms >= 5000);
  });
}

function connect() {
  const source = new EventSource("/api/v1/events");
  source.onmessage = (event) => takeFrame(JSON.parse(event.data));
  source.onerror = () => {
    state("lost");
    source.close();
    setTimeout(retry, RECONNECT_MS);
  };
}

/** A relay that wants a token says so here: then the page that asks for it is due. */
async function retry() {
  try {
    const answer = await fetch("/api/v1/shards");
    if (answer.status === 401) return location.reload();
  } catch {
    return setTimeout(retry, RECONNECT_MS);
  }
  connect();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours = palette();
  for (const view of swarms.values()) view.map.recolour();
  drawSpark();
});
connect();
