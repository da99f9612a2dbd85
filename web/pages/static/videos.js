// The list of videos: uploads, and the progress of those that are not judged yet.

import { ApiError, age, call, pageNow, percent, text, upload } from "./api.js";

// Browsers hold six connections to a host open: uploads must not take all of them.
const MAX_UPLOADS = 2;

const panel = document.querySelector("[data-uploads]");
const list = panel.querySelector("[data-list]");
const waiting = [];
let running = 0;

function line(name) {
  const item = document.createElement("li");
  const label = item.appendChild(document.createElement("bdi"));
  label.textContent = name;
  const said = item.appendChild(document.createElement("span"));
  said.className = "fine";
  const bar = item.appendChild(document.createElement("progress"));
  bar.max = 1;
  bar.hidden = true;
  bar.setAttribute("aria-label", name);
  list.append(item);
  return { item, label, bar, said };
}

// Videos that are not judged yet, by id; one request every POLL_MS asks for all of them.
// Each has the state that the list shows, and who wants to hear about it; null: it was deleted.
const followed = new Map();
const POLL_MS = 1500;
let timer;
let isStale = false;

function watch(id, state, changed) {
  const known = followed.get(id);
  followed.set(id, { ...known, state, heard: [...(known?.heard ?? []), changed] });
  timer ??= setTimeout(poll, POLL_MS);
}

