// How states, times and digests read.

import { h } from "./dom.js";

const GOOD = new Set(["succeeded", "deployed", "ready", "active"]);
const BAD = new Set(["failed", "needs_operator"]);
const UNDONE = new Set(["rolled_back", "suspended", "aborting", "rolling_back", "paused", "interrupted"]);
const OVER = new Set(["superseded", "deleted"]);
/** Nothing is happening and nothing is wrong. */
const QUIET = new Set(["pending", "unknown"]);
const FINAL = new Set([...GOOD, ...BAD, "rolled_back", "suspended", ...OVER]);

/** Whether a deployment in this state will not change any more; unknown states may. */
export function isFinal(state) {
  return FINAL.has(state);
}

export function isGood(state) {
  return GOOD.has(state);
}

/** The colour class of a state. */
export function tone(state) {
  if (GOOD.has(state)) return "good";
  if (BAD.has(state)) return "bad";
  if (UNDONE.has(state)) return "warn";
  return OVER.has(state) || QUIET.has(state) ? "over" : "busy";
}

export function badge(state) {
  return h("span", { class: `badge ${tone(state)}` }, h("i", { class: "dot", "aria-hidden": "true" }), state.replaceAll("_", " "));
}

/** A time that reads relative and is kept up to date by `tick`. */
export function when(moment) {
  const time = h("time", { datetime: moment, "data-relative": true, title: absolute(moment) });
  time.textContent = relative(moment);
  return time;
}

export function tick() {
  for (const time of document.querySelectorAll("time[data-relative]")) {
    const text = relative(time.dateTime);
    if (time.textContent !== text) time.textContent = text;
  }
  for (const span of document.querySelectorAll("span[data-since]")) {
    span.textContent = inWords(Date.now() - Number(span.dataset.since));
  }
}

function relative(moment) {
  const seconds = Math.round((Date.now() - Date.parse(moment)) / 1000);
  if (Number.isNaN(seconds)) return moment;
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86400);
  return days < 30 ? `${days} d ago` : new Date(moment).toLocaleDateString();
}

export function absolute(moment) {
  const date = new Date(moment);
  return Number.isNaN(date.getTime()) ? moment : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function clock(moment) {
  const date = new Date(moment);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString(undefined, { hour12: false });
}

/** How long a deployment took; while it runs, a number that `tick` keeps counting. */
export function duration(deployment) {
  const began = Date.parse(deployment.created_at);
  if (deployment.finished_at) return inWords(Date.parse(deployment.finished_at) - began);
  if (isFinal(deployment.state)) return "–";
  return h("span", { "data-since": began }, inWords(Date.now() - began));
}

function inWords(milliseconds) {
  const seconds = milliseconds / 1000;
  if (!(seconds >= 0)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function shortDigest(digest) {
  return digest.replace(/^sha256:/, "").slice(0, 12);
}

/** What was deployed, in as few words as tell it from the others. */
export function releaseName(deployment) {
  return deployment.tag || shortDigest(deployment.digest);
}
