// The list of videos as a queue: saved views, the next clip to review, the same for many clips.

import { ApiError, call, text } from "./api.js";

const filters = document.querySelector(".filters");

// Runs `work`; the line says why it was not done.
async function saying(line, work) {
  line.textContent = "";
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    line.textContent = `${text.not_done}: ${error.message}`;
  }
}

// Reviewing

const reviewSaid = document.querySelector("[data-review-said]");
document.querySelector("[data-review]")?.addEventListener("click", (event) => saying(reviewSaid, async () => {
  const query = event.target.dataset.review;
  // The video's page goes on with the same choice.
  sessionStorage.setItem("review", query);
  const { video } = await call("POST", `/v1/review/next?${query}`);
  if (video) location.assign(`/videos/${video.id}`);
  else reviewSaid.textContent = text.none_left;
}));

// Views

const viewSaid = document.querySelector(".views [data-said]");
const naming = document.querySelector("[data-name-view]");
document.querySelector("[data-save-view]").addEventListener("click", () => naming.showModal());
naming.addEventListener("close", () => saying(viewSaid, async () => {
  if (naming.returnValue !== "save") return;
  const { name, shared } = naming.querySelector("form").elements;
  await call("POST", "/v1/views", { name: name.value.trim(), query: filters.dataset.query, shared: shared?.checked ?? false });
  location.reload();
}));
for (const button of document.querySelectorAll("[data-delete-view]")) {
  button.addEventListener("click", () => saying(viewSaid, async () => {
    await call("DELETE", `/v1/views/${button.dataset.deleteView}`);
    location.reload();
  }));
}

// Many at once. Rows come and go while the page is open.

const bulk = document.querySelector("[data-bulk]");
const bulkSaid = bulk?.querySelector("[data-bulk-said]");

function ticks() {
  return [...document.querySelectorAll("[data-tick]")];
}

function chosen() {
  return ticks().filter((tick) => tick.checked).map((tick) => tick.closest("tr").dataset.video);
}

function count() {
  const found = chosen().length;
  bulk.hidden = !found;
  bulk.querySelector("[data-selected]").textContent = found;
  const all = document.querySelector("[data-all]");
  if (!all) return;
  all.checked = found > 0 && found === ticks().length;
  all.indeterminate = found > 0 && !all.checked;
}

async function apply(body, question) {
  const videos = chosen();
  if (!videos.length || !confirm(question)) return;
  const { refused } = await call("POST", "/v1/review/bulk", { ...body, videos });
  const reasons = Object.values(refused);
  if (!reasons.length) return location.reload();
  bulkSaid.textContent = `${reasons.length} ${text.not_done}: ${[...new Set(reasons)].join("; ")}`;
}

if (bulk) {
  addEventListener("change", (event) => {
    if (event.target.matches("[data-all]")) for (const tick of ticks()) tick.checked = event.target.checked;
    if (event.target.matches("[data-all], [data-tick]")) count();
  });
  addEventListener("rows", count);
  bulk.addEventListener("submit", (event) => event.preventDefault());
  for (const button of bulk.querySelectorAll("[data-decide]")) {
    button.addEventListener("click", () => saying(bulkSaid, () => apply(
      { action: "decide", decision: button.dataset.decide, reason: bulk.elements.reason.value }, text.bulk_sure)));
  }
  bulk.querySelector("[data-delete]").addEventListener("click", () => saying(bulkSaid, () => apply({ action: "delete" }, text.bulk_delete_sure)));
  // A page that is shown again may have kept its ticks.
  count();
}
