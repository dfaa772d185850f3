// The Management API as this page uses it. The token lives in sessionStorage and nowhere else: it
// is gone with the tab, and no other site can make the browser send it.

const TOKEN = "systemprompt.token";
const TIMEOUT = 15000;

/** A refusal by the server, or no answer at all (`status` 0). */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

export function setToken(value) {
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

/** A GET; `signal` abandons it. */
export function get(path, signal) {
  return call("GET", path, undefined, signal);
}

export function post(path, body) {
  return call("POST", path, body);
}

export function tenantPath(tenant, ...rest) {
  return ["/api/v1/tenants", encodeURIComponent(tenant), ...rest].join("/");
}

async function call(method, path, body, signal) {
  const limits = [AbortSignal.timeout(TIMEOUT)];
  if (signal) limits.push(signal);
  const response = await send(path, {
    method,
    body: body && JSON.stringify(body),
    headers: headers(body ? { "content-type": "application/json" } : {}),
    signal: AbortSignal.any(limits),
  });
  if (response.status === 204) return undefined;
  try {
    return await response.json();
  } catch {
    throw new ApiError(response.status, "bad_answer", "the server's answer is not JSON; is something else listening here?");
  }
}

/** Events of a stream, until it ends or `signal` abandons it. `EventSource` cannot send a token. */
export async function* events(path, signal, lastId) {
  const extra = { accept: "text/event-stream" };
  if (lastId) extra["last-event-id"] = lastId;
  const response = await send(path, { headers: headers(extra), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield* parser.push(value);
  }
}

/** Splits a text/event-stream (HTML standard, "Server-sent events") however its bytes arrive. */
export class EventParser {
  #rest = "";
  #event = { data: [] };
  #id = "";

  *push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#event.data.length > 0) {
          yield { id: this.#id, name: this.#event.name ?? "message", data: this.#event.data.join("\n") };
        }
        this.#event = { data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") this.#event.data.push(value);
      else if (field === "event") this.#event.name = value;
      else if (field === "id") this.#id = value;
    }
  }
}

function headers(extra) {
  const known = token();
  return known ? { ...extra, authorization: `Bearer ${known}` } : extra;
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name === "TimeoutError") throw new ApiError(0, "timeout", "the server did not answer in time");
    throw new ApiError(0, "unreachable", "the server cannot be reached");
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  const text = (await response.text().catch(() => "")).slice(0, 500);
  try {
    const { error } = JSON.parse(text);
    return new ApiError(response.status, String(error.code), String(error.message));
  } catch {
    return new ApiError(response.status, "", text || `the server answered ${response.status}`);
  }
}
