// Tables that can be sorted, and a gallery that can be filtered.

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => sort(table, head, column));
  });
}

function sort(table, head, column) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const key = (row) => row.cells[column].textContent.trim();
  const rows = [...body.rows].sort((one, other) => {
    const [x, y] = [key(one), key(other)];
    if (!x || !y) return !x - !y; // what has no figure stays below, whichever way
    const [a, b] = [x, y].map((text) => Number(text.replaceAll(",", "")));
    const order = isNaN(a) || isNaN(b) ? x.localeCompare(y) : a - b;
    return up ? order : -order;
  });
  body.append(...rows);
}

for (const form of document.querySelectorAll("form.filter")) {
  const cards = document.querySelectorAll(form.dataset.filters);
  form.addEventListener("input", () => {
    const wanted = [...new FormData(form)].filter(([, value]) => value);
    for (const card of cards) card.hidden = wanted.some(([name, value]) => card.dataset[name] !== value);
  });
}
