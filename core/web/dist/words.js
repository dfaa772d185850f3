// What can be said to a deployment, and what one has to know before saying it.

import { h } from "./dom.js";
import { isFinal, isGood, releaseName, shortDigest } from "./format.js";

const COMMITTED = new Set(["verified", "draining"]);
const UNDOING = new Set(["aborting", "rolling_back"]);

const ROLL_BACK = {
  id: "roll-back",
  button: "Roll back to this release",
  title: (tenant) => `Roll back ${tenant.name}?`,
  text: (deployment) => ["This starts the release of deployment ", h("strong", {}, `#${deployment.number}`), " again and moves the traffic to it once it is healthy. Until then the present release serves."],
  yes: "Roll back",
  path: () => ["rollback"],
  body: (deployment) => ({ to: String(deployment.number) }),
  not: "Not rolled back",
};

const PROMOTE = {
  id: "promote",
  button: "Promote",
  title: (tenant, deployment) => `Promote deployment #${deployment.number} of ${tenant.name}?`,
  text: () => ["This ends the watch: the deployment goes on to its next step at once, whatever was seen so far."],
  yes: "Promote",
  path: (deployment) => ["deployments", deployment.number, "promote"],
  not: "Not promoted",
};

const ABORT = {
  id: "abort",
  button: "Abort",
  title: (tenant, deployment) => `Abort deployment #${deployment.number} of ${tenant.name}?`,
  text: () => ["This undoes the deployment: the traffic returns to the release before, and the new instances are stopped."],
  yes: "Abort",
  path: (deployment) => ["deployments", deployment.number, "abort"],
  not: "Not aborted",
};

const SETTLE = {
  ...ABORT,
  id: "settle",
  button: "It is settled",
  title: (tenant) => `Is ${tenant.name} settled?`,
  text: (deployment) => ["Deployment ", h("strong", {}, `#${deployment.number}`), " could not be undone, and nobody can deploy until somebody has looked. This changes no traffic; it lets others deploy again."],
  yes: "It is settled",
  not: "Not settled",
};

/** Which release a deployment can bring back. */
export function canRestore(deployment) {
  return isGood(deployment.state) && !deployment.live && !deployment.gone;
}

export const rollBack = ROLL_BACK;

/** What can be said to a deployment in its state. */
export function words(deployment) {
  const { state } = deployment;
  if (canRestore(deployment)) return [ROLL_BACK];
  if (state === "needs_operator") return [SETTLE];
  if (isFinal(state) || COMMITTED.has(state) || UNDOING.has(state)) return [];
  // Shifting is watched by some strategies only; where it is not, the server says so.
  return state === "paused" || state === "shifting" ? [PROMOTE, ABORT] : [ABORT];
}

/** The release that a word is about, for the dialog. */
export function subject(deployment) {
  return [h("strong", {}, releaseName(deployment)), " ", h("code", {}, shortDigest(deployment.digest))];
}
