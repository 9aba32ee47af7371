// The live page: takes frames from /api/v1/events and shows them. Everything that comes from
// outside is put into the page as text, never as markup.

import { ChunkMap, palette, percentOf, stateOf } from "/map.js";

const HISTORY_MS = 60000;
const RATE_OVER_MS = 1000;
/** How fast a file gets on is looked at over so long, and told once so much has passed. */
const PACE_OVER_MS = 5000;
const PACE_AFTER_MS = 1000;
/** Who has made progress so recently does not wait. */
const WAITS_MS = 1000;
const RECONNECT_MS = 2000;
/** Peers of a file that are listed; the API lists all. */
const LISTED_MAX = 256;
/** The picture of what goes out: room for the texts of its axes, in pixels. */
const AXIS_LEFT = 74;
const AXIS_FOOT = 18;
const AXIS_FONT = "11px system-ui, sans-serif";
/** It begins no narrower than this. */
const SPAN_MIN_MS = 2000;

/** States of peers that are there and lack something. */
const GETTING = new Set(["getting", "waiting", "stalled"]);

/** What a file's phase is called. */
const PHASES = {
  starting: "waits for the digests", spreading: "each peer gets a part", exchanging: "under way",
  whole: "everybody has it",
};

const $ = (id) => document.getElementById(id);
const swarms = new Map();
let history = [];
let colours = palette();

