"use strict";
// The data, and what everything else is made with.

const DATA = JSON.parse(document.getElementById("data").textContent);
const MODELS = DATA.models;
const HAS_GOLD = DATA.pairs.some((pair) => pair.g);
const SIDES = ["s", "e"]; // source above, English below
const LANGUAGES = { s: DATA.language, e: DATA.anchor };
const SIGNS = { added: "+", removed: "\u2212" };
const byId = (id) => document.getElementById(id);
const state = { query: "", changed: false, page: 0, hidden: new Set() };

// --- Elements. Text of the data is only ever inserted as text. ---

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const number = (value) => value.toLocaleString("en");
const plural = (n, one, several) => `${number(n)} ${n === 1 ? one : several}`;
function languageName(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code);
  } catch {
    // not a code that browsers know
    return code;
  }
}
const cosine = (value) => value.toFixed(2).replace("-", "\u2212");
const percent = (value) => (100 * value).toFixed(1);

const folded = (text) => text.normalize("NFKC").toLowerCase();
const isFound = (word, tokens) => tokens.some((token) => folded(word).includes(token));

// --- Links ---

const linkName = (i, j) => `${i}-${j}`;

/** The links of a pair by name, for every model; and the right links. */
function linksOf(pair) {
  const models = pair.m.map((flat) => {
    const links = new Map();
    for (let k = 0; k < flat.length; k += 3)
      links.set(linkName(flat[k], flat[k + 1]), { s: flat[k], e: flat[k + 1], score: flat[k + 2] });
    return links;
  });
  const gold = pair.g ? new Map() : null;
  for (let k = 0; k < (pair.g || []).length; k += 2)
    gold.set(linkName(pair.g[k], pair.g[k + 1]), { s: pair.g[k], e: pair.g[k + 1] });
  return { models, gold };
}

/** What is drawn for a model: its links, those of the first model that it lacks, and right ones that neither has. */
function drawn({ models, gold }, model) {
  const lines = [];
  for (const [key, link] of models[model]) {
    const kind = model && !models[0].has(key) ? "added" : "same";
    lines.push({ ...link, kind, right: gold ? gold.has(key) : null });
  }
  for (const [key, link] of model ? models[0] : []) {
    if (!models[model].has(key)) lines.push({ ...link, kind: "removed", right: gold ? gold.has(key) : null });
  }
  for (const [key, link] of gold || []) {
    if (!models[model].has(key) && !(model && models[0].has(key)))
      lines.push({ ...link, kind: "missing", right: true });
  }
  return lines;
}

/** In how many links the other models differ from the first one. */
function nChanges(pair) {
  if (pair.changes === undefined) {
    const { models } = linksOf(pair);
    pair.changes = 0;
    for (const other of models.slice(1)) {
      for (const key of other.keys()) pair.changes += !models[0].has(key);
      for (const key of models[0].keys()) pair.changes += !other.has(key);
    }
  }
  return pair.changes;
}

/** What there is to say about a link besides its words. */
function described(line) {
  const parts = [];
  if (line.kind === "missing") parts.push("given, but not linked");
  else if (line.kind === "removed") parts.push(`removed, was ${cosine(line.score)} in ${MODELS[0].label}`);
  else parts.push(cosine(line.score) + (line.kind === "added" ? ", added" : ""));
  if (line.right !== null && line.kind !== "missing") parts.push(line.right ? "right" : "not among the given links");
  return parts.join(", ");
}
