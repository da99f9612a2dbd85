// What the score of a crop depends on: asked for at the crop, shown below its person's crops.

import { ApiError, call, text } from "./api.js";

const id = document.querySelector("[data-video]").dataset.video;
const listed = document.querySelector("[data-crops]");
// Times of each person's crops, by their numbers.
const moments = listed ? JSON.parse(listed.textContent) : {};

const buttons = [];
for (const portrait of document.querySelectorAll(".portrait[data-track]")) {
  const { track } = portrait.dataset;
  const n = (moments[track] ?? []).indexOf(Number(portrait.dataset.moment));
  if (n < 0) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "explain";
  button.textContent = text.explain;
  const { alt } = portrait.querySelector("img");
  button.setAttribute("aria-label", `${text.explain} ${alt}`);
  button.addEventListener("click", () => explain(button, portrait, `/v1/videos/${id}/crops/${track}/${n}`));
  portrait.after(button);
  buttons.push(button);
}

function figureOf(portrait) {
  const strips = portrait.closest(".strips");
  let figure = strips.nextElementSibling;
  if (!figure?.matches("[data-explanation]")) {
    figure = document.createElement("figure");
    figure.className = "explanation";
    figure.dataset.explanation = "";
    strips.after(figure);
  }
  return figure;
}

function pictureOf(source, alt) {
  const frame = document.createElement("div");
  frame.className = "portrait";
  const picture = document.createElement("img");
  picture.src = source;
  picture.alt = alt;
  frame.append(picture);
  return frame;
}

async function explain(button, portrait, crop) {
  if (button.getAttribute("aria-busy") === "true") return;
  const figure = figureOf(portrait);
  const caption = document.createElement("figcaption");
  caption.setAttribute("role", "status");
  caption.textContent = text.explaining;
  figure.replaceChildren(caption);
  // Of two that were asked for, the later one is shown.
  figure.asked = crop;
  button.setAttribute("aria-busy", "true");
  try {
    const found = await call("GET", `${crop}/explanation`);
    if (figure.asked !== crop) return;
    const { alt } = portrait.querySelector("img");
    figure.prepend(pictureOf(crop, alt));
    if (found.holds) caption.before(pictureOf(found.links.picture, text.explained_map));
    caption.textContent = sentence(found);
    figure.scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (figure.asked === crop) caption.textContent = `${text.not_explained}: ${error.message}`;
  } finally {
    button.removeAttribute("aria-busy");
  }
}

function sentence(found) {
  const values = {
    share: `${Math.round(100 * found.share)}\u00a0%`,
    side: text[found.towards].toLowerCase(),
    change: found.change.toFixed(2),
    areas: found.random_areas,
    median: found.random_median.toFixed(2),
    most: found.random_max.toFixed(2),
  };
  const said = found.holds ? text.explained : text.explained_not;
  return said.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// That of the crop which has the focus, else the first one.
export function explainFocused() {
  const item = document.activeElement?.closest(".strip li");
  (buttons.find((button) => item?.contains(button)) ?? buttons[0])?.click();
}