/** Sizes and rates, in powers of two wherever they stand. */
function size(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1023.5 && unit < units.length - 1) { count /= 1024; unit++; }
  const digits = count >= 99.95 || unit === 0 ? 0 : count >= 9.995 ? 1 : 2;
  return `${Number.isInteger(count) ? count : count.toFixed(digits)} ${units[unit]}`;
}
const rateOf = (perSecond) => size(perSecond < 1 ? 0 : perSecond) + "/s";
const whole = (count) => Math.round(count).toLocaleString("en").replaceAll(",", "\u202f");
function duration(ms) {
  if (ms < 1000) return `${ms} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3600000) return `${Math.floor(ms / 60000)} min ${Math.floor(ms / 1000) % 60} s`;
  return `${Math.floor(ms / 3600000)} h ${Math.floor(ms / 60000) % 60} min`;
}
/** A time that is only estimated. */
function about(ms) {
  if (ms < 60000) return `about ${Math.max(1, Math.round(ms / 1000))} s`;
  if (ms < 3600000) return `about ${Math.round(ms / 60000)} min`;
  return `about ${(ms / 3600000).toFixed(1)} h`;
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
  delete document.body.dataset.stale;
  showTotals(frame);
  showShards(frame.shards);
  const present = new Set();
  let before = $("nobody");
  for (const swarm of frame.swarms) {
    present.add(swarm.key);
    let view = swarms.get(swarm.key);
    if (view && (view.id !== swarm.id || view.chunkCount !== swarm.chunk_count)) {
      // Another relay, which counts from nothing.
      view.article.remove();
      view = null;
    }
    if (!view) swarms.set(swarm.key, view = makeSwarm(swarm));
    if (before.nextElementSibling !== view.article) before.after(view.article);
    before = view.article;
    showSwarm(view, swarm, frame.at_ms);
  }
  for (const [key, view] of swarms) {
    if (!present.has(key)) { view.article.remove(); swarms.delete(key); }
  }
  const silent = frame.silent_shards;
  $("loading").hidden = true;
  $("nobody").hidden = swarms.size > 0 || silent.length > 0;
  $("silent").hidden = silent.length === 0;
  const names = silent.join(", ");
  set($("silent").firstElementChild, silent.length === 1 ? `Shard ${names} does not answer` : `Shards ${names} do not answer`);
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
  // One point is no rate yet.
  const isKnown = at > since.at;
  set($("out-rate"), isKnown ? rateOf(rate("out")) : "–");
  set($("in-rate"), isKnown ? rateOf(rate("in")) : "–");
  const fan = totals.data_in_bytes ? totals.data_out_bytes / totals.data_in_bytes : 0;
  set($("fan-out"), fan ? `; so far each byte went out ${fan.toFixed(fan < 10 ? 1 : 0)} times` : "");
  const asked = totals.cache_hits + totals.cache_misses;
  const figures = {
    peers: whole(totals.peers), swarms: whole(totals.swarms), sent: size(totals.data_out_bytes),
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
  set($("build"), `version ${totals.version} · ${totals.driver} · ${totals.congestion}`);
  state(totals.is_draining ? "draining" : "live");
  drawSpark();
}

function state(name) {
  const pill = $("status");
  if (pill.dataset.state === name) return;
  pill.dataset.state = name;
  pill.textContent = name === "draining" ? "shutting down: chunks under way are finished" : name;
}

/** What is shown is no longer so. */
function lose() {
  state("lost");
  document.body.dataset.stale = "";
  $("status").textContent = history.length ? `connection lost: this is how it was at ${new Date().toLocaleTimeString("en-GB")}` : "connection lost";
}

function fit(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return { context, width, height, scale };
}

/** The end of an axis that reads well, at least `most`: few times a power of ten, of a unit of 1,024. */
function roundUp(most) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(Math.max(1, most)) / 10));
  const power = 10 ** Math.floor(Math.log10(Math.max(1, most / unit)));
  const step = [1, 2, 3, 4, 6, 8, 10].find((step) => step * power * unit >= most) || 10;
  return Math.min(step * power, 1024) * unit;
}

/** What went out over time: from when the page was opened, at most a minute, across the whole width. */
function drawSpark() {
  const { context, width, height, scale } = fit($("spark"));
  const [left, foot] = [AXIS_LEFT * scale, height - AXIS_FOOT * scale];
  const top = 8 * scale;
  context.font = `${scale * parseFloat(AXIS_FONT)}px ${AXIS_FONT.slice(AXIS_FONT.indexOf(" "))}`;
  context.textBaseline = "middle";
  const points = history.slice(1).map((point, i) => (
    { at: point.at, rate: 1000 * (point.out - history[i].out) / Math.max(1, point.at - history[i].at) }));
  const now = history.length ? history[history.length - 1].at : 0;
  const from = points.length ? Math.min(points[0].at, now - SPAN_MIN_MS) : now - SPAN_MIN_MS;
  const most = Math.max(0, ...points.map((point) => point.rate));
  const end = roundUp(most);
  const x = (at) => left + (width - left) * (at - from) / (now - from);
  const y = (rate) => foot - rate / end * (foot - top);
  for (const rate of [0, end / 2, end]) {
    context.fillStyle = colours.line.text;
    context.fillRect(left, Math.round(y(rate)), width - left, Math.max(1, Math.round(scale)));
    context.fillStyle = colours.quiet.text;
    context.textAlign = "right";
    if (rate || most < 1) context.fillText(rateOf(most < 1 ? 0 : rate), left - 6 * scale, y(rate));
    if (most < 1) break;
  }
  if (points.length < 2) return;
  const seconds = Math.round((now - points[0].at) / 1000);
  context.textAlign = "left";
  context.fillText(`${Math.round((now - from) / 1000)} s ago`, left, foot + AXIS_FOOT * scale * 0.6);
  context.textAlign = "right";
  context.fillText("now", width, foot + AXIS_FOOT * scale * 0.6);
  set($("spark-text"), `the last ${plural(seconds, "second", "seconds")}, at most ${rateOf(most)}`);
  $("spark").setAttribute("aria-label", `Bytes a second in ${$("spark-text").textContent}`);
  context.beginPath();
  points.forEach((point, i) => context[i ? "lineTo" : "moveTo"](x(point.at), y(point.rate)));
  context.lineWidth = 1.75 * scale;
  context.strokeStyle = colours.accent.text;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(width, foot);
  context.lineTo(x(points[0].at), foot);
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
    line.title = `${plural(shard.connections, "connection", "connections")}, ${size(shard.data_out_bytes)} sent, ${whole(shard.doorbell_rings)} wake-ups`;
  });
}

function makeSwarm(swarm) {
  const article = $("swarm").content.firstElementChild.cloneNode(true);
  const find = (selector) => article.querySelector(selector);
  const view = {
    id: swarm.id, chunkCount: swarm.chunk_count, article, map: new ChunkMap(find(".map"), find(".readout")), labelled: -Infinity, pace: [],
    label: find(".label"), title: find(".id"), copied: find(".copied"), phase: find(".phase"), about: find(".about"),
    bar: find("progress"), speed: find(".pace"), done: find(".done"),
    peers: find(".peers"), list: find(".peers tbody"), more: find(".peers .more"),
    cacheText: find(".cache p"), cacheCanvas: find(".cache canvas"),
    nobody: find(".tail .nobody"), table: find(".tail table"), body: find(".tail tbody"),
  };
  view.title.addEventListener("click", () => copy(view));
  view.peers.addEventListener("toggle", () => showPeers(view));
  return view;
}

/** The clipboard is a browser's gift to pages of this machine; elsewhere a selection does. */
async function copy(view) {
  const id = view.article.dataset.id;
  let said = "copied";
  try {
    await navigator.clipboard.writeText(id);
  } catch {
    const field = document.createElement("input");
    field.value = id;
    field.setAttribute("aria-label", "The file’s id");
    view.title.after(field);
    field.select();
    if (!document.execCommand("copy")) said = `could not copy it: ${id}`;
    field.remove();
    view.title.focus();
  }
  set(view.copied, said);
  setTimeout(() => set(view.copied, ""), 4000);
}

function showSwarm(view, swarm, at) {
  const ended = swarm.phase === "ended";
  // An origin's own words: text, and nothing else.
  set(view.label, swarm.label || "");
  set(view.title, swarm.id.slice(0, 16) + "…");
  view.title.setAttribute("aria-label", `Copy the id ${swarm.id}`);
  view.title.title = swarm.id;
  set(view.phase, ended ? `ended ${duration(swarm.ended_ms)} ago` : phaseOf(swarm));
  view.phase.dataset.phase = swarm.phase;
  const shown = swarm.stride > 1 ? `; the map shows one of ${swarm.stride}` : "";
  set(view.about, `${size(swarm.size_bytes)} in ${plural(swarm.chunk_count, "chunk", "chunks")} of ${size(swarm.chunk_size_bytes)}${shown}; decided on shard ${swarm.home_shard}`);
  view.map.update(swarm, decode);
  const all = swarm.getters * swarm.chunk_count;
  const progress = all ? swarm.getters_held / all : swarm.getters || swarm.left ? 1 : 0;
  view.bar.value = progress;
  set(view.speed, paceOf(view, swarm, at, progress, all));
  set(view.done, countsOf(swarm, ended));
  const done = `${view.speed.textContent}: ${view.done.textContent}`;
  view.bar.setAttribute("aria-label", done);
  const rows = [...view.map.rows.values()];
  Object.assign(view.article.dataset, {
    id: swarm.id, phase: swarm.phase, peers: swarm.peers, whole: swarm.whole, dead: swarm.dead,
    left: swarm.left, banned: swarm.banned, cached: swarm.cached_count, rows: view.map.order.length,
    held: rows.reduce((sum, row) => sum + (row.state === "dead" ? 0 : row.held), 0),
    deadRows: rows.filter((row) => row.state === "dead").length,
  });
  const now = performance.now();
  if (now - view.labelled > 5000) {
    view.labelled = now;
    view.map.canvas.setAttribute("aria-label", `Map of ${plural(swarm.peers, "peer", "peers")} by ${plural(swarm.chunk_count, "chunk", "chunks")}: ${done}. Arrow keys read single cells.`);
  }
  showPeers(view);
  showCache(view, swarm);
  showTail(view, swarm);
}

function phaseOf(swarm) {
  if (swarm.phase !== "starting" && !swarm.getters) return "waits for peers";
  return PHASES[swarm.phase] || swarm.phase;
}

/** How far it is, how fast that grows, and how long it takes if it goes on so. */
function paceOf(view, swarm, at, progress, all) {
  const { pace } = view;
  if (pace.length && (at < pace[pace.length - 1].at || swarm.gained < pace[pace.length - 1].gained)) pace.length = 0;
  pace.push({ at, gained: swarm.gained });
  while (pace.length > 2 && pace[1].at <= at - PACE_OVER_MS) pace.shift();
  if (swarm.phase === "ended") return swarm.left || swarm.dead || swarm.banned ? "over" : "over: no peer got it";
  if (!swarm.getters) return swarm.left ? "no peer gets it just now" : "no peer gets it yet";
  const parts = [`${Math.floor(100 * progress)} %`];
  const missing = (all - swarm.getters_held) * swarm.chunk_size_bytes;
  const ms = at - pace[0].at;
  if (missing && ms >= PACE_AFTER_MS) {
    const rate = (swarm.gained - pace[0].gained) * Math.min(swarm.chunk_size_bytes, swarm.size_bytes) * 1000 / ms;
    const left = Math.max(1000 * missing / rate, slowest(view, swarm, at));
    parts.push(rateOf(rate), rate ? `${about(left)} left` : "nothing comes just now");
  }
  return parts.join(" · ");
}

/** Until the slowest of those who get on has the file. Of each it is known how much it had a few seconds ago. */
function slowest(view, swarm, at) {
  let most = 0;
  for (const row of view.map.rows.values()) {
    if (row.origin || row.held >= swarm.chunk_count || !GETTING.has(row.state)) continue;
    row.marks ||= [{ at, held: row.held }];
    const [first] = row.marks;
    const gained = row.held - first.held;
    if (at - first.at >= PACE_AFTER_MS && gained > 0) most = Math.max(most, (swarm.chunk_count - row.held) * (at - first.at) / gained);
    if (at - row.marks[row.marks.length - 1].at >= PACE_OVER_MS) row.marks = [row.marks[row.marks.length - 1], { at, held: row.held }];
  }
  return most;
}

/** Who has it, and who went how. */
function countsOf(swarm, ended) {
  const parts = [];
  if (!ended && swarm.getters) parts.push(`${whole(swarm.getters_whole)} of ${plural(swarm.getters, "peer has", "peers have")} all of it`);
  const origins = swarm.peers - swarm.getters;
  if (origins) parts.push(origins === 1 ? "the origin is here" : `${whole(origins)} origins are here`);
  if (swarm.left) parts.push(`${whole(swarm.left)} left with it`);
  if (swarm.dead) parts.push(`${whole(swarm.dead)} dead`);
  if (swarm.banned) parts.push(`${whole(swarm.banned)} banned`);
  return parts.join(", ");
}

/** Everybody with an address, if somebody wants to see it. */
function showPeers(view) {
  if (!view.peers.open) return;
  const { map, list } = view;
  const rows = map.order.slice(0, LISTED_MAX).map((row) => map.rows.get(row));
  while (list.rows.length > rows.length) list.deleteRow(-1);
  rows.forEach((row, i) => {
    const line = list.rows[i] || list.insertRow();
    while (line.cells.length < 3) line.insertCell();
    [row.name, percentOf(row, map.chunkCount), stateOf(row)].forEach((text, cell) => set(line.cells[cell], text));
  });
  const all = Math.max(map.order.length, Number(view.article.dataset.peers));
  set(view.more, all > rows.length ? `${whole(all - rows.length)} more: /api/v1/swarms/${view.article.dataset.id} lists all.` : "");
}

function showCache(view, swarm) {
  const wanted = swarm.cached.filter(([, needers]) => needers > 0).length;
  const more = swarm.cached.length < swarm.cached_count ? "at least " : "";
  const text = swarm.cached_count === 0 ? "Nothing is held." + (swarm.phase === "ended" ? " A file that has no peers is forgotten." : "") :
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
    case "missing": return `${plural(entry.count, "chunk", "chunks")} that no connected peer has, first ${entry.chunk}`;
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
    lose();
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
