// The page: what is asked, what comes back, and what is kept between the two.

import * as api from "./api.js";
import * as conversation from "./conversation.js";
import * as terms from "./glossary.js";
import { directionOf, nameOf, preferred, sorted } from "./languages.js";

const $ = (id) => document.getElementById(id);
const page = {
  answer: $("answer"),
  copy: $("copy"),
  detected: $("detected"),
  error: $("error"),
  facts: $("facts"),
  from: $("source-language"),
  into: $("target-language"),
  live: $("live"),
  refinement: $("refinement"),
  refine: $("refine"),
  source: $("source"),
  swap: $("swap"),
};
const submits = [$("translate"), $("refine-send")];
const idle = new Map(submits.map((button) => [button, button.textContent]));

/** What may be over in a moment: out of reach, too busy, not ready, too slow. */
const PASSING = new Set([0, 429, 503, 504]);

/** The conversation so far, as the server gave it; it goes back with the next refinement. */
let history = [];
/** Stops the answer that is being made; null while none is. */
let running = null;
/** The language that the server found the text to be in. */
let detected = null;
/** What to do once there is an API key. */
let afterKey = start;

// --- asking -----------------------------------------------------------------------------------

async function translate() {
  const text = page.source.value;
  if (!text.trim()) {
    page.source.focus();
    return;
  }
  history = [];
  detected = null;
  conversation.clear();
  conversation.add("user", text, page.from.value);
  page.refine.hidden = true;
  showDetected();
  await ask({
    text,
    target: page.into.value,
    ...(page.from.value && { source: page.from.value }),
    ...($("instructions").value.trim() && { instructions: $("instructions").value.trim() }),
  }, page.into.value, translate);
}

async function refine() {
  const text = page.refinement.value.trim();
  if (!text) {
    page.refinement.focus();
    return;
  }
  const turn = conversation.add("user", text);
  page.refinement.value = "";
  const kept = await ask({ text, history }, null, refine);
  if (!kept) {
    turn.remove();
    page.refinement.value = text;
  }
}

/** Show the answer to a request as it comes; returns whether there is a whole one. */
async function ask(body, language, again) {
  const answer = conversation.add("assistant", "", language);
  const show = (text) => {
    page.answer.textContent = text;
    conversation.say(answer, text);
  };
  const begun = performance.now();
  let text = "";
  let usage = null;
  page.answer.lang = language ?? "";
  page.answer.dir = directionOf(language);
  page.answer.removeAttribute("data-failed");
  show("");
  const mine = begin();
  try {
    const version = await api.translate({ ...body, ...settings() }, mine.signal, (event) => {
      if (event.object === "translation.delta") {
        text += event.delta;
      } else if (event.object === "translation.restart") {
        text = "";
        page.facts.textContent = "A glossary term was missing: asking again…";
      } else if (event.object === "translation") {
        text = event.translation.text;
        finish(event.translation);
      } else if (event.object === "translation.usage") {
        usage = event.usage;
      }
      show(text);
    });
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    page.facts.textContent = `${usage.completion_tokens} tokens in ${seconds} s, version ${version}`;
    return true;
  } catch (error) {
    if (running !== mine) return false; // the page has moved on
    answer.remove();
    page.answer.dataset.failed = "";
    if (error.name === "AbortError") {
      page.facts.textContent = "Stopped";
      announce("Stopped.");
    } else {
      page.facts.textContent = "";
      showError(error, again);
    }
    return false;
  } finally {
    if (running === mine) end();
    page.copy.disabled = !page.answer.textContent;
  }
}

/** A translation is complete. */
function finish(translation) {
  history = translation.messages;
  if (translation.source_detected) detected = translation.source;
  showDetected(translation);
  conversation.showMessages(history);
  terms.show(translation.glossary);
  page.refine.hidden = false;
  announce(`${translation.text} ${terms.summary(translation.glossary)}`);
}

/** The fields of a request that are the same for a translation and its refinement. */
function settings() {
  const number = (id) => ($(id).value === "" ? null : Number($(id).value));
  const fields = {
    temperature: number("temperature"),
    top_p: number("top-p"),
    max_tokens: number("max-tokens"),
    seed: number("seed"),
  };
  return {
    ...Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)),
    glossary: terms.glossary(),
    prompt_language: $("prompt-language").value,
  };
}

