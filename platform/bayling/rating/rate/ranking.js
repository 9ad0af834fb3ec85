// The two ways to vote: one of four buttons for two answers, places for more.

/** The letters by which answers are called. */
export const LETTERS = ["A", "B", "C", "D"];

/** Ranks of a vote on two answers, by the key that gives it. */
const VERDICTS = [
  { key: "1", ranks: [1, 2], bad: false, label: "A is better", short: "A" },
  { key: "2", ranks: [2, 1], bad: false, label: "B is better", short: "B" },
  { key: "3", ranks: [1, 1], bad: false, label: "A tie", short: "Tie" },
  { key: "0", ranks: [1, 1], bad: true, label: "Both bad", short: "Both bad" },
];

/**
 * The controls of a vote, in `place`.
 *
 * `cast` is called with the ranks from left to right, whether all answers are bad, and the vote in
 * words; `announce` with what changes before that. Returns `key(name)`, which says whether a key
 * meant something here, and `undo()`, which says whether there was something to take back.
 */
export function controls(place, answers, vote, cast, announce) {
  return answers === 2 ? verdicts(place, vote, cast) : places(place, answers, vote, cast, announce);
}

/** What the keys of a vote are, for the help. */
export function keys(answers) {
  if (answers === 2) return VERDICTS.map(({ key, label }) => [key, label]);
  return [
    [`1 – ${answers}`, "Rank the marked answer; equal ranks are ties"],
    [`a – ${LETTERS[answers - 1].toLowerCase()}`, "Mark another answer"],
    ["Enter", "Save the ranking"],
    ["0", "All are bad"],
  ];
}

function verdicts(place, vote, cast) {
  const given = (one) => vote && vote.bad === one.bad && `${vote.ranks}` === `${one.ranks}`;
  const buttons = VERDICTS.map((one) => {
    const button = element("button", "verdict");
    button.type = "button";
    button.setAttribute("aria-keyshortcuts", one.key);
    button.setAttribute("aria-label", one.label);
    button.setAttribute("aria-pressed", String(Boolean(given(one))));
    button.append(element("kbd", "", one.key), element("span", "long", one.label));
    button.append(element("span", "short", one.short));
    button.addEventListener("click", () => cast(one.ranks, one.bad, one.label));
    return button;
  });
  place.className = "choice verdicts";
  place.replaceChildren(...buttons);
  return {
    key(name) {
      const index = VERDICTS.findIndex((one) => one.key === name);
      if (index < 0) return false;
      buttons[index].click();
      return true;
    },
    undo: () => false,
  };
}

