// Talks to the server that this page came from.

const BASE = new URL("../api/", import.meta.url);
/** The token of the link; without one there is nothing behind the #. */
const TOKEN = decodeURIComponent(location.hash.slice(1));

/** What the server, or the way to it, failed with, in words. */
export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** How many answers an item has, the groups of items, and the rater if that is not to be asked. */
export function overview() {
  return request("overview");
}

/** The rater's name as votes have it, and of every item its group and whether it is judged. */
export function progress(rater) {
  return request(`progress?${new URLSearchParams({ rater })}`);
}

/** An item's question and answers, in this rater's order, and their vote if there is one. */
export function item(number, rater) {
  return request(`items/${number}?${new URLSearchParams({ rater })}`);
}

/** Keep a vote: `ranks` from left to right, whether all are `bad`, and the `seconds` it took. */
export function vote(number, body) {
  return request(`items/${number}/vote`, "PUT", body);
}

export function withdraw(number, rater) {
  return request(`items/${number}/vote`, "DELETE", { rater });
}

/** Tell the server that this rater makes a pause, or has judged everything. */
export function pause() {
  return request("pause", "POST", {});
}

async function request(path, method = "GET", body = null) {
  const headers = {};
  if (TOKEN) headers.authorization = `Bearer ${TOKEN}`;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, BASE), {
      method,
      headers,
      ...(body && { body: JSON.stringify(body) }),
    });
  } catch {
    throw new Failure("The server cannot be reached. Is it still running?");
  }
  const told = await response.json().catch(() => null);
  if (response.ok) return told;
  throw new Failure(told?.error ?? `The server answered ${response.status}.`, response.status);
}
