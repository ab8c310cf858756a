"use strict";
// tables whose heads can be pressed; without this script they are read in the order that they have
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && !head.classList.contains("n"));
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return numbers ? x - y : x.localeCompare(y, undefined, { numeric: true });
      });
      body.append(...(up ? rows : rows.reverse()));
    });
  });
}
// the atlas: the image of the point under the pointer, or of the one that the arrow keys have come to
const atlas = document.querySelector(".atlas");
if (atlas) {
  const svg = atlas.querySelector("svg"), tip = atlas.querySelector(".tip"), points = [...svg.querySelectorAll("circle")];
  const [picture, text] = tip.children;
  let current = -1;
  const show = index => {
    points[current]?.classList.remove("on");
    current = index;
    const point = points[index];
    tip.hidden = !point;
    if (!point) return;
    point.classList.add("on");
    const tile = +point.dataset.tile, columns = +atlas.dataset.columns;
    picture.style.display = tile < 0 ? "none" : "";
    if (tile >= 0) {
      picture.style.backgroundImage = `url(${atlas.querySelector("img").src})`;
      picture.style.backgroundSize = `${columns * 96}px auto`;
      picture.style.backgroundPosition = `-${(tile % columns) * 96}px -${Math.floor(tile / columns) * 96}px`;
    }
    text.textContent = point.querySelector("title").textContent;
    const box = atlas.getBoundingClientRect(), at = point.getBoundingClientRect();
    const left = at.left - box.left + 14, top = at.top - box.top + 14;
    tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${top + tip.offsetHeight > box.height ? Math.max(0, top - tip.offsetHeight - 28) : top}px`;
  };
  svg.addEventListener("pointerover", event => { if (event.target.matches("circle")) show(points.indexOf(event.target)); });
  svg.addEventListener("pointerleave", () => show(-1));
  svg.addEventListener("blur", () => show(-1));
  svg.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show((current + step + points.length) % points.length);
  });
}