function places(place, answers, vote, cast, announce) {
  const ranks = vote ? [...vote.ranks] : Array(answers).fill(null);
  /** Answers in the order in which they were given a rank here, with the rank before. */
  const steps = [];
  let marked = ranks.indexOf(null);
  const chips = ranks.map((_, index) => {
    const chip = element("button", "chip", LETTERS[index]);
    chip.type = "button";
    chip.setAttribute("aria-keyshortcuts", LETTERS[index].toLowerCase());
    chip.addEventListener("click", () => mark(index));
    draggable(chip, (rank) => set(index, rank));
    return chip;
  });
  const tray = element("div", "tray");
  const slots = ranks.map((_, index) => {
    const slot = element("div", "slot");
    slot.dataset.rank = index + 1;
    const label = element("button", "quiet rank");
    label.type = "button";
    const says = index === 0 ? "best" : index === answers - 1 ? "worst" : "";
    label.append(element("kbd", "", String(index + 1)), element("span", "", says));
    const held = element("div", "held");
    slot.append(label, held);
    slot.addEventListener("click", (event) => {
      if (!event.target.closest(".chip") && marked >= 0) set(marked, index + 1);
    });
    return { slot, label, held };
  });
  const save = element("button", "primary", "Save");
  save.type = "button";
  save.addEventListener("click", () => cast(ranks, false, words()));
  const bad = element("button", "quiet", "All bad");
  bad.type = "button";
  bad.setAttribute("aria-keyshortcuts", "0");
  bad.addEventListener("click", () => cast(ranks.map(() => 1), true, "All are bad"));
  const row = element("div", "slots");
  row.append(...slots.map(({ slot }) => slot));
  const ends = element("div", "ends");
  ends.append(bad, save);
  place.className = "choice places";
  place.replaceChildren(tray, row, ends);
  show();

  function words() {
    const levels = [...new Set(ranks)].sort();
    return levels
      .map((rank) => LETTERS.filter((_, index) => ranks[index] === rank).join(" and "))
      .join(" before ");
  }

  function mark(index) {
    marked = index;
    show();
    announce(`${LETTERS[index]} is marked.`);
  }

  function set(index, rank) {
    steps.push([index, ranks[index]]);
    ranks[index] = rank;
    marked = ranks.indexOf(null);
    show();
    const next = marked < 0 ? "Save the ranking with Enter." : `Now ${LETTERS[marked]}.`;
    announce(`${LETTERS[index]} has rank ${rank}. ${next}`);
    if (marked < 0) save.focus();
  }

  function show() {
    chips.forEach((chip, index) => {
      const rank = ranks[index];
      const home = rank === null ? tray : slots[rank - 1].held;
      if (chip.parentElement !== home) home.append(chip);
      chip.setAttribute("aria-pressed", String(index === marked));
      const state = rank === null ? "not ranked" : `rank ${rank}`;
      chip.setAttribute("aria-label", `Answer ${LETTERS[index]}, ${state}`);
    });
    slots.forEach(({ label }, index) => {
      label.disabled = marked < 0;
      const what = marked < 0 ? "an answer" : LETTERS[marked];
      label.setAttribute("aria-label", `Give ${what} rank ${index + 1}`);
    });
    tray.hidden = !tray.children.length;
    save.disabled = ranks.includes(null);
  }

  return {
    key(name) {
      const letter = LETTERS.slice(0, answers).indexOf(name.toUpperCase());
      if (letter >= 0) mark(letter);
      else if (name === "0") bad.click();
      else if (/^[1-9]$/u.test(name) && Number(name) <= answers && marked >= 0) {
        set(marked, Number(name));
      } else if (name === "Enter" && !save.disabled) save.click();
      else return false;
      return true;
    },
    undo() {
      const step = steps.pop();
      if (!step) return false;
      [marked] = step;
      [, ranks[marked]] = step;
      show();
      announce(`${LETTERS[marked]} is taken back.`);
      return true;
    },
  };
}

/** A chip that mouse or finger can carry into a slot. */
function draggable(chip, drop) {
  let from = null;
  let moved = false;
  const over = (event) => {
    const under = document.elementsFromPoint(event.clientX, event.clientY);
    return under.map((one) => one.closest(".slot")).find(Boolean);
  };
  const lightUp = (slot) => {
    for (const one of document.querySelectorAll(".slot")) one.toggleAttribute("data-over", one === slot);
  };
  const end = () => {
    from = null;
    chip.style.transform = "";
    lightUp(null);
  };
  chip.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = { x: event.clientX, y: event.clientY };
    moved = false;
    chip.setPointerCapture(event.pointerId);
  });
  chip.addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = [event.clientX - from.x, event.clientY - from.y];
    moved ||= Math.hypot(x, y) > 6;
    if (!moved) return;
    chip.style.transform = `translate(${x}px, ${y}px)`;
    lightUp(over(event));
  });
  chip.addEventListener("pointerup", (event) => {
    const slot = from && moved && over(event);
    end();
    if (slot) drop(Number(slot.dataset.rank));
  });
  chip.addEventListener("pointercancel", end);
  // The click that ends a drag is none.
  chip.addEventListener("click", (event) => moved && event.stopImmediatePropagation(), true);
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
