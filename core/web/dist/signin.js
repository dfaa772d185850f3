// The page without a token: what the server says of itself to anybody, and the way in.

import { ApiError, get, setToken } from "./api.js";
import { h, show } from "./dom.js";
import { absolute } from "./format.js";

/** Shows the form; `entered` is called once a token has been accepted. */
export function signIn(main, reason, entered) {
  const problem = h("p", { class: "problem", role: "alert", id: "token-problem", hidden: !reason }, reason ?? "");
  const input = h("input", {
    id: "token",
    type: "password",
    name: "token",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    placeholder: "API token",
    "aria-describedby": "token-hint token-problem",
  });
  const button = h("button", { class: "primary", type: "submit", id: "enter" }, "Continue");
  const form = h("form", { class: "card", onsubmit: (event) => { event.preventDefault(); submit({ input, button, problem }, entered); } },
    h("h1", {}, "Sign in"),
    h("label", { for: "token" }, "API token"),
    h("div", { class: "row" }, input, button),
    problem,
    h("p", { class: "hint", id: "token-hint" },
      "The server made its first token when it was started for the first time; operators can make more. The token stays in this tab and is forgotten when you close it."));
  const facts = h("section", { class: "card facts", "aria-labelledby": "health-title" },
    h("h2", { id: "health-title" }, "This server"), h("p", { class: "hint" }, "asking …"));
  show(main, h("div", { class: "signin" }, form, facts));
  input.focus();
  showHealth(facts);
}

async function submit({ input, button, problem }, entered) {
  const value = input.value.trim();
  // A header carries visible ASCII only; anything else was not copied from a token.
  if (!/^[\x21-\x7e]+$/.test(value)) {
    return complain(problem, input, "That is not a token: it has spaces or unusual characters in it.");
  }
  button.disabled = true;
  setToken(value);
  try {
    const account = await whoAmI();
    entered(account);
  } catch (error) {
    setToken("");
    button.disabled = false;
    complain(problem, input, explain(error));
  }
}

/** The token's owner; servers that only know the older part of the contract may not say. */
export async function whoAmI(signal) {
  try {
    return (await get("/api/v1/auth/me", signal)).user;
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
    await get("/api/v1/tenants", signal);
    return undefined;
  }
}

function explain(error) {
  if (error.status === 401) return "The server does not know this token. It may have expired, or been cut off when it was copied.";
  if (error.status === 403) return "This token is valid but may not look at this server.";
  return `Not signed in: ${error.message}.`;
}

function complain(problem, input, text) {
  problem.textContent = text;
  problem.hidden = false;
  input.select();
  input.focus();
}

async function showHealth(facts) {
  const started = performance.now();
  const title = facts.firstElementChild;
  try {
    const health = await get("/api/v1/health");
    const took = Math.max(1, Math.round(performance.now() - started));
    show(facts, title, h("dl", {},
      row("State", h("span", { class: `badge ${health.status === "healthy" ? "good" : "warn"}` }, h("i", { class: "dot", "aria-hidden": "true" }), health.status)),
      row("Version", health.version),
      row("Its clock", absolute(health.timestamp)),
      row("Answered in", `${took} ms`),
      row("Address", location.host)));
  } catch (error) {
    show(facts, title, h("p", { class: "problem" }, `No facts: ${error.message}.`));
  }
}

function row(name, value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, value ?? "–"));
}
