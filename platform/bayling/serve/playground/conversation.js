// The conversation as people read it, and as the model was given it.

import { directionOf } from "./languages.js";

const turns = document.querySelector("#turns");
const messages = document.querySelector("#messages");
const ROLES = { user: "You", assistant: "BayLing", system: "System" };

/** A further turn at the end; returns it, so that its text can grow. */
export function add(role, text, language) {
  const turn = entry(ROLES[role], text);
  turn.classList.add(role);
  turn.querySelector(".said").dir = directionOf(language);
  if (language) turn.querySelector(".said").lang = language;
  turns.append(turn);
  return turn;
}

/** What a turn says. */
export function say(turn, text) {
  turn.querySelector(".said").textContent = text;
}

export function clear() {
  turns.replaceChildren();
}

/** The exact messages of a translation, with the answer. */
export function showMessages(given) {
  document.querySelector("#no-messages").hidden = given.length > 0;
  messages.replaceChildren(...given.map(({ role, content }) => entry(role, content)));
}

function entry(who, text) {
  const item = document.createElement("li");
  const speaker = document.createElement("span");
  speaker.className = "who";
  speaker.textContent = who;
  const said = document.createElement("p");
  said.className = "said";
  said.dir = "auto";
  said.textContent = text;
  item.append(speaker, said);
  return item;
}
