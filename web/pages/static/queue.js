// The list of videos as a queue: saved views, the next clip to review, the same for many clips.

import { ApiError, call, text } from "./api.js";

const filters = document.querySelector(".filters");
const said = document.querySelector(".views [data-said]");

async function saying(work) {
  said.textContent = "";
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    said.textContent = error.message;
  }
}

// Reviewing

document.querySelector("[data-review]")?.addEventListener("click", (event) => saying(async () => {
  const query = event.target.dataset.review;
  // The video's page goes on with the same choice.
  sessionStorage.setItem("review", query);
  const { video } = await call("POST", `/v1/review/next?${query}`);
  if (video) location.assign(`/videos/${video.id}`);
  else document.querySelector("[data-review-said]").textContent = text.none_left;
}));

// Views

const naming = document.querySelector("[data-name-view]");
document.querySelector("[data-save-view]").addEventListener("click", () => naming.showModal());
naming.addEventListener("close", () => saying(async () => {
  if (naming.returnValue !== "save") return;
  const { name, shared } = naming.querySelector("form").elements;
  await call("POST", "/v1/views", { name: name.value.trim(), query: filters.dataset.query, shared: shared?.checked ?? false });
  location.reload();
}));
for (const button of document.querySelectorAll("[data-delete-view]")) {
  button.addEventListener("click", () => saying(async () => {
    await call("DELETE", `/v1/views/${button.dataset.deleteView}`);
    location.reload();
  }));
}

// Many at once

const bulk = document.querySelector("[data-bulk]");
const ticks = [...document.querySelectorAll("[data-tick]")];
const all = document.querySelector("[data-all]");

function chosen() {
  return ticks.filter((tick) => tick.checked).map((tick) => tick.closest("tr").dataset.video);
}

function count() {
  const found = chosen().length;
  bulk.hidden = !found;
  bulk.querySelector("[data-selected]").textContent = found;
  all.checked = found === ticks.length;
  all.indeterminate = found > 0 && found < ticks.length;
}

async function apply(body, question) {
  const videos = chosen();
  if (!videos.length || !confirm(question)) return;
  const { refused } = await call("POST", "/v1/review/bulk", { ...body, videos });
  const reasons = Object.values(refused);
  if (!reasons.length) return location.reload();
  said.textContent = `${reasons.length} ${text.bulk_refused}: ${[...new Set(reasons)].join("; ")}`;
}

if (bulk) {
  for (const tick of ticks) tick.addEventListener("change", count);
  all.addEventListener("change", () => {
    for (const tick of ticks) tick.checked = all.checked;
    count();
  });
  bulk.addEventListener("submit", (event) => event.preventDefault());
  for (const button of bulk.querySelectorAll("[data-decide]")) {
    button.addEventListener("click", () => saying(() => apply(
      { action: "decide", decision: button.dataset.decide, reason: bulk.elements.reason.value }, text.bulk_sure)));
  }
  bulk.querySelector("[data-delete]").addEventListener("click", () => saying(() => apply({ action: "delete" }, text.bulk_delete_sure)));
  // A page that is shown again may have kept its ticks.
  count();
}
