// Requests to this service, with the token that shows that they come from its own page.

export const text = JSON.parse(document.getElementById("text").textContent);
const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";

// What a request failed with; its message is for people.
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export class LostError extends ApiError {}

async function fetched(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    throw error instanceof TypeError ? new LostError(text.gone) : error;
  }
}

async function answer(response) {
  if (response.status === 401) location.assign("/login");
  if (response.status === 204) return null;
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(body?.detail ?? response.statusText, response.status);
  if (body === null) throw new LostError(text.gone);
  return body;
}

export async function call(method, path, json, options = {}) {
  const headers = { "X-CSRF-Token": csrf };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  return answer(await fetched(path, { ...options, method, headers, body: json === undefined ? undefined : JSON.stringify(json) }));
}

// The page at this address as it is now.
export async function pageNow() {
  const response = await fetched(location.href);
  if (response.redirected) location.assign(response.url); // the session has ended
  const html = await response.text().catch(() => null);
  if (!response.ok || html === null) throw new LostError(text.gone);
  return new DOMParser().parseFromString(html, "text/html");
}

// A request with a body. fetch() does not report how much was sent.
function send(method, path, headers, body, onSent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    for (const [name, value] of Object.entries({ ...headers, "X-CSRF-Token": csrf })) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => onSent(event.loaded));
    request.addEventListener("error", () => reject(new LostError(text.gone)));
    request.addEventListener("load", () => {
      let said = {};
      try { said = JSON.parse(request.responseText); } catch { /* not JSON: the status says enough */ }
      if (request.status < 300) resolve({ said, header: (name) => request.getResponseHeader(name) });
      else if ([409, 429, 502, 503, 504].includes(request.status)) reject(new LostError(said.detail ?? request.statusText));
      else reject(new ApiError(said.detail ?? request.statusText));
    });
    request.send(body);
  });
}

const TUS = { "Tus-Resumable": "1.0.0" };
// Tries without progress before an upload is given up, and the longest wait between two.
const MAX_TRIES = 30;
const MAX_WAIT_MS = 15000;

// Large files are sent in pieces that survive a lost connection, by the tus protocol.
// `part` has start_s and end_s, in seconds, if only a part of the video is to be judged.
export async function upload(file, { part, resumableBytes, pieceBytes, onShare, onLost }) {
  if (file.size >= resumableBytes) return uploadInPieces(file, part, pieceBytes, onShare, onLost);
  const headers = { "Content-Type": "application/octet-stream" };
  const path = `/v1/videos?${new URLSearchParams({ name: file.name, ...part })}`;
  return (await send("POST", path, headers, file, (sent) => onShare(sent / file.size))).said;
}

async function uploadInPieces(file, part, pieceBytes, onShare, onLost) {
  const base64 = (value) => btoa(String.fromCharCode(...new TextEncoder().encode(value)));
  const metadata = Object.entries({ filename: file.name, ...part });
  const headers = {
    ...TUS,
    "Upload-Length": String(file.size),
    "Upload-Metadata": metadata.map(([name, value]) => `${name} ${base64(String(value))}`).join(","),
    // randomUUID() exists on pages of https and of this machine only.
    "Idempotency-Key": Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16)).join("-"),
  };
  const made = await persisting(() => send("POST", "/v1/uploads", headers, null, () => {}), onLost);
  const path = made.header("Location");
  let offset = 0;
  while (true) {
    const piece = file.slice(offset, offset + pieceBytes);
    const begin = offset;
    const answer = await persisting(async (isAgain) => {
      // After a lost connection, the service says how much of it has come.
      const known = isAgain ? await send("HEAD", path, TUS, null, () => {}) : null;
      if (known && Number(known.header("Upload-Offset")) !== begin) return known;
      return send("PATCH", path, { ...TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": String(begin) }, piece, (sent) => onShare((begin + sent) / file.size));
    }, onLost);
    offset = Number(answer.header("Upload-Offset"));
    onShare(offset / file.size);
    const video = answer.header("Unmask-Video");
    if (video) return call("GET", video);
  }
}

async function persisting(work, onLost) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await work(tries > 0);
    } catch (error) {
      if (!(error instanceof LostError) || tries === MAX_TRIES) throw error;
      onLost();
      await new Promise((wake) => setTimeout(wake, Math.min(MAX_WAIT_MS, 500 * 2 ** tries)));
    }
  }
}

// The events of a video until it is judged; `heard` gets each one's kind and data.
export function follow(id, heard) {
  const source = new EventSource(`/v1/videos/${id}/events`);
  for (const kind of ["state", "progress", "partial", "known", "decision", "deleted"]) {
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
