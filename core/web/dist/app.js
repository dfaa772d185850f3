// The dashboard: which page is shown, and keeping it true.
//
// The address says what is shown (`#/tenant/number`), so reload, back and links work.

import { ApiError, get, post, setToken, tenantPath, token } from "./api.js";
import { h, show } from "./dom.js";
import { badge, releaseName, tick, tone } from "./format.js";
import { DeploymentPanel } from "./deployment.js";
import { signIn, whoAmI } from "./signin.js";
import { link, loadTenant, tenantView } from "./tenant.js";
import { subject } from "./words.js";

const REFRESH = 5000;
const REFRESH_RUNNING = 1500;

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const dialog = document.getElementById("confirm");

let account;
let tenants = [];
const statuses = new Map();
/** What is shown now; replaced as a whole when the address changes. */
let page;

start();

async function start() {
  setInterval(tick, 1000);
  addEventListener("hashchange", open);
  addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) page?.refresh(); });
  showServer();
  if (!token()) return leave();
  try {
    enter(await whoAmI());
  } catch (error) {
    report(error);
    if (token()) enter(undefined);
  }
}

function enter(user) {
  account = user;
  show(document.getElementById("account"),
    account && h("span", { class: "who", title: account.email }, account.name ?? account.email),
    h("button", { type: "button", class: "quiet", id: "leave", onclick: () => leave() }, "Sign out"));
  open();
}

/** Forgets the token and everything that it has shown. */
function leave(reason) {
  setToken("");
  page?.close();
  page = undefined;
  tenants = [];
  statuses.clear();
  tell("");
  document.getElementById("account").replaceChildren();
  document.title = "systemprompt";
  if (dialog.open) dialog.close();
  signIn(main, reason, enter);
}

function open() {
  if (!token()) return;
  const wanted = address();
  if (page && page.tenant === wanted.tenant) return page.showDeployment(wanted.number);
  page?.close();
  page = new Page(wanted);
}

function address() {
  const [, tenant, number] = /^#\/([^/]+)(?:\/(\d+))?$/.exec(location.hash) ?? [];
  try {
    return { tenant: tenant && decodeURIComponent(tenant), number: number && Number(number) };
  } catch {
    return {}; // a broken escape in a link somebody typed
  }
}

/** The signed-in page: tenants on the left, one of them in the middle, a deployment on the right. */
class Page {
  #abort = new AbortController();
  #timer;
  #busy = false;
  #shown = "";
  #panel;
  #panelAbort;
  #list = h("nav", { class: "tenants", "aria-label": "Tenants" });
  #content = h("section", { class: "content" }, h("p", { class: "empty" }, "loading …"));
  #layout = h("div", { class: "layout" }, this.#list, this.#content);
  #tenantData;

