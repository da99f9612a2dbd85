// One video: the player with its boxes, the timelines that follow it, decisions, and keys for all of it.

import { ApiError, LostError, call, follow, pageNow, percent, text } from "./api.js";
import { explainFocused } from "./explain.js";

const review = document.querySelector("[data-video]");
const id = review.dataset.video;
const player = document.querySelector("[data-player]");
const picture = document.querySelector("[data-picture]");
const canvas = document.querySelector("[data-boxes]");
const screen = player ?? picture;

// Of a frame, in seconds, where the record does not say.
const FRAME_S = 1 / 25;
const LOOP_S = 1;
// A box is drawn this long before and after its frame, in seconds.
const MAX_SHOWN_S = 0.6;
// How often a page asks whether there is more to show.
const MORE_MS = 2000;
const COLOURS = ["#4c9be8", "#e8a33d", "#7bc96f", "#c98bdb", "#e2738c", "#5cc8c2"];

let frames = [];
let loopAt = null;
const on = { boxes: true, blur: false, grey: false };

// Boxes

function nearestFaces(t) {
  const found = new Map();
  for (const face of frames) {
    const off = Math.abs(face.t_s - t);
    const known = found.get(face.track);
    if (off <= MAX_SHOWN_S && (!known || off < known.off)) found.set(face.track, { off, face });
  }
  return [...found.values()].map(({ face }) => face);
}

