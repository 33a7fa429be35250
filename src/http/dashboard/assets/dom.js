// Nodes: made, and brought up to date. All text passes `visible`; nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
/** What would act on the reader rather than be read: controls, bidirectional marks, invisible spaces. */
const ACTS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
/** Properties that are no attributes. */
const LIVE = new Set(["value", "checked", "disabled", "open", "selected", "readOnly", "indeterminate"]);

/** Text in which nothing acts: what would, is spelt out. */
export function visible(text) {
  return String(text).replace(ACTS, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** An element: `h("td", {class: "num", on: {click}}, "text", node, [more])`. Null and false are left out. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same in SVG. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") listen(node, value);
    else if (name === "key") node.$key = String(value);
    else if (name === "keep") node.$keep = true;
    else if (name === "style") for (const [what, how] of Object.entries(value)) node.style.setProperty(what, how);
    else if (LIVE.has(name)) (node.$props ??= {})[name] = value;
    else node.setAttribute(name, value === true ? "" : visible(value));
  }
  put(node, children);
  // after the children: a select has no value before it has options
  Object.assign(node, node.$props);
  return node;
}

function put(node, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false || child === true) continue;
    if (Array.isArray(child)) put(node, child);
    else if (child instanceof Node) node.append(child);
    else node.append(visible(child));
  }
}

// One listener a type stays with the node and looks up whom it calls: so `morph` can exchange them.
function listen(node, handlers) {
  node.$on = { ...node.$on, ...handlers };
  for (const type of Object.keys(handlers)) attach(node, type);
}

function attach(node, type) {
  node.$types ??= new Set();
  if (node.$types.has(type)) return;
  node.$types.add(type);
  node.addEventListener(type, (event) => node.$on?.[type]?.(event));
}

/**
 * Makes `old` look like `fresh` and keeps what is the same: focus, scroll, what is being typed and what a
 * person opened. A node made with `keep` is left alone while its key is the same.
 */
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.$key !== fresh.$key) {
    old.replaceWith(fresh);
    return fresh;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return old;
  }
  if (old.$keep && fresh.$keep) return old;
  for (const { name } of [...old.attributes]) {
    if (name !== "style" && !fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) {
      old.removeAttribute(name);
    }
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "style" && name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.style && old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText;
  for (const [name, value] of Object.entries(fresh.$props ?? {})) {
    const typing = name === "value" && old === document.activeElement;
    if (!typing && name !== "open" && old[name] !== value) old[name] = value;
  }
  if (old.$props?.disabled && !fresh.$props?.disabled) old.disabled = false;
  old.$props = fresh.$props;
  old.$on = fresh.$on;
  for (const type of fresh.$types ?? []) attach(old, type);
  children(old, fresh);
  return old;
}

function children(old, fresh) {
  const keyed = new Map();
  for (const child of old.childNodes) if (child.$key !== undefined) keyed.set(child.$key, child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const same = wanted.$key === undefined ? null : keyed.get(wanted.$key);
    if (same && same.nodeName === wanted.nodeName) {
      keyed.delete(wanted.$key);
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      morph(same, wanted);
    } else if (at && at.$key === undefined && wanted.$key === undefined && at.nodeName === wanted.nodeName) {
      const next = at.nextSibling;
      morph(at, wanted);
      at = next;
    } else {
      old.insertBefore(wanted, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  for (const left of keyed.values()) left.remove();
}

/** Puts `fresh` in the place of all that `root` holds, keeping what is the same. */
export function show(root, fresh) {
  if (root.childNodes.length === 1) morph(root.firstChild, fresh);
  else root.replaceChildren(fresh);
}
