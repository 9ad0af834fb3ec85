// The page: who judges, what is shown, and what becomes of a vote.

import * as api from "./api.js";
import { nameOf } from "./languages.js";
import { LETTERS, controls, keys } from "./ranking.js";

const $ = (id) => document.getElementById(id);
const NAME = "bayling.rater";

const QUESTIONS = {
  translation: {
    two: "Which translation is better?",
    more: "Rank the translations",
    advice: "All of the meaning and nothing else; then how natural it reads.",
  },
  instruction: {
    two: "Which answer is better?",
    more: "Rank the answers",
    advice: "Does it do what was asked, and is it right? Then how well it is put.",
  },
  "multi-turn": {
    two: "Which conversation goes better?",
    more: "Rank the conversations",
    advice: "Does each turn do what it was asked, and do earlier wishes still hold?",
  },
};

/** What the server said of the session: `answers` an item, `groups` of items, a fixed `rater`. */
let session = null;
let rater = null;
/** Of every item its group and whether it is judged. */
let items = [];
/** The numbers of the items that this rater judges, in their order. */
let mine = [];
/** Where in `mine` the page is. */
let at = 0;
/** Numbers of the items judged since the page was opened, the last one at the end. */
const judged = [];
/** The controls of the item that is shown. */
let voting = null;
let shownSince = 0;
let busy = false;

// --- screens ----------------------------------------------------------------------------------

function screen(name) {
  for (const one of ["begin", "judge", "over"]) $(one).hidden = one !== name;
  $("pause").hidden = name !== "judge";
  $("error").hidden = true;
}

async function start() {
  await trying(start, async () => {
    session = await api.overview();
    $("name-field").hidden = session.rater !== null;
    $("name").required = session.rater === null;
    $("name").value = localStorage.getItem(NAME) ?? "";
    $("choices").replaceChildren(...session.groups.map(choice));
    $("groups").hidden = session.groups.length < 2;
    const rows = [...keys(session.answers), ["u, Backspace", "Take the last vote back"]];
    rows.push(["←, →", "Previous, next, without a vote"], ["p", "Pause"], ["?", "This help"]);
    $("keys").replaceChildren(...rows.flatMap(([key, text]) => [term("dt", key), term("dd", text)]));
    screen("begin");
    (session.rater === null ? $("name") : $("begin").querySelector("[type=submit]")).focus();
  });
}

async function begin() {
  const chosen = [...document.querySelectorAll("#choices input")].map((box) => box.checked);
  if (!chosen.includes(true)) {
    showError(new api.Failure("Choose at least one thing to judge."));
    return;
  }
  await trying(begin, async () => {
    const told = await api.progress(session.rater ?? $("name").value);
    rater = told.rater;
    items = told.items;
    localStorage.setItem(NAME, rater);
    mine = items.map((_, number) => number).filter((number) => chosen[items[number].group]);
    $("rater").textContent = rater;
    at = -1;
    await forward();
  });
}

/** To the next item that is not judged yet, from the beginning again after the last. */
async function forward(said = "") {
  for (let step = 1; step <= mine.length; step += 1) {
    const place = (at + step + mine.length) % mine.length;
    if (!items[mine[place]].done) {
      await show(place, said);
      return;
    }
  }
  $("over-title").textContent = "All judged. Thank you!";
  $("over-text").textContent = `Your ${mine.length} votes are saved. You can close this page.`;
  $("go-on").textContent = "Look at them again";
  over(0);
}

/** Show the item at a place in `mine`. */
async function show(place, said = "") {
  const item = await api.item(mine[place], rater);
  at = place;
  screen("judge");
  const { two, more, advice } = QUESTIONS[item.task];
  const question = session.answers === 2 ? two : more;
  $("question").textContent = question;
  $("advice").textContent = advice;
  const done = mine.filter((number) => items[number].done).length;
  $("progress").max = mine.length;
  $("progress").value = done;
  $("counted").textContent = `${done} of ${mine.length} judged`;
  $("turns").replaceChildren(...item.turns.map((text, turn) => turnOf(item, text, turn)));
  voting = controls($("choice"), session.answers, item.vote, cast, announce);
  $("undo").disabled = !judged.length;
  shownSince = performance.now();
  $("question").focus({ preventScroll: true });
  scrollTo(0, 0);
  announce(`${said} ${question} ${done} of ${mine.length} judged.`.trim());
}

function over(place) {
  screen("over");
  at = place;
  $("over-title").focus();
  announce($("over-title").textContent);
  api.pause().catch(() => {}); // every vote is saved already
}

function pause() {
  const done = mine.filter((number) => items[number].done).length;
  $("over-title").textContent = "A pause";
  $("over-text").textContent =
    `${done} of ${mine.length} judged, and saved. Close this page and come back, or go on.`;
  $("go-on").textContent = "Go on";
  over(at);
}

// --- voting -----------------------------------------------------------------------------------

