// Building the page. Text from the server only ever becomes a text node, so nothing it sends can
// become markup.

/** An element with properties and children; strings become text. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** Replaces what a container shows and keeps the keyboard focus and the scroll position. */
export function show(container, ...children) {
  const focused = container.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = [...container.querySelectorAll("[data-scroll]")].map((old) => [old.id, old.scrollTop]);
  container.replaceChildren(...children.flat(Infinity).filter(Boolean));
  for (const [id, top] of scrolled) {
    const again = id && document.getElementById(id);
    if (again) again.scrollTop = top;
  }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** A link to another site; anything but http(s) stays text. */
export function externalLink(url, properties = {}) {
  const text = url.replace(/^https?:\/\//, "").replace(/\/$/, "");
  if (!/^https?:\/\//i.test(url)) return h("span", properties, url);
  return h("a", { ...properties, href: url, target: "_blank", rel: "noopener noreferrer" }, text, h("span", { class: "out", "aria-hidden": "true" }, " ↗"));
}

/** A button that copies `text` and says so. */
export function copyButton(text, label, id) {
  const button = h("button", {
    type: "button",
    class: "copy",
    id,
    title: `copy ${label}`,
    "aria-label": `copy ${label}`,
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "copied";
      } catch {
        button.textContent = "not allowed";
      }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    },
  }, "copy");
  return button;
}