  constructor({ tenant, number }) {
    this.tenant = tenant;
    this.number = number;
    show(main, this.#layout);
    this.refresh();
  }

  close() {
    this.#abort.abort();
    this.#panelAbort?.abort();
    clearTimeout(this.#timer);
  }

  async refresh() {
    if (this.#busy || this.#abort.signal.aborted) return;
    this.#busy = true;
    clearTimeout(this.#timer);
    try {
      await this.#load();
      tell("");
    } catch (error) {
      if (!this.#abort.signal.aborted) report(error, this.#content, this.#shown === "");
    }
    this.#busy = false;
    if (this.#abort.signal.aborted || document.hidden) return;
    const running = this.#tenantData?.status.running !== undefined;
    this.#timer = setTimeout(() => this.refresh(), running ? REFRESH_RUNNING : REFRESH);
  }

  showDeployment(number) {
    const before = this.number;
    this.number = number;
    this.#renderTenant();
    if (number === undefined && before !== undefined) document.getElementById(`row-${before}`)?.focus();
  }

  async #load() {
    const { signal } = this.#abort;
    tenants = (await get("/api/v1/tenants", signal)).data;
    // With one tenant there is nothing to choose.
    if (this.tenant === undefined && tenants.length === 1) this.tenant = tenants[0].id;
    const tenant = this.#current();
    if (tenant) {
      this.#tenantData = await loadTenant(tenant.id, signal);
      statuses.set(tenant.id, this.#tenantData.status);
    }
    await this.#loadStatuses(signal);
    this.#render();
  }

  async #loadStatuses(signal) {
    const others = tenants.filter(({ id }) => id !== this.tenant).slice(0, 50);
    await Promise.all(others.map(async ({ id }) => {
      try {
        statuses.set(id, (await get(tenantPath(id, "status"), signal)).data);
      } catch (error) {
        if (!(error instanceof ApiError) || error.status === 401) throw error;
        statuses.set(id, { status: "unknown", message: error.message });
      }
    }));
  }

  #current() {
    return tenants.find(({ id }) => id === this.tenant);
  }

  #render() {
    const now = JSON.stringify([tenants, [...statuses], this.#tenantData]);
    if (now === this.#shown) return;
    this.#shown = now;
    show(this.#list, tenantList(this.tenant));
    this.#renderTenant();
  }

  #renderTenant() {
    const tenant = this.#current();
    if (!tenant) {
      this.#closePanel();
      document.title = "systemprompt";
      return show(this.#content, ...overview(this.tenant));
    }
    if (!this.#tenantData) return;
    document.title = `${tenant.name} · ${this.#tenantData.status.status} · systemprompt`;
    show(this.#content, ...tenantView(tenant, this.#tenantData, this.number, (word, deployment) => confirm(tenant, word, deployment)));
    this.#renderPanel(tenant);
  }

  #renderPanel(tenant) {
    if (this.number === undefined) return this.#closePanel();
    if (this.#panel?.number !== this.number) {
      this.#closePanel();
      this.#panelAbort = new AbortController();
      this.#panel = new DeploymentPanel(tenant, this.number, this.#panelAbort.signal, {
        ask: (word, deployment) => confirm(tenant, word, deployment),
        failed: report,
      });
      this.#layout.append(this.#panel.element);
      this.#layout.classList.add("with-panel");
    }
    this.#panel.update(this.#tenantData.deployments?.find(({ number }) => number === this.number));
  }

  #closePanel() {
    this.#panelAbort?.abort();
    this.#panel?.element.remove();
    this.#panel = undefined;
    this.#layout.classList.remove("with-panel");
  }
}

function tenantList(current) {
  return [
    h("h2", {}, "Tenants"),
    tenants.length === 0 ? h("p", { class: "hint" }, "none yet") : h("ul", {}, tenants.map((tenant) => {
      const status = statuses.get(tenant.id);
      const state = status?.status ?? "unknown";
      return h("li", {}, h("a", { href: link(tenant), id: `tenant-${tenant.id}`, "aria-current": tenant.id === current && "page" },
        h("i", { class: `dot ${tone(state)}`, "aria-hidden": "true" }),
        h("span", { class: "tenant-name" }, tenant.name),
        h("span", { class: "sub" }, status?.live ? releaseName(status.live) : state.replaceAll("_", " "))));
    })),
  ];
}

function overview(wanted) {
  if (wanted !== undefined) {
    return [h("div", { class: "empty" }, h("p", {}, `There is no tenant “${wanted}” here, or this token may not see it.`), h("p", {}, h("a", { href: "#/" }, "Show all tenants")))];
  }
  if (tenants.length === 0) {
    return [h("div", { class: "empty" }, h("p", {}, "There are no tenants yet."), h("p", {}, "The first ", h("code", {}, "cargo xtask deploy"), " makes one."))];
  }
  return [
    h("h1", {}, "Tenants"),
    h("div", { class: "cards" }, tenants.map((tenant) => {
      const status = statuses.get(tenant.id);
      return h("a", { class: "card tenant-card", href: link(tenant) },
        h("strong", {}, tenant.name),
        badge(status?.status ?? "unknown"),
        h("span", { class: "sub" }, status?.live ? `#${status.live.number} · ${releaseName(status.live)}` : status?.message ?? "no release is live"));
    })),
  ];
}

function confirm(tenant, word, deployment) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const yes = h("button", { class: "danger", type: "submit", id: "confirm-yes" }, word.yes);
  const no = h("button", { class: "quiet", type: "button", id: "confirm-no", onclick: () => dialog.close() }, "Keep it as it is");
  const form = h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); say(tenant, word, deployment, { yes, problem }); } },
    h("h2", { id: "confirm-title" }, word.title(tenant, deployment)),
    h("p", {}, word.text(deployment)),
    h("p", { class: "confirm-release" }, subject(deployment)),
    problem,
    h("div", { class: "buttons" }, no, yes));
  show(dialog, form);
  dialog.showModal();
  no.focus();
}

async function say(tenant, word, deployment, { yes, problem }) {
  yes.disabled = true;
  problem.hidden = true;
  try {
    const { data } = await post(tenantPath(tenant.id, ...word.path(deployment)), word.body?.(deployment));
    dialog.close();
    const begun = data?.deployment;
    if (begun !== undefined) location.hash = link(tenant, begun);
    await page?.refresh();
  } catch (error) {
    if (error.status === 401) return report(error);
    yes.disabled = false;
    problem.textContent = refused(word, error);
    problem.hidden = false;
  }
}

function refused(word, error) {
  if (error.status === 403) return "This token may look but not deploy. Sign in with one that may.";
  if (error.code === "deployment_in_progress") return "Another deployment is running. Wait until it is over, then try again.";
  return `${word.not}: ${error.message}.`;
}

/** Says what went wrong where it is seen; a token that is no longer accepted leads to the door. */
function report(error, content, nothingShown) {
  if (error.name === "AbortError") return;
  if (error.status === 401) return leave("This token is not accepted any more: it has expired or was revoked.");
  const text = error.status === 0 ? `Trying again: ${error.message}.` : error.status === 403 ? "This token may not see that." : `Something went wrong: ${error.message}.`;
  tell(text);
  if (content && nothingShown) show(content, h("div", { class: "empty" }, h("p", {}, "Nothing to show yet. This page tries again by itself.")));
  if (!(error instanceof ApiError)) console.error(error);
}

function tell(text) {
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = text === "";
}

async function showServer() {
  try {
    const health = await get("/api/v1/health");
    show(document.getElementById("server"),
      h("span", { title: `The server says it is ${health.status}` }, h("i", { class: `dot ${health.status === "healthy" ? "good" : "warn"}`, "aria-hidden": "true" }), ` ${health.version}`));
  } catch {
    // The page itself says that the server cannot be reached.
  }
}

function onKey(event) {
  if (event.key !== "Escape" || dialog.open || page?.number === undefined) return;
  location.hash = link({ id: page.tenant });
}