function draw() {
  if (!screen || !canvas) return;
  const natural = [screen.videoWidth ?? screen.naturalWidth, screen.videoHeight ?? screen.naturalHeight];
  const [width, height] = [screen.clientWidth, screen.clientHeight];
  if (!natural[0] || !width) return;
  const dense = devicePixelRatio || 1;
  canvas.width = width * dense;
  canvas.height = height * dense;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  if (!on.boxes) return;
  // The picture is fitted into the element.
  const scale = Math.min(width / natural[0], height / natural[1]);
  const [left, top] = [(width - natural[0] * scale) / 2, (height - natural[1] * scale) / 2];
  for (const face of nearestFaces(player ? player.currentTime : 0)) {
    const [x0, y0, x1, y1] = face.box;
    const colour = COLOURS[face.track % COLOURS.length];
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.strokeRect(left + x0 * scale, top + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
    const label = `${face.track}: ${face.probability.toFixed(2)}`;
    pen.font = "600 12px sans-serif";
    const box = pen.measureText(label).width + 8;
    pen.fillStyle = colour;
    pen.fillRect(left + x0 * scale, top + y0 * scale - 18, box, 18);
    pen.fillStyle = "#111";
    pen.fillText(label, left + x0 * scale + 4, top + y0 * scale - 5);
  }
}

// Timelines follow the player, and a click or an arrow key on one seeks.

const charts = [...document.querySelectorAll("[data-chart]")].map((root) => {
  const plot = root.querySelector("[data-plot]");
  const head = document.createElement("div");
  head.className = "playhead";
  plot.append(head);
  const span = Number(root.dataset.span) || 1;
  plot.addEventListener("click", (event) => {
    const box = plot.getBoundingClientRect();
    seek((span * (event.clientX - box.left)) / box.width);
  });
  root.addEventListener("moment", (event) => {
    player?.pause();
    seek(event.detail);
  });
  return { root, head, span };
});

function showTime() {
  if (!player) return;
  for (const { root, head, span } of charts) {
    head.style.left = `${Math.min(100, (100 * player.currentTime) / span)}%`;
    root.dataset.now = player.currentTime;
  }
  if (loopAt !== null && Math.abs(player.currentTime - loopAt) > LOOP_S) player.currentTime = Math.max(0, loopAt - LOOP_S);
  draw();
}

function seek(seconds) {
  if (!player) return;
  loopAt = loopAt === null ? null : seconds;
  player.currentTime = Math.max(0, Math.min(seconds, player.duration || seconds));
  showTime();
}

for (const portrait of document.querySelectorAll("[data-moment]")) {
  portrait.addEventListener("click", () => seek(Number(portrait.dataset.moment)));
}

function everyFrame() {
  showTime();
  if (player.requestVideoFrameCallback) player.requestVideoFrameCallback(everyFrame);
}

if (player) {
  for (const kind of ["timeupdate", "seeked", "loadeddata"]) player.addEventListener(kind, showTime);
  player.addEventListener("error", () => { document.querySelector("[data-unplayed]").hidden = false; });
  if (player.requestVideoFrameCallback) player.requestVideoFrameCallback(everyFrame);
}
picture?.addEventListener("load", draw);
addEventListener("resize", draw);

// Every request reports on a line of the page how it failed.

const toolSaid = document.querySelector("[data-tool-said]") ?? document.createElement("p");

// True: it was done. `failed` comes before the reason.
async function saying(line, failed, work) {
  line.textContent = "";
  line.classList.remove("wrong");
  try {
    line.textContent = await work();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    line.textContent = failed ? `${failed}: ${error.message}` : error.message;
    line.classList.add("wrong");
    return false;
  }
}

// Tools

const tools = {
  play() { if (player) player.paused ? player.play() : player.pause(); },
  slower() { if (player) player.playbackRate = player.playbackRate === 1 ? 0.5 : 1; return player?.playbackRate !== 1; },
  loop() { loopAt = loopAt === null ? player?.currentTime ?? null : null; return loopAt !== null; },
  boxes() { return keep("boxes"); },
  blur() { return keep("blur"); },
  grey() { return keep("grey"); },
  help() { document.querySelector("[data-help]").showModal(); },
};

function keep(name) {
  on[name] = !on[name];
  wear();
  draw();
  // It is kept even if the page is left right now.
  const kept = call("PATCH", "/v1/me/preferences", { [name]: on[name] }, { keepalive: true });
  saying(toolSaid, text.not_saved, async () => { await kept; return ""; });
  return on[name];
}

function wear() {
  const stage = document.querySelector("[data-stage]");
  stage?.classList.toggle("blurred", on.blur);
  stage?.classList.toggle("grey", on.grey);
  document.body.classList.toggle("blurred-faces", on.blur);
  document.body.classList.toggle("grey-faces", on.grey);
}

function use(name) {
  const now = tools[name]();
  const button = document.querySelector(`[data-tool=${name}]`);
  if (now !== undefined) button?.setAttribute("aria-pressed", String(now));
}

// The page comes with what this person had chosen.
for (const name of Object.keys(on)) {
  const button = document.querySelector(`[data-tool=${name}]`);
  if (button) on[name] = button.getAttribute("aria-pressed") === "true";
}
for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => use(button.dataset.tool));
}

// Decisions

const form = document.querySelector("[data-decide]");
const said = form?.querySelector("[data-said]");

// The service knows which decisions count now, also those of others.
async function showHistory() {
  try {
    const now = (await pageNow()).querySelector("[data-history]");
    if (now) document.querySelector("[data-history]").replaceWith(now);
    document.querySelector("[data-no-decisions]")?.remove();
  } catch (error) {
    if (!(error instanceof LostError)) throw error; // the decision itself is saved
  }
}

// The button of one's own decision on the clip is pressed; an unsaved choice is marked until it is tried again.
function mark(unsaved = null) {
  const own = document.querySelector("[data-history] [data-own]")?.dataset.own;
  for (const button of form.querySelectorAll("[data-choice]")) {
    button.toggleAttribute("data-unsaved", button.dataset.choice === unsaved);
    button.setAttribute("aria-pressed", String(button.dataset.choice === own));
  }
}

async function decide(choice) {
  const isSaved = await saying(said, text.not_saved, async () => {
    const { track, reason, comment } = form.elements;
    await call("POST", `/v1/videos/${id}/decisions`, {
      decision: choice,
      track: track.value === "" ? null : Number(track.value),
      reason: reason.value,
      comment: comment.value,
    });
    reason.value = comment.value = "";
    await showHistory();
    return `${text[choice]}: ${text.saved}`;
  });
  mark(isSaved ? null : choice);
}

