// The glossary: rows of a term and its translation, and what became of each.

const list = document.querySelector("#terms");
const template = document.querySelector("#term");
const count = document.querySelector("#glossary-count");

const WORDS = {
  used: "used",
  missing: "not used",
  absent: "not in the text",
};

/** Term → translation, without rows that are not filled in. */
export function glossary() {
  return Object.fromEntries(
    [...list.children]
      .map((row) => [value(row, ".from"), value(row, ".to")])
      .filter(([term, translation]) => term && translation),
  );
}

/** Say of each row what the server reports of it. */
export function show(report) {
  const uses = new Map(report.map((use) => [`${use.term}\n${use.translation}`, use]));
  for (const row of list.children) {
    const use = uses.get(`${value(row, ".from")}\n${value(row, ".to")}`);
    const shown = row.querySelector(".use");
    shown.hidden = !use;
    if (!use) continue;
    shown.dataset.use = use.used ? "used" : use.applicable ? "missing" : "absent";
    shown.querySelector("span").textContent = WORDS[shown.dataset.use];
  }
}

/** In a sentence: which terms are missing; empty if none is. */
export function summary(report) {
  const missing = report.filter((use) => use.applicable && !use.used);
  if (!missing.length) return "";
  return `Not used: ${missing.map((use) => use.translation).join(", ")}.`;
}

/** A row more; returns its first field. */
export function add() {
  const row = template.content.firstElementChild.cloneNode(true);
  list.append(row);
  const remove = row.querySelector("button");
  row.addEventListener("input", () => {
    row.querySelector(".use").hidden = true;
    label();
  });
  remove.addEventListener("click", () => {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    label();
    (next?.querySelector(".from") ?? document.querySelector("#add-term")).focus();
  });
  label();
  return row.querySelector(".from");
}

function value(row, field) {
  return row.querySelector(field).value.trim();
}

/** Rows are told apart by number, for those who cannot see them. */
function label() {
  [...list.children].forEach((row, index) => {
    row.querySelector(".from").ariaLabel = `Term ${index + 1}`;
    row.querySelector(".to").ariaLabel = `Translation of term ${index + 1}`;
    row.querySelector("button .hidden").textContent = `Remove term ${index + 1}`;
  });
  const filled = Object.keys(glossary()).length;
  count.textContent = filled ? String(filled) : "";
}
