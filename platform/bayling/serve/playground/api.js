// Talks to the server that this page came from.

const KEY = "bayling.key";
const BASE = new URL("../v1/", import.meta.url);

/** What the server, or the way to it, failed with, in words. */
export class Failure extends Error {
  constructor(message, { status = 0, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter; // seconds
  }
}

/** Keep an API key for as long as this tab is open. */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The model that answers here: name, version, languages, page. */
export async function model() {
  const response = await request("models");
  const version = response.headers.get("x-bayling-model-version");
  const { data } = await response.json();
  return { ...data[0], version: version ?? data[0].version };
}

/**
 * Ask for translations, and call `onEvent` with each event of the stream.
 *
 * Returns the version that made them when the stream is complete; throws a `Failure`, or an
 * AbortError once `signal` says so.
 */
export async function translate(body, signal, onEvent) {
  const response = await request("translations", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return response.headers.get("x-bayling-model-version");
    const event = JSON.parse(data);
    if (event.error) throw new Failure(event.error.message);
    onEvent(event);
  }
  throw new Failure("The connection broke off before the answer was complete.");
}

async function request(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(new URL(path, BASE), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const after = Number.parseInt(response.headers.get("retry-after"), 10);
  throw new Failure(told?.error?.message ?? `The server answered ${response.status}.`, {
    status: response.status,
    retryAfter: Number.isNaN(after) ? null : after,
  });
}

/** The data of server-sent events, wherever the network cut them. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ")) yield part.slice("data: ".length);
    }
  }
}
