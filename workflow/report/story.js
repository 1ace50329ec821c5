// Cells are told on hovering and on focus; arrow keys move between them, the tab key between grids.
const CELLS = "[role=grid] tbody td, [role=gridcell]";
const box = document.getElementById("told");

const main = document.querySelector("main");
// Of each measure its words, the end of its scale, and the digits that a cell has room for.
const LISTED = JSON.parse(main.dataset.measures);
const MEASURES = Object.fromEntries(LISTED.map((one) => [one.name, one]));
const FIRST = LISTED[0]?.name;
const STEPS = 20;
const titles = new WeakMap();
let measure = FIRST;

// Of a map the layer stands at the foot and the row's name before it; over a picture, a table is a
// layer, and a cell the region at its place.
function whereOf(cell) {
  const row = cell.parentElement;
  const table = cell.closest("table");
  if (table.dataset.layer) {
    const region = `row ${row.sectionRowIndex + 1}, column ${cell.cellIndex + 1} of the picture`;
    return `layer ${table.dataset.layer}, ${region}`;
  }
  return `layer ${table.tFoot.rows[0].cells[cell.cellIndex].textContent}, ${row.cells[0].textContent}`;
}

// A cell's title, with its row and column, becomes its name for reader software: the browser would
// show the title a second time.
function wordsOf(cell) {
  if (cell.title) {
    titles.set(cell, cell.title);
    cell.removeAttribute("title");
  }
  let words = titles.get(cell);
  const table = cell.closest("table");
  if (words && table) {
    const [value, ...details] = words.split("\n");
    const name = nameOf(cell.closest("[data-measure]"));
    const shown = measure === FIRST ? value : signed(otherOf(cell));
    words = [whereOf(cell), `${name}: ${shown}`, ...details].join("\n");
  }
  if (words) cell.setAttribute("aria-label", words);
  return words;
}

function nameOf(group) {
  return MEASURES[measure].words.replace("{}", group.dataset.answer);
}

// ---- another measure in all maps -----------------------------------------------------------------

function otherOf(cell) {
  const table = cell.closest("table");
  const number = table.getAttribute(`data-${measure}`).split(" ")[placeOf(cell)];
  return number === "-" ? NaN : Number(number);
}
function placeOf(cell) {
  const row = cell.parentElement;
  const names = row.querySelectorAll("th").length;
  return row.sectionRowIndex * (row.cells.length - names) + cell.cellIndex - names;
}
function signed(number) {
  return Number.isNaN(number) ? "" : `${number > 0 ? "+" : ""}${number}`.replace("-", "−");
}
function brief(number) {
  const { digits } = MEASURES[measure];
  const words = Math.abs(number) < 9.95 ? number.toFixed(digits) : number.toFixed(0);
  const nothing = words.replace(/^-?0\.0+$/, "0");
  // Two digits fit without the zero before them, as those that are shown at first.
  return (digits > 1 ? nothing.replace(/^(-?)0\./, "$1.") : nothing).replace("-", "−");
}

// The caption's words, whichever letter they begin with.
const captions = new WeakMap();
function caption(group) {
  const place = group.querySelector(":scope > .head > p");
  if (!place) return;
  if (!captions.has(place)) captions.set(place, place.textContent);
  const words = captions.get(place);
  place.textContent = words.replace(group.dataset.measure.slice(1), () => nameOf(group).slice(1));
}

const first = new WeakMap();
function show(table) {
  const numbers = table.getAttribute(`data-${measure}`)?.split(" ");
  const cells = table.tBodies[0].querySelectorAll("td");
  cells.forEach((cell, place) => {
    if (!first.has(cell)) first.set(cell, [cell.firstChild?.data ?? "", cell.className]);
    let [text, colour] = first.get(cell);
    if (numbers && text) {
      const step = Math.round(STEPS * Math.max(-1, Math.min(1, numbers[place] / MEASURES[measure].limit)));
      text = numbers[place] === "-" ? " " : brief(Number(numbers[place]));
      colour = step ? `${step > 0 ? "gain" : "loss"}${Math.abs(step)}` : "";
    }
    if (cell.firstChild) cell.firstChild.data = text;
    if (colour) cell.className = colour;
    else cell.removeAttribute("class");
  });
}
document.querySelector(".switch")?.addEventListener("change", ({ target }) => {
  measure = target.value;
  document.querySelectorAll("table[role=grid]").forEach(show);
  for (const group of document.querySelectorAll("[data-measure]")) {
    caption(group);
    group.querySelector(".key .measure").textContent = nameOf(group);
    const [low, , high] = group.querySelector(".key .ends").children;
    low.textContent = `−${MEASURES[measure].limit}`;
    high.textContent = `+${MEASURES[measure].limit}`;
  }
});

// ---- one map of several, by a slider over the noise levels ---------------------------------------