async function stateOf(id) {
  try {
    return await call("GET", `/v1/videos/${id}`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function poll() {
  timer = undefined;
  try {
    const { videos } = await call("GET", "/v1/videos?limit=200&sort=-created");
    const known = new Map(videos.map((video) => [video.id, video]));
    for (const [id, each] of [...followed]) {
      const video = known.get(id) ?? await stateOf(id);
      for (const changed of each.heard) changed(video);
      if (video?.state !== each.state) isStale = true;
      each.state = video?.state;
      if (!video || video.state === "done") followed.delete(id);
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // the service is away: ask again
  }
  if (isStale) await refresh();
  if (followed.size || isStale) timer ??= setTimeout(poll, POLL_MS);
}

// The list and its counts, as a reload would show them. Rows that are as before stay, with focus and ticks.

let refreshing = null;

function refresh() {
  refreshing ??= load().finally(() => { refreshing = null; });
  return refreshing;
}

async function load() {
  try {
    isStale = false;
    show(await pageNow());
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    isStale = true;
  }
}

function show(page) {
  const counts = page.querySelector(".counts");
  const [here, now] = [document, page].map((each) => each.querySelector("[data-rows]"));
  if (!counts || !now) return;
  document.querySelector(".counts").replaceWith(counts);
  const [body, changed] = [here, now].map((each) => each.querySelector("tbody"));
  if (body && changed) {
    showRows(body, changed);
    here.querySelector("[data-following]").replaceWith(now.querySelector("[data-following]"));
  } else {
    here.replaceWith(now);
  }
  followRows();
  dispatchEvent(new Event("rows"));
}

function showRows(body, changed) {
  const before = new Map([...body.rows].map((row) => [row.dataset.video, row]));
  const after = [...changed.rows].map((row) => {
    const known = before.get(row.dataset.video);
    return known?.outerHTML === row.outerHTML ? known : row;
  });
  for (const row of [...body.rows]) {
    if (!after.includes(row) && !after.some((each) => each.dataset.video === row.dataset.video)) row.remove();
  }
  after.forEach((row, at) => {
    const known = before.get(row.dataset.video);
    if (known && known !== row) {
      const focused = [...known.querySelectorAll("a, input")].indexOf(document.activeElement);
      for (const tick of row.querySelectorAll("[data-tick]")) tick.checked = known.querySelector("[data-tick]")?.checked ?? false;
      known.replaceWith(row);
      if (focused >= 0) row.querySelectorAll("a, input")[focused]?.focus({ preventScroll: true });
    }
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
  });
}

function followRows() {
  const rows = [...document.querySelectorAll("tr[data-video]")];
  // The order of the list is that of the keys j and k on a video's page.
  sessionStorage.setItem("videos", JSON.stringify(rows.map((row) => row.dataset.video)));
  for (const { dataset: { video: id, state } } of rows) {
    if (state === "done" || followed.get(id)?.isListed) continue;
    watch(id, state, (video) => {
      const cell = document.querySelector(`tr[data-video="${id}"] [data-progress]`);
      if (cell && video) cell.textContent = `${video.state === "running" ? text.judging : text.waiting}${age(video.created_at)}`;
    });
    followed.get(id).isListed = true;
  }
}

function verdictOf(video) {
  return video.label ?? video.outcome.replaceAll("_", " ");
}

function judged({ item, label, bar, said }, video) {
  const link = document.createElement("a");
  link.href = `/videos/${video.id}`;
  link.append(label.cloneNode(true));
  label.replaceWith(link);
  item.dataset.video = video.id;
  said.textContent = text.waiting;
  bar.hidden = true;
  bar.removeAttribute("value");
  watch(video.id, video.state, (now) => {
    if (now === null) {
      bar.remove();
      said.textContent = text.deleted;
    } else if (now.state === "done") {
      bar.remove();
      said.textContent = `${text.done}: ${verdictOf(now)}`;
      item.dataset.done = "";
    } else if (now.state === "running") {
      bar.hidden = false;
      said.textContent = text.judging;
    }
  });
  refresh();
}

function refused({ item, bar, said }, error) {
  if (!(error instanceof ApiError)) throw error;
  bar.remove();
  item.dataset.failed = "";
  said.textContent = `${text.failed}: ${error.message}`;
}

// Seconds, minutes:seconds or hours:minutes:seconds; undefined: nothing is written there.
function seconds(field) {
  const written = field.value.trim().replace(",", ".");
  if (!written) return undefined;
  if (!/^(\d{1,7}:){0,2}\d{1,9}(\.\d{1,6})?$/.test(written)) return NaN;
  return written.split(":").reduce((sum, number) => 60 * sum + Number(number), 0);
}

const stretch = panel.querySelector(".stretch");
const stretchFields = [stretch.querySelector("[data-start]"), stretch.querySelector("[data-end]")];

// What is chosen now, if its fields are open; null if it cannot be a part of a video.
function chosenPart() {
  if (!stretch.open) return {};
  const [start, end] = stretchFields.map(seconds);
  const wrong = [Number.isNaN(start), Number.isNaN(end) || end <= (start ?? 0)];
  stretchFields.forEach((field, at) => field.setCustomValidity(wrong[at] ? text.part_wrong : ""));
  stretch.querySelector("[data-wrong]").hidden = !wrong.includes(true);
  if (wrong.includes(true)) {
    stretchFields[wrong.indexOf(true)].focus();
    return null;
  }
  return { ...(start !== undefined && { start_s: start }), ...(end !== undefined && { end_s: end }) };
}

for (const field of stretchFields) {
  field.addEventListener("input", () => {
    stretchFields.forEach((each) => each.setCustomValidity(""));
    stretch.querySelector("[data-wrong]").hidden = true;
  });
}

async function next() {
  if (running >= MAX_UPLOADS || !waiting.length) return;
  running += 1;
  const { file, part, row } = waiting.shift();
  row.bar.hidden = false;
  row.said.textContent = text.uploading;
  try {
    judged(row, await upload(file, {
      part,
      resumableBytes: Number(panel.dataset.resumable),
      pieceBytes: Number(panel.dataset.piece),
      onShare(share) {
        row.bar.value = share;
        row.said.textContent = `${text.uploading} ${percent(share)}`;
      },
      onLost() { row.said.textContent = text.resuming; },
    }));
  } catch (error) {
    refused(row, error);
  } finally {
    running -= 1;
    next();
  }
}

function add(files) {
  const part = chosenPart();
  if (part === null) return;
  for (const file of files) {
    const row = line(file.name);
    row.said.textContent = text.waiting;
    waiting.push({ file, part, row });
    next();
  }
}

panel.querySelector("[data-files]").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
panel.addEventListener("dragover", (event) => {
  event.preventDefault();
  panel.classList.add("over");
});
panel.addEventListener("dragleave", () => panel.classList.remove("over"));
panel.addEventListener("drop", (event) => {
  event.preventDefault();
  panel.classList.remove("over");
  add(event.dataTransfer.files);
});

panel.querySelector("[data-address]")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = event.target.elements.uri;
  const uri = field.value.trim();
  const part = chosenPart();
  if (!uri || part === null) return;
  const row = line(uri);
  try {
    judged(row, await call("POST", "/v1/videos", { uri, ...part }));
    field.value = "";
  } catch (error) {
    refused(row, error);
  }
});

followRows();
for (const select of document.querySelectorAll(".filters select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
