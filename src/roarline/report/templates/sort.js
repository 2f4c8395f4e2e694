// Sort the leaderboard by a column; methods and baselines stay apart. The page is complete without this.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[column].dataset.value;
        return column === 0 ? row.cells[0].textContent : text === undefined ? Infinity : Number(text);
      };
      for (const body of table.tBodies) {
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          return (rising ? 1 : -1) * (x < y ? -1 : x > y ? 1 : 0);
        });
        body.append(...rows);
      }
    });
  });
}