async function cast(ranks, bad, said) {
  const number = mine[at];
  const seconds = (performance.now() - shownSince) / 1000;
  await trying(() => cast(ranks, bad, said), async () => {
    await api.vote(number, { rater, ranks, bad, seconds });
    items[number].done = true;
    judged.push(number);
    await forward(`${said}: saved.`);
  });
}

async function undo() {
  if (voting?.undo() || !judged.length) return;
  await trying(undo, async () => {
    const number = judged.at(-1);
    await api.withdraw(number, rater);
    judged.pop();
    items[number].done = false;
    await show(mine.indexOf(number), "Taken back.");
  });
}

async function move(by) {
  const place = at + by;
  if (place < 0 || place >= mine.length) {
    announce(by < 0 ? "This is the first one." : "This is the last one.");
    return;
  }
  await trying(() => move(by), () => show(place));
}

/** Do one thing at a time; what it fails with is shown, with a way to try again. */
async function trying(again, work) {
  if (busy) return;
  busy = true;
  $("error").hidden = true;
  try {
    await work();
  } catch (error) {
    showError(error, again);
  } finally {
    busy = false;
  }
}

// --- showing ----------------------------------------------------------------------------------

/** A turn: what was asked, and every system's answer to it. */
function turnOf(item, text, turn) {
  const translation = item.task === "translation";
  const said = (words, language) => {
    const one = term("p", words);
    one.className = "said";
    one.dir = "auto";
    if (language) one.lang = language;
    if (!words.trim()) {
      one.textContent = "(empty)";
      one.classList.add("empty");
    }
    return one;
  };
  const asked = document.createElement("div");
  asked.className = "card asked";
  const title = term("h3", item.turns.length > 1 ? `Turn ${turn + 1}` : "Question");
  if (translation) title.textContent = direction(item.source_lang, item.target_lang);
  asked.append(title, said(text, translation && item.source_lang));
  const answers = document.createElement("div");
  answers.className = "answers";
  answers.dataset.number = item.answers.length;
  answers.append(
    ...item.answers.map((turns, index) => {
      const answer = document.createElement("article");
      answer.className = "card answer";
      const letter = term("h4", LETTERS[index]);
      letter.id = `answer-${turn}-${index}`;
      answer.setAttribute("aria-labelledby", letter.id);
      const hidden = term("span", "Answer ");
      hidden.className = "hidden";
      letter.prepend(hidden);
      answer.append(letter, said(turns[turn], translation && item.target_lang));
      return answer;
    }),
  );
  const entry = document.createElement("li");
  entry.append(asked, answers);
  return entry;
}

/** A group of items that can be left out. */
function choice(group, index) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = true;
  box.id = `group-${index}`;
  const names = { instruction: "Instructions", "multi-turn": "Conversations" };
  const name = names[group.task] ?? direction(group.source_lang, group.target_lang);
  const number = term("span", ` ${group.items}`);
  number.className = "hint";
  const text = term("span", name);
  label.append(box, text, number);
  return label;
}

function direction(source, target) {
  return `${nameOf(source)} → ${nameOf(target)}`;
}

function term(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/** To those who hear the page rather than see it. */
function announce(text) {
  $("live").textContent = text;
}

function showError(error, again = null) {
  const message = error.message.replace(/[^.!?…]$/u, "$&.");
  const parts = [`${message.charAt(0).toUpperCase()}${message.slice(1)} `];
  if (again) {
    const button = term("button", "Try again");
    button.type = "button";
    button.className = "quiet";
    button.addEventListener("click", again);
    parts.push(button);
  }
  $("error").replaceChildren(...parts);
  $("error").hidden = false;
  $("error").scrollIntoView({ block: "nearest" });
}

// --- controls ---------------------------------------------------------------------------------

$("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  begin();
});
$("previous").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("undo").addEventListener("click", undo);
$("pause").addEventListener("click", pause);
$("go-on").addEventListener("click", () => trying(() => $("go-on").click(), () => show(at)));
$("help-open").addEventListener("click", () => $("help").showModal());

// Not by its address: what stands behind the # there is the token.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  ["question", "over-title", "name"].map($).find((one) => one.checkVisibility())?.focus();
});

document.addEventListener("keydown", (event) => {
  // A key that is held down must not vote on one item after the other.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if ($("help").open || event.target.closest("input")) return;
  if (event.key === "?") {
    $("help").showModal();
  } else if ($("judge").hidden) {
    return;
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    move(event.key === "ArrowLeft" ? -1 : 1);
  } else if (event.key === "u" || event.key === "Backspace") {
    undo();
  } else if (event.key === "p") {
    pause();
  } else if (event.key === "Enter" && event.target.closest("button, a")) {
    return; // it is pressed
  } else if (!voting?.key(event.key)) {
    return;
  }
  event.preventDefault();
});

function labelTheme() {
  const dark = document.documentElement.dataset.theme === "dark";
  $("theme").querySelector("span").textContent = dark ? "Light theme" : "Dark theme";
}

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("bayling.theme", root.dataset.theme);
  labelTheme();
});

labelTheme();
start();