function undo() {
  return saying(said, text.not_undone, async () => {
    try {
      const decision = await call("DELETE", `/v1/videos/${id}/decisions/last`);
      await showHistory();
      mark();
      return `${text[decision.decision]}: ${text.undone}`;
    } catch (error) {
      if (error.status === 404) return error.message; // there was nothing to undo
      throw error;
    }
  });
}

function next() {
  return saying(said, "", async () => {
    const query = new URLSearchParams(sessionStorage.getItem("review") ?? "sort=created");
    query.set("leave", id);
    const { video } = await call("POST", `/v1/review/next?${query}`);
    if (!video) return text.none_left;
    location.assign(`/videos/${video.id}`);
    return "";
  });
}

// A clip is one person's to review while they look at it.
const LEASE_MS = 240_000;

async function hold() {
  try {
    await call("PUT", `/v1/videos/${id}/lease`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    said.textContent = error.message;
  }
}

if (form) {
  mark();
  hold();
  setInterval(() => { if (!document.hidden) hold(); }, LEASE_MS);
  addEventListener("pagehide", () => { call("DELETE", `/v1/videos/${id}/lease`, undefined, { keepalive: true }).catch(() => {}); });
}

const skipping = document.querySelector("[data-skipping]");
function skip() { skipping.showModal(); }
skipping.addEventListener("close", async () => {
  if (!skipping.returnValue || !form) return;
  const isSaved = await saying(said, text.not_saved, async () => {
    await call("POST", `/v1/videos/${id}/skip`, { reason: skipping.returnValue });
    return "";
  });
  if (isSaved) await next();
});

const golden = document.querySelector("[data-golden]");
golden?.addEventListener("change", () => saying(document.querySelector("[data-golden-said]"), text.not_saved, async () => {
  if (golden.value) await call("PUT", `/v1/videos/${id}/golden`, { answer: golden.value });
  else await call("DELETE", `/v1/videos/${id}/golden`);
  return text.saved;
}));

function inList(step) {
  const ids = JSON.parse(sessionStorage.getItem("videos") ?? "[]");
  const at = ids.indexOf(id);
  const other = at < 0 ? undefined : ids[at + step];
  if (other) location.assign(`/videos/${other}`);
  else if (step > 0 && form) next();
}

form?.addEventListener("submit", (event) => event.preventDefault());
for (const button of form?.querySelectorAll("[data-choice]") ?? []) {
  button.addEventListener("click", () => decide(button.dataset.choice));
}
form?.querySelector("[data-undo]").addEventListener("click", undo);
form?.querySelector("[data-next]").addEventListener("click", next);
form?.querySelector("[data-skip]").addEventListener("click", skip);

document.querySelector("[data-appeal]")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const reason = new FormData(event.target).get("reason");
  await saying(document.querySelector("[data-appeal-said]"), text.not_appealed, async () => {
    await call("POST", `/v1/videos/${id}/appeals`, { reason });
    location.reload();
  });
});

document.querySelector("[data-delete]")?.addEventListener("click", async (event) => {
  if (!confirm(event.target.dataset.sure)) return;
  await saying(document.querySelector("[data-delete-said]"), text.not_deleted, async () => {
    await call("DELETE", `/v1/videos/${id}`);
    location.assign("/videos");
    return "";
  });
});

// Keys

const choices = [...(form?.querySelectorAll("[data-choice]") ?? [])].map((button) => button.dataset.choice);

function step(seconds) {
  if (!player) return;
  player.pause();
  seek(player.currentTime + seconds);
}