for (const group of document.querySelectorAll("section.group")) {
  const maps = [...group.querySelectorAll(":scope > .maps > .at")];
  // Maps of sites, side by side, have no level.
  if (maps.length < 2 || !("level" in maps[0].dataset)) continue;
  const label = document.createElement("label");
  label.className = "slider";
  const input = document.createElement("input");
  const output = document.createElement("output");
  input.type = "range";
  input.min = 0;
  input.max = maps.length - 1;
  input.value = Math.max(0, maps.findIndex((one) => "primary" in one.dataset));
  label.append(maps[0].dataset.sign === "σ" ? "noise level" : maps[0].dataset.sign, input, output);
  const choose = () => {
    maps.forEach((one, place) => { one.hidden = place !== Number(input.value); });
    output.value = `${maps[0].dataset.sign} = ${maps[input.value].dataset.level}`;
    input.setAttribute("aria-valuetext", output.value);
  };
  input.addEventListener("input", choose);
  group.querySelector(".maps").before(label);
  choose();
}

// ---- the overview: sorting and a filter ----------------------------------------------------------

const rows = document.querySelector("#rows tbody");
const numberIn = (text) => parseFloat(text.replace("−", "-"));
function sortBy(head) {
  const column = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  const keyed = [...rows.rows].map((row) => [row, row.cells[column].textContent]);
  const numeric = head.matches(".number");
  keyed.sort(([, a], [, b]) => {
    const order = numeric ? numberIn(a) - numberIn(b) : a.localeCompare(b);
    // What has no value stands last, whichever way.
    if (Number.isNaN(order)) return Number.isNaN(numberIn(a)) - Number.isNaN(numberIn(b));
    return down ? -order : order;
  });
  rows.append(...keyed.map(([row]) => row));
  head.parentElement.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}
for (const head of document.querySelectorAll("#rows thead tr:last-child th:not(.fixed)")) {
  head.tabIndex = 0;
  head.addEventListener("click", () => sortBy(head));
  head.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    sortBy(head);
  });
}
document.getElementById("filter")?.addEventListener("input", ({ target }) => {
  const wanted = target.value.toLowerCase();
  let found = 0;
  for (const row of rows.rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
    found += !row.hidden;
  }
  document.getElementById("found").textContent = wanted ? `${found} of ${rows.rows.length}` : "";
});

// ---- examples that are folded away ---------------------------------------------------------------

function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target?.closest("details");
  if (!details) return;
  details.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
document.addEventListener("click", ({ target }) => {
  // Also where the address stays the same.
  if (target.closest("a")?.hash && target.closest("a").hash === location.hash) unfold();
});
addEventListener("beforeprint", () => {
  document.querySelectorAll("details:not([open])").forEach((details) => {
    details.open = true;
    addEventListener("afterprint", () => { details.open = false; }, { once: true });
  });
});

// ---- labels and the keyboard ---------------------------------------------------------------------

function tell(cell) {
  const words = wordsOf(cell);
  box.hidden = !words;
  if (!words) return;
  const [head, ...lines] = words.split("\n");
  box.firstElementChild.textContent = head;
  box.lastElementChild.textContent = lines.join("\n");
  box.style.left = "0";
  const { clientWidth, clientHeight } = document.documentElement;
  const { left, top, bottom } = cell.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = box;
  const below = bottom + 6 + height <= clientHeight;
  // Counted from the page, so that it scrolls away with its cell.
  box.style.left = `${scrollX + Math.max(6, Math.min(left, clientWidth - width - 6))}px`;
  box.style.top = `${scrollY + (below ? bottom + 6 : top - height - 6)}px`;
}

function tellFocused() {
  const cell = document.activeElement?.closest(CELLS);
  if (cell) tell(cell);
  else box.hidden = true;
}

function enter(cell) {
  const grid = cell.closest("[role=grid]");
  grid.querySelectorAll("[tabindex]").forEach((other) => { other.tabIndex = -1; });
  cell.tabIndex = 0;
  cell.focus();
}

function beside(cell, key) {
  const row = cell.parentElement;
  const rows = [...row.parentElement.children];
  const column = [...row.children].indexOf(cell);
  const inRow = (step) => rows[rows.indexOf(row) + step]?.children[column];
  switch (key) {
    case "ArrowLeft": return cell.previousElementSibling;
    case "ArrowRight": return cell.nextElementSibling;
    case "ArrowUp": return inRow(-1);
    case "ArrowDown": return inRow(1);
    case "Home": return [...row.children].find((other) => other.matches(CELLS));
    case "End": return row.lastElementChild;
  }
}

document.addEventListener("pointerover", ({ target }) => {
  const cell = target.closest(CELLS);
  if (cell) tell(cell);
});
document.addEventListener("pointerout", ({ target }) => {
  if (target.closest(CELLS)) tellFocused();
});
// A finger has no place when it is lifted; the focus stays.
document.addEventListener("click", ({ target }) => {
  const cell = target.closest(CELLS);
  if (cell) enter(cell);
});
document.addEventListener("focusin", tellFocused);
document.addEventListener("focusout", () => { box.hidden = true; });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") box.hidden = true;
  const cell = event.target.closest(CELLS);
  if (!cell || event.altKey || event.ctrlKey || event.metaKey) return;
  const next = beside(cell, event.key);
  if (next === undefined) return;
  event.preventDefault();
  if (next?.matches(CELLS)) enter(next);
});
for (const grid of document.querySelectorAll("[role=grid]")) {
  grid.querySelector(CELLS).tabIndex = 0;
}
