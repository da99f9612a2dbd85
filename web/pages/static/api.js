// Requests to this service, with the token that shows that they come from its own page.

export const text = JSON.parse(document.getElementById("text").textContent);
const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";

export class ApiError extends Error {}

async function answer(response) {
  if (response.status === 401) location.assign("/login");
  if (response.status === 204) return null;
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(body.detail ?? response.statusText);
  return body;
}

export async function call(method, path, json, options = {}) {
  const headers = { "X-CSRF-Token": csrf };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  return answer(await fetch(path, { ...options, method, headers, body: json === undefined ? undefined : JSON.stringify(json) }));
}

// fetch() does not tell how much was sent.
export function upload(file, onShare) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/videos?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("X-CSRF-Token", csrf);
    request.upload.addEventListener("progress", (event) => onShare(event.loaded / event.total));
    request.addEventListener("error", () => reject(new ApiError(text.gone)));
    request.addEventListener("load", () => {
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { /* not JSON: the status says enough */ }
      if (request.status < 300) resolve(body);
      else reject(new ApiError(body.detail ?? request.statusText));
    });
    request.send(file);
  });
}

// The events of a video until it is judged; `heard` gets each one's kind and data.
export function follow(id, heard) {
  const source = new EventSource(`/v1/videos/${id}/events`);
  for (const kind of ["state", "progress", "partial", "decision", "deleted"]) {
    source.addEventListener(kind, (event) => {
      const data = JSON.parse(event.data);
      if (kind === "deleted" || data.state === "done") source.close();
      heard(kind, data);
    });
  }
  return source;
}

// How long ago, if that is worth a word.
export function age(moment) {
  const minutes = Math.floor((Date.now() - Date.parse(moment)) / 60000);
  if (minutes < 1) return "";
  return minutes < 120 ? ` · ${minutes} min` : ` · ${Math.floor(minutes / 60)} h`;
}

export function percent(share) {
  return share === null || share === undefined ? "" : `${Math.round(100 * share)} %`;
}
