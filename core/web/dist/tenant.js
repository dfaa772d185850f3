// One tenant: what serves now, and how it came to that.

import { ApiError, get, tenantPath } from "./api.js";
import { copyButton, externalLink, h } from "./dom.js";
import { badge, duration, releaseName, shortDigest, when } from "./format.js";
import { canRestore, rollBack } from "./words.js";

/** Status and history of a tenant. `history` is undefined where the server keeps none. */
export async function loadTenant(id, signal) {
  const [status, history] = await Promise.all([
    get(tenantPath(id, "status"), signal).then((answer) => answer.data),
    get(tenantPath(id, "deployments"), signal).then((answer) => answer.data, orUndefined),
  ]);
  const deployments = history && [...history].sort((a, b) => b.number - a.number);
  return { status, deployments };
}

function orUndefined(error) {
  if (error instanceof ApiError && error.status === 404) return undefined;
  throw error;
}

/** The tenant's page. `open` is the number of the deployment shown beside it. */
export function tenantView(tenant, { status, deployments }, open, ask) {
  const url = status.app_url ?? tenant.app_url ?? (tenant.hostname && `https://${tenant.hostname}`);
  const live = status.live ?? deployments?.find((deployment) => deployment.live);
  return [
    h("div", { class: "title" },
      h("div", {},
        h("h1", {}, tenant.name),
        url && h("p", { class: "url" }, externalLink(url))),
      badge(status.status)),
    status.running && runningBanner(tenant, status.running),
    status.message && h("p", { class: "message" }, status.message),
    live && liveCard(live),
    h("h2", { id: "history-title" }, "Deployments"),
    historyTable(tenant, deployments, open, ask),
  ];
}

function runningBanner(tenant, running) {
  if (running.state === "needs_operator") {
    return h("p", { class: "banner bad", role: "alert" },
      h("span", {}, `Deployment #${running.number} could not be undone. Nobody can deploy until somebody has looked.`),
      h("a", { href: link(tenant, running.number), id: "follow" }, "See to it"));
  }
  return h("p", { class: "banner busy" },
    h("i", { class: "spinner", "aria-hidden": "true" }),
    h("span", {}, `Deployment #${running.number} is on its way: `, running.state.replaceAll("_", " ")),
    h("a", { href: link(tenant, running.number), id: "follow" }, "Follow it"));
}

function liveCard(live) {
  return h("section", { class: "card live", "aria-label": "Live release" },
    fact("Live release", h("strong", {}, releaseName(live))),
    fact("Deployment", `#${live.number}`),
    fact("Since", when(live.finished_at ?? live.created_at)),
    fact("Digest", h("code", { title: live.digest }, shortDigest(live.digest)), copyButton(live.digest, "digest", "copy-live")),
    live.source && fact("Commit", h("code", {}, live.source.git_sha + (live.source.dirty ? " + changes" : ""))));
}

function fact(name, ...values) {
  return h("div", { class: "fact" }, h("span", { class: "name" }, name), h("span", { class: "value" }, values));
}

function historyTable(tenant, deployments, open, ask) {
  if (!deployments) return h("p", { class: "empty" }, "This server keeps no history of deployments.");
  if (deployments.length === 0) {
    return h("div", { class: "empty" },
      h("p", {}, "Nothing has been deployed here yet."),
      h("p", {}, "In the project's folder, run ", h("code", {}, "cargo xtask deploy"), "."));
  }
  const columns = ["#", "State", "Release", "By", "When", "Took", ""];
  return h("table", { class: "history", "aria-labelledby": "history-title" },
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name || h("span", { class: "unseen" }, "Actions"))))),
    h("tbody", {}, deployments.map((deployment) => historyRow(tenant, deployment, open, ask))));
}

function historyRow(tenant, deployment, open, ask) {
  const href = link(tenant, deployment.number);
  const opened = deployment.number === open;
  const row = h("tr", { class: [opened && "open", deployment.live && "is-live"].filter(Boolean).join(" ") },
    h("td", { class: "number" }, h("a", { href, id: `row-${deployment.number}`, "aria-current": opened && "true", "aria-label": `Deployment ${deployment.number}` }, `#${deployment.number}`)),
    h("td", { class: "state" }, badge(deployment.state), deployment.live && h("span", { class: "tag live-tag" }, "live")),
    h("td", { class: "release" },
      h("span", { class: "release-name", title: deployment.image }, releaseName(deployment)),
      h("span", { class: "sub" }, origin(deployment))),
    h("td", { class: "actor", title: deployment.actor }, deployment.actor),
    h("td", { class: "moment" }, when(deployment.created_at)),
    h("td", { class: "took" }, duration(deployment)),
    h("td", { class: "action" }, canRestore(deployment) && h("button", {
      type: "button",
      class: "quiet",
      id: `back-${deployment.number}`,
      onclick: (event) => { event.stopPropagation(); ask(rollBack, deployment); },
    }, "Roll back to this")));
  // The whole row is a target for the pointer; the keyboard has the link.
  row.addEventListener("click", (event) => {
    if (!event.target.closest("a, button") && !String(getSelection())) location.hash = href;
  });
  return row;
}

function origin(deployment) {
  const parts = [];
  if (deployment.kind === "rollback") parts.push(deployment.restores ? `rollback to #${deployment.restores}` : "rollback");
  if (deployment.source) parts.push(deployment.source.git_sha + (deployment.source.dirty ? " + changes" : ""));
  if (deployment.failure) parts.push(deployment.failure.message);
  return parts.join(" · ") || shortDigest(deployment.digest);
}

export function link(tenant, number) {
  const base = `#/${encodeURIComponent(tenant.id)}`;
  return number === undefined ? base : `${base}/${number}`;
}