// --- showing ----------------------------------------------------------------------------------

function begin() {
  running = new AbortController();
  page.error.hidden = true;
  page.facts.textContent = "";
  page.answer.ariaBusy = "true";
  for (const button of submits) {
    button.textContent = "Stop";
    button.dataset.running = "";
  }
  return running;
}

function end() {
  running = null;
  page.answer.ariaBusy = "false";
  for (const button of submits) {
    button.textContent = idle.get(button);
    delete button.dataset.running;
  }
}

/** To those who hear the page rather than see it: what is finished, not every piece of it. */
function announce(text) {
  page.live.textContent = text;
}

function showDetected(translation) {
  $("keys").hidden = Boolean(translation);
  page.swap.disabled = !(page.from.value || detected);
  if (page.from.value) page.detected.textContent = "";
  else if (detected) page.detected.textContent = `Detected: ${nameOf(detected)}`;
  else page.detected.textContent = translation && !translation.source ? "Language not detected" : "";
}

function showError(error, again) {
  if (error.status === 401) {
    afterKey = again;
    $("key-form").hidden = false;
    $("key").focus();
  }
  const parts = [document.createTextNode(`${sentence(error.message)} `)];
  if (PASSING.has(error.status)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Try again";
    button.addEventListener("click", () => again());
    const seconds = error.retryAfter;
    if (seconds) parts.push(document.createTextNode(`The server asks to wait ${seconds} s. `));
    parts.push(button);
  }
  page.error.replaceChildren(...parts);
  page.error.hidden = false;
  page.error.scrollIntoView({ block: "nearest" });
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/u.test(text) ? "" : ".");
}

function showModel({ id, version, page: link }) {
  const name = document.createElement(link ? "a" : "span");
  name.textContent = `${id}, version ${version}`;
  if (link) {
    name.href = link;
    name.title = "This version in MLflow";
  }
  $("model").replaceChildren(name);
}

// --- controls ---------------------------------------------------------------------------------

function submit(form, work) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.abort();
    else work();
  });
}

submit($("ask"), translate);
submit($("refine-form"), refine);
submit($("key-form"), () => {
  api.useKey($("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  page.error.hidden = true;
  afterKey();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) {
    event.preventDefault();
    translate();
  } else if (event.key === "Escape" && running) {
    running.abort();
  }
});

page.swap.addEventListener("click", () => {
  const source = page.from.value || detected;
  const text = page.answer.textContent;
  page.from.value = page.into.value;
  page.into.value = source;
  if (text) page.source.value = text;
  startOver();
});

page.from.addEventListener("change", () => {
  page.source.dir = directionOf(page.from.value);
  detected = null;
  showDetected();
});

page.copy.addEventListener("click", async () => {
  const label = page.copy.querySelector("span");
  try {
    await navigator.clipboard.writeText(page.answer.textContent);
    label.textContent = "Copied";
  } catch {
    // A page that was not loaded over https may not: the text is then ready for Ctrl+C.
    getSelection().selectAllChildren(page.answer);
    label.textContent = "Selected";
  }
  announce(`${label.textContent}.`);
  setTimeout(() => {
    label.textContent = "Copy";
  }, 2000);
});

function startOver() {
  running?.abort();
  end();
  history = [];
  detected = null;
  conversation.clear();
  conversation.showMessages([]);
  terms.show([]);
  page.answer.textContent = "";
  page.facts.textContent = "";
  page.copy.disabled = true;
  page.refine.hidden = true;
  page.error.hidden = true;
  page.source.dir = directionOf(page.from.value);
  showDetected();
}

$("start-over").addEventListener("click", () => {
  startOver();
  page.source.focus();
});
$("add-term").addEventListener("click", () => terms.add().focus());
$("glossary").addEventListener("toggle", () => {
  if ($("glossary").open && !$("terms").children.length) terms.add();
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

async function start() {
  let served;
  try {
    served = await api.model();
  } catch (error) {
    showError(error, start);
    return;
  }
  showModel(served);
  const tags = sorted(served.languages);
  const options = () => tags.map((tag) => new Option(nameOf(tag), tag));
  page.from.append(...options());
  page.into.replaceChildren(...options());
  page.into.value = preferred(served.languages, "en");
}

labelTheme();
showDetected();
start();