const keys = {
  j: () => inList(1),
  k: () => inList(-1),
  n: () => form && next(),
  s: () => form && skip(),
  u: () => form && undo(),
  " ": () => use("play"),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ",": () => step(-FRAME_S),
  ".": () => step(FRAME_S),
  h: () => use("slower"),
  l: () => use("loop"),
  b: () => use("blur"),
  g: () => use("grey"),
  x: () => use("boxes"),
  e: () => explainFocused(),
  "?": () => use("help"),
};
choices.forEach((choice, i) => { keys[String(i + 1)] = () => decide(choice); });

// Space presses a button, opens a menu or starts the player where the Tab key has come to it. After a click or
// a choice there it is the key of the page again.
const CONTROLS = "button, a, select, video";
let pointed = null;
addEventListener("pointerdown", (event) => { pointed = event.target.closest(CONTROLS); }, true);
addEventListener("change", (event) => { pointed = event.target.closest("select") ?? pointed; });
addEventListener("focusin", (event) => { if (event.target !== pointed) pointed = null; });

// Those that a control with the focus takes itself.
function isTaken(event) {
  const { key, target } = event;
  if (target.closest("input, textarea, dialog")) return true;
  const control = target.closest(CONTROLS);
  const isArrow = key.startsWith("Arrow");
  if (control?.matches("select") && isArrow) return true;
  if (control?.matches("video") && isArrow) return control !== pointed;
  return key === " " && control !== null && control !== pointed;
}

const REPEATED = [",", ".", "ArrowLeft", "ArrowRight"];
let pressed = "";

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isTaken(event)) return;
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  event.stopPropagation();
  pressed = event.key;
  if (!event.repeat || REPEATED.includes(event.key)) act();
}

// The player's own controls listen at the player: its keys are handled before they come there.
addEventListener("keydown", (event) => { if (event.target === player) onKey(event); }, true);
addEventListener("keydown", (event) => { if (event.target !== player) onKey(event); });
// But not those of its seek bar and buttons: they keep the focus that a click has given them, and no key comes out of them.
player?.addEventListener("focusin", () => setTimeout(() => { if (!player.matches(":focus-visible")) player.blur(); }));
// Some browsers press a button when the key is let go.
addEventListener("keyup", (event) => {
  if (event.key === pressed) event.preventDefault();
  pressed = "";
}, true);

// What workers judged gets its pictures a little later. A page that nobody has touched shows them by itself.
function followMore() {
  const more = document.querySelector("[data-more]");
  if (!more) return;
  const look = async () => {
    const found = await call("GET", `/v1/videos/${id}`).catch(() => null);
    if (!found?.complete) return setTimeout(look, MORE_MS);
    const touched = document.activeElement?.matches("input, textarea, select") || player?.currentTime > (Number(player?.src.split("#t=")[1]) || 0);
    if (touched || document.querySelector("dialog[open]")) more.querySelector("[data-show]").hidden = false;
    else location.reload();
  };
  setTimeout(look, MORE_MS);
}

// What is not judged yet is followed until it is.

if (review.dataset.state !== "done") {
  const progress = document.querySelector("[data-progress]");
  const share = document.querySelector("[data-share]");
  const partial = document.querySelector("[data-partial]");
  follow(id, (kind, data) => {
    if (kind === "progress") {
      progress.textContent = `${text.judging} ${percent(data.share)}`;
      share.hidden = false;
      if (data.share !== null) share.value = data.share;
    } else if (kind === "partial" && data.probability !== null) {
      partial.textContent = `${text.score_so_far} ${text.score} ${data.probability.toFixed(2)} (${data.frames} ${text.faces_scored}). ${text.may_change}`;
    } else if (data.state === "running") {
      progress.textContent = text.judging;
      share.hidden = false;
    } else if (data.state === "done" || kind === "known") {
      location.reload();
    } else if (kind === "deleted") {
      location.assign("/videos");
    }
  });
} else if (screen) {
  followMore();
  await saying(toolSaid, text.no_boxes, async () => {
    const found = await call("GET", `/v1/videos/${id}/frames`);
    frames = found.frames;
    draw();
    return "";
  });
}
