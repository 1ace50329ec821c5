// Cells are told on hovering and on focus; arrow keys move between them, the tab key between grids.
const CELLS = "[role=grid] tbody td, [role=gridcell]";
const box = document.getElementById("told");

// A cell's title, with its row and column, becomes its name for reader software: the browser would
// show the title a second time.
function wordsOf(cell) {
  if (cell.title) {
    const table = cell.closest("table");
    let words = cell.title;
    if (table) {
      const layer = table.tFoot.rows[0].cells[cell.cellIndex].textContent;
      const { measure } = cell.closest("[data-measure]").dataset;
      words = `layer ${layer}, ${cell.parentElement.cells[0].textContent}\n${measure}: ${words}`;
    }
    cell.setAttribute("aria-label", words);
    cell.removeAttribute("title");
  }
  return cell.getAttribute("aria-label");
}

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
