"use strict";

// Timelines: the nearest scored face under the pointer, by arrow keys, or by a click on a picture.

const SVG = "http://www.w3.org/2000/svg";

function svgElement(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function momentText(seconds) {
  if (seconds < 59.995) return `${seconds.toFixed(2)} s`;
  const tenths = Math.round(seconds * 10);
  const tail = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  const minutes = Math.floor(tenths / 600);
  if (minutes < 60) return `${minutes}:${tail}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${tail}`;
}

function nearest(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low > 0 && value - sorted[low - 1] <= sorted[low] - value ? low - 1 : low;
}

class Chart {
  constructor(root) {
    this.root = root;
    this.faces = JSON.parse(root.querySelector("script").textContent);
    this.plot = root.querySelector("[data-plot]");
    this.curve = this.plot.querySelector(".curve");
    this.at = -1;

    this.cursor = svgElement("line", { class: "cursor", y2: "100%" });
    this.focus = svgElement("circle", { class: "focus", r: 5.5 });
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.head = this.tip.appendChild(document.createElement("b"));
    this.body = this.tip.appendChild(document.createElement("span"));

    const { plot } = this;
    plot.setAttribute("role", "slider");
    plot.setAttribute("tabindex", "0");
    plot.setAttribute("aria-label", this.curve.getAttribute("aria-label"));
    plot.setAttribute("aria-valuemin", "0");
    plot.setAttribute("aria-valuemax", String(this.faces.t.length - 1));
    plot.setAttribute("aria-valuenow", "0");
    this.curve.removeAttribute("role");
    this.curve.setAttribute("aria-hidden", "true");

    plot.addEventListener("pointermove", (event) => this.point(event));
    plot.addEventListener("pointerdown", (event) => this.point(event));
    plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.hide(); });
    plot.addEventListener("focus", () => { if (this.at < 0) this.show(0); });
    plot.addEventListener("blur", () => this.hide());
    plot.addEventListener("keydown", (event) => this.key(event));
  }

  point(event) {
    const box = this.plot.getBoundingClientRect();
    this.show(nearest(this.faces.x, (100 * (event.clientX - box.left)) / box.width));
  }

  key(event) {
    const last = this.faces.t.length - 1;
    const page = Math.max(1, Math.round(last / 10));
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: page, PageDown: -page, Home: -last, End: last };
    if (event.key === "Escape") this.hide();
    if (!(event.key in steps)) return;
    event.preventDefault();
    // A page that plays the clip writes there where it is, and follows the event.
    const { now } = this.root.dataset;
    const from = now === undefined ? Math.max(0, this.at) : nearest(this.faces.t, Number(now));
    this.show(Math.min(last, Math.max(0, from + steps[event.key])));
    this.root.dispatchEvent(new CustomEvent("moment", { detail: this.faces.t[this.at] }));
  }

  show(at) {
    this.at = at;
    const { x, t, p, q, i } = this.faces;
    this.cursor.setAttribute("x1", `${x[at]}%`);
    this.cursor.setAttribute("x2", `${x[at]}%`);
    this.focus.setAttribute("cx", `${x[at]}%`);
    this.focus.setAttribute("cy", `${100 - 100 * p[at]}%`);
    this.curve.append(this.cursor, this.focus);

    this.head.textContent = `${p[at].toFixed(3)} at ${momentText(t[at])}`;
    this.body.textContent = `quality ${q[at].toFixed(2)}, frame ${i[at].toLocaleString("en")}`;
    this.tip.classList.toggle("low", p[at] > 0.5); // next to the point, not over it
    this.plot.append(this.tip);
    const width = this.plot.clientWidth;
    const left = (x[at] / 100) * width + 14;
    const fits = left + this.tip.offsetWidth <= width;
    this.tip.style.left = `${Math.max(0, fits ? left : left - 28 - this.tip.offsetWidth)}px`;

    this.plot.setAttribute("aria-valuenow", String(at));
    this.plot.setAttribute("aria-valuetext", `${this.head.textContent}, ${this.body.textContent}`);
  }

  showMoment(seconds) {
    this.show(nearest(this.faces.t, seconds));
  }

  hide() {
    this.at = -1;
    for (const element of [this.cursor, this.focus, this.tip]) element.remove();
  }
}

for (const person of document.querySelectorAll(".person")) {
  const root = person.querySelector("[data-chart]");
  if (!root) continue;
  const chart = new Chart(root);
  for (const portrait of person.querySelectorAll("[data-moment]")) {
    const show = () => chart.showMoment(Number(portrait.dataset.moment));
    portrait.addEventListener("pointerenter", show);
    portrait.addEventListener("focus", show);
    portrait.addEventListener("click", show);
    portrait.addEventListener("pointerleave", () => chart.hide());
    portrait.addEventListener("blur", () => chart.hide());
  }
}

// The table of clips: sorting by column, filtering by text and verdict.

const table = document.querySelector("[data-clips]");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  const collator = new Intl.Collator(undefined, { numeric: true });

  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    const numeric = header.classList.contains("num");
    button.addEventListener("click", () => {
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const order = header.getAttribute("aria-sort") === first ? other : first;
      for (const each of headers) each.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", order);
      const value = (row) => row.cells[column].dataset.value;
      const compare = numeric ? (a, b) => value(a) - value(b) : (a, b) => collator.compare(value(a), value(b));
      rows.sort(order === "ascending" ? compare : (a, b) => compare(b, a));
      body.append(...rows);
    });
  });

  const filters = document.querySelector("[data-filters]");
  const find = filters.querySelector("[data-find]");
  const show = filters.querySelector("[data-show]");
  const filter = () => {
    const text = find.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = row.cells[0].textContent.toLowerCase().includes(text)
        && (!show.value || row.cells[1].dataset.value === show.value);
      row.hidden = !fits;
      shown += fits;
    }
    filters.querySelector("[data-count]").textContent = `${shown} of ${rows.length}`;
  };
  find.addEventListener("input", filter);
  show.addEventListener("change", filter);
  filters.hidden = false;
  filter();
}

// Details: open the one a link names, all at once, and all for printing.

const details = [...document.querySelectorAll("details.clip")];
const openNamed = () => {
  const named = location.hash && document.getElementById(location.hash.slice(1));
  if (named instanceof HTMLDetailsElement) {
    named.open = true;
    named.scrollIntoView();
  }
};
addEventListener("hashchange", openNamed);
openNamed();
addEventListener("beforeprint", () => { for (const each of details) each.open = true; });

const expand = document.querySelector("[data-expand]");
if (expand) {
  expand.hidden = false;
  expand.addEventListener("click", () => {
    const open = details.some((each) => !each.open);
    for (const each of details) each.open = open;
    expand.textContent = open ? "Close all" : "Open all";
  });
}

// Copying. A page opened from disk may lack the clipboard; then the value is selected for the reader to copy.

for (const value of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy ${value.closest("div").querySelector("dt").textContent}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(value.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(value);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  value.after(button);
}
