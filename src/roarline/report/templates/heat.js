// Say which two metrics a cell of a heat map is of. The page is complete without this.
for (const table of document.querySelectorAll("table.heat")) {
  table.addEventListener("mouseover", (event) => {
    const cell = event.target.closest("td[title]");
    if (!cell || cell.dataset.named) return;
    const column = table.tHead.rows[0].cells[cell.cellIndex].textContent;
    cell.title = `${cell.parentElement.cells[0].textContent} and ${column}: τ = ${cell.title}`;
    cell.dataset.named = "yes";
  });
}
