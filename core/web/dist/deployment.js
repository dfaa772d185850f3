// One deployment, beside the history: its facts, its events as they come, its last log lines.

import { ApiError, events, get, tenantPath } from "./api.js";
import { copyButton, h, show } from "./dom.js";
import { badge, clock, duration, isFinal, releaseName, tone, when } from "./format.js";
import { link } from "./tenant.js";
import { words } from "./words.js";

const LOG_LINES = 200;
const RECONNECT = 2000;

/** The panel of a deployment. It follows events and log until `signal` ends it. */
export class DeploymentPanel {
  #tenant;
  #number;
  #signal;
  #ask;
  #failed;
  #facts = h("div", { class: "panel-facts" });
  #steps = h("ol", { class: "steps", "aria-live": "polite" });
  #log = h("div", { class: "log", id: "log", "data-scroll": true, tabindex: "0", role: "log", "aria-label": "Log of the application" });
  #logLines = 0;
  /** Time of the last line shown: where following begins. */
  #logEnd = new Date().toISOString();
  #lastLines = new Set();
  #lastEvent = "";
  #deployment;

  constructor(tenant, number, signal, { ask, failed }) {
    this.number = number;
    this.#tenant = tenant;
    this.#number = number;
    this.#signal = signal;
    this.#ask = ask;
    this.#failed = failed;
    this.element = h("aside", { class: "panel", "aria-label": `Deployment ${number}` },
      h("div", { class: "panel-head" },
        h("h2", {}, `Deployment #${number}`),
        h("a", { class: "close", id: "close", href: link(tenant), "aria-label": "Close" }, "✕")),
      this.#facts,
      h("h3", {}, "Events"),
      this.#steps,
      h("h3", {}, "Log"),
      this.#log);
    this.#note(this.#steps, "waiting for the first event …");
    this.#note(this.#log, "loading …");
    this.#run(() => this.#followEvents());
    this.#run(() => this.#showLog());
  }

  /** Shows the deployment as the history has it now. */
  update(deployment) {
    this.#deployment = deployment;
    if (!deployment) {
      show(this.#facts, h("p", { class: "problem" }, "There is no such deployment."));
      return;
    }
    const facts = [
      ["Release", releaseName(deployment)],
      ["Image", h("code", { class: "wrap" }, deployment.image)],
      ["Digest", [h("code", { class: "wrap" }, deployment.digest), copyButton(deployment.digest, "digest", "copy-open")]],
      ["Strategy", deployment.strategy],
      ["By", deployment.actor],
      ["Began", when(deployment.created_at)],
      ["Took", duration(deployment)],
      deployment.previous && ["Previous", h("a", { href: link(this.#tenant, deployment.previous) }, `#${deployment.previous}`)],
      deployment.restores && ["Restored", h("a", { href: link(this.#tenant, deployment.restores) }, `#${deployment.restores}`)],
    ];
    show(this.#facts,
      h("p", { class: "panel-state" }, badge(deployment.state), deployment.live && h("span", { class: "tag live-tag" }, "live")),
      deployment.failure && failureCard(deployment.failure),
      h("dl", {}, facts.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("div", { class: "buttons" }, words(deployment).map((word) => h("button", { type: "button", id: word.id, onclick: () => this.#ask(word, deployment) }, word.button))));
  }

  async #run(task) {
    try {
      await task();
    } catch (error) {
      if (!this.#signal.aborted) this.#failed(error);
    }
  }

  async #followEvents() {
    const path = tenantPath(this.#tenant.id, "deployments", this.#number, "events");
    while (!this.#signal.aborted) {
      try {
        for await (const event of events(path, this.#signal, this.#lastEvent)) {
          if (this.#step(event)) return;
        }
      } catch (error) {
        if (this.#signal.aborted) return;
        if (error instanceof ApiError && error.status === 404) return this.#note(this.#steps, "this server keeps no events");
        if (error instanceof ApiError && error.status !== 0) throw error;
      }
      await pause(RECONNECT, this.#signal);
    }
  }

  /** Adds an event; true if it was the last one. */
  #step({ id, data }) {
    const event = parsed(data);
    if (!event) return false;
    if (id && id === this.#lastEvent) return false;
    this.#lastEvent = id || this.#lastEvent;
    this.#steps.querySelector(".note")?.remove();
    this.#steps.append(h("li", { class: tone(event.state) },
      h("span", { class: "step-state" }, event.state.replaceAll("_", " ")),
      h("span", { class: "step-text" }, event.message),
      h("time", { datetime: event.at }, clock(event.at))));
    return isFinal(event.state);
  }

  async #showLog() {
    const path = tenantPath(this.#tenant.id, `logs?tail=${LOG_LINES}`);
    try {
      const { data } = await get(path, this.#signal);
      this.#log.replaceChildren();
      for (const line of data) this.#logLine(line);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return this.#note(this.#log, "this server keeps no log");
      throw error;
    }
    if (this.#logLines === 0) this.#note(this.#log, "no lines of this deployment among the last ones");
    await this.#followLog();
  }

  /** Only an instance that runs writes more. */
  async #followLog() {
    const runs = () => this.#deployment?.live || !isFinal(this.#deployment?.state ?? "");
    while (!this.#signal.aborted && runs()) {
      const since = encodeURIComponent(this.#logEnd);
      const path = tenantPath(this.#tenant.id, `logs?follow=true&since=${since}`);
      try {
        for await (const { data } of events(path, this.#signal)) {
          const line = parsed(data);
          if (line) this.#logLine(line);
        }
      } catch (error) {
        if (this.#signal.aborted) return;
        if (error instanceof ApiError && error.status !== 0) throw error;
      }
      await pause(RECONNECT, this.#signal);
    }
  }

  #logLine(line) {
    if (line.deployment !== this.#number || this.#isShown(line)) return;
    const log = this.#log;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.querySelector(".note")?.remove();
    log.append(h("div", { class: line.stream === "stderr" ? "line stderr" : "line" },
      h("time", { datetime: line.at }, clock(line.at)),
      h("span", {}, line.line)));
    this.#logLines += 1;
    if (this.#logLines > LOG_LINES * 5) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  /** A stream that begins at the last line's time sends the lines of that moment again. */
  #isShown(line) {
    if (line.at !== this.#logEnd) this.#lastLines.clear();
    this.#logEnd = line.at;
    const key = `${line.stream} ${line.line}`;
    const shown = this.#lastLines.has(key);
    this.#lastLines.add(key);
    return shown;
  }

  #note(container, text) {
    container.replaceChildren(h(container === this.#steps ? "li" : "p", { class: "note" }, text));
  }
}

function failureCard(failure) {
  return h("div", { class: "failure", role: "note" },
    h("strong", {}, failure.message || failure.code),
    h("span", { class: "sub" }, [
      failure.code,
      failure.exit_code !== undefined && `exit code ${failure.exit_code}`,
      failure.signal !== undefined && `signal ${failure.signal}`,
    ].filter(Boolean).join(" · ")),
    failure.log_tail?.length > 0 && h("pre", { tabindex: "0", "aria-label": "Last lines of the application" }, failure.log_tail.join("\n")));
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return undefined; // a heartbeat or an event of a later version
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
