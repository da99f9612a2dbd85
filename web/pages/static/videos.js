// The list of videos: uploads, and the progress of those that are not judged yet.

import { ApiError, call, follow, percent, text, upload } from "./api.js";

// Browsers hold six connections to a host open: events and uploads together must not take all of them.
const MAX_FOLLOWED = 2;
const MAX_UPLOADS = 2;

const panel = document.querySelector("[data-uploads]");
const list = panel.querySelector("[data-list]");
const waiting = [];
let running = 0;

function line(name) {
  const item = document.createElement("li");
  const label = item.appendChild(document.createElement("bdi"));
  label.textContent = name;
  const bar = item.appendChild(document.createElement("progress"));
  bar.max = 1;
  bar.setAttribute("aria-label", name);
  const said = item.appendChild(document.createElement("span"));
  said.className = "fine";
  list.append(item);
  return { item, label, bar, said };
}

function judged({ item, label, bar, said }, video) {
  const link = document.createElement("a");
  link.href = `/videos/${video.id}`;
  link.append(label.cloneNode(true));
  label.replaceWith(link);
  item.dataset.video = video.id;
  said.textContent = text.waiting;
  bar.removeAttribute("value");
  follow(video.id, (kind, data) => {
    if (kind === "progress") {
      if (data.share !== null) bar.value = data.share;
      said.textContent = `${text.judging} ${percent(data.share)}`;
    } else if (data.state === "done") {
      bar.remove();
      said.textContent = `${text.done}: ${data.label ?? data.outcome.replace("_", " ")}`;
      item.dataset.done = "";
    } else if (data.state === "running") {
      said.textContent = text.judging;
    }
  });
}

function refused({ item, bar, said }, error) {
  if (!(error instanceof ApiError)) throw error;
  bar.remove();
  item.dataset.failed = "";
  said.textContent = `${text.failed}: ${error.message}`;
}

async function next() {
  if (running >= MAX_UPLOADS || !waiting.length) return;
  running += 1;
  const { file, row } = waiting.shift();
  row.said.textContent = text.uploading;
  try {
    judged(row, await upload(file, (share) => {
      row.bar.value = share;
      row.said.textContent = `${text.uploading} ${percent(share)}`;
    }));
  } catch (error) {
    refused(row, error);
  } finally {
    running -= 1;
    next();
  }
}

function add(files) {
  for (const file of files) {
    const row = line(file.name);
    row.said.textContent = text.waiting;
    waiting.push({ file, row });
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

panel.querySelector("[data-address]").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = event.target.elements.uri;
  const uri = field.value.trim();
  if (!uri) return;
  const row = line(uri);
  try {
    judged(row, await call("POST", "/v1/videos", { uri }));
    field.value = "";
  } catch (error) {
    refused(row, error);
  }
});

const open = [...document.querySelectorAll("tr[data-video]:not([data-state=done])")].slice(-MAX_FOLLOWED);
for (const row of open) {
  follow(row.dataset.video, (kind, data) => {
    const said = row.querySelector("[data-progress]");
    if (kind === "progress" && said) said.textContent = `${text.judging} ${percent(data.share)}`;
    if (data.state === "done") location.reload();
  });
}

// The order of the list is that of the keys j and k on a video's page.
sessionStorage.setItem("videos", JSON.stringify([...document.querySelectorAll("tr[data-video]")].map((row) => row.dataset.video)));
for (const select of document.querySelectorAll(".filters select")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}
