"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const MODELS = DATA.models;
const HAS_GOLD = DATA.pairs.some((pair) => pair.g);
const PAGE = 20;
const SIDES = ["s", "e"]; // source above, English below
const LANGUAGES = { s: DATA.language, e: DATA.anchor };
const SIGNS = { added: "+", removed: "\u2212" };
const UNSPACED = /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]/;
const byId = (id) => document.getElementById(id);
const state = { query: "", changed: false, page: 0, hidden: new Set() };
let found = [];

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
  } catch { // not a code that browsers know
    return code;
  }
}
const cosine = (value) => value.toFixed(2).replace("-", "\u2212");
const percent = (value) => (100 * value).toFixed(1);

// --- Links ---

const name = (i, j) => `${i}-${j}`;

/** The links of a pair by name, for every model; and the right links. */
function linksOf(pair) {
  const models = pair.m.map((flat) => {
    const links = new Map();
    for (let k = 0; k < flat.length; k += 3) links.set(name(flat[k], flat[k + 1]), { s: flat[k], e: flat[k + 1], score: flat[k + 2] });
    return links;
  });
  const gold = pair.g ? new Map() : null;
  for (let k = 0; k < (pair.g || []).length; k += 2) gold.set(name(pair.g[k], pair.g[k + 1]), { s: pair.g[k], e: pair.g[k + 1] });
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
    if (!models[model].has(key) && !(model && models[0].has(key))) lines.push({ ...link, kind: "missing", right: true });
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

function described(pair, line) {
  const words = `${pair.s[line.s]} – ${pair.e[line.e]}`;
  const parts = [];
  if (line.kind === "missing") parts.push("given, but not linked");
  else if (line.kind === "removed") parts.push(`removed, was ${cosine(line.score)} in ${MODELS[0].label}`);
  else parts.push(cosine(line.score) + (line.kind === "added" ? ", added" : ""));
  if (line.right !== null && line.kind !== "missing") parts.push(line.right ? "right" : "not among the given links");
  return { words, rest: parts.join(", ") };
}

// --- A pair ---

function wordButtons(pair, side, lines, tokens) {
  return pair[side].map((word, k) => {
    const own = lines.filter((line) => line[side] === k);
    const other = side === "s" ? "e" : "s";
    const said = own.map((line) => `${pair[other][line[other]]}: ${described(pair, line).rest}`);
    const classes = ["word", own.some((line) => line.kind !== "missing") && "linked", isFound(word, tokens) && "found"];
    return html("button", {
      type: "button", class: classes.filter(Boolean).join(" "), tabindex: "-1", "data-side": side, "data-k": k,
      "aria-label": `${word}; ${said.join("; ") || "not linked"}`,
    }, word);
  });
}

function panel(pair, links, model, tokens) {
  const lines = drawn(links, model);
  const rows = SIDES.map((side) =>
    html("div", { class: "row", dir: "auto", lang: LANGUAGES[side] }, ...wordButtons(pair, side, lines, tokens)));
  const drawing = svg("svg", { class: "lines", "aria-hidden": "true" });
  const diagram = html("div", {
    class: "diagram", role: "group", "aria-label": `Links by ${MODELS[model].label}. Arrow keys move between the words.`,
  }, ...rows, drawing);
  diagram.querySelector(".word").tabIndex = 0;
  const section = html("section", { class: "panel", "data-model": model, "aria-label": MODELS[model].label },
    html("h4", {}, MODELS[model].label), html("div", { class: "scroll" }, diagram), html("p", { class: "info" }));
  Object.assign(section, { pair, lines, drawing, model });
  inform(section, []);
  return section;
}

/** The line below a drawing: about the chosen links, or about all. */
function inform(section, chosen) {
  const info = section.querySelector(".info");
  if (chosen.length) {
    info.replaceChildren(...chosen.flatMap((line, k) => {
      const { words, rest } = described(section.pair, line);
      return [k ? "; " : "", html("strong", {}, html("bdi", {}, words)), `: ${rest}`];
    }));
    return;
  }
  const own = section.lines.filter((line) => line.kind === "same" || line.kind === "added");
  const parts = [plural(own.length, "link", "links")];
  if (own.length) parts.push(`mean cosine ${cosine(own.reduce((sum, line) => sum + line.score, 0) / own.length)}`);
  for (const kind of ["added", "removed"]) {
    const n = section.lines.filter((line) => line.kind === kind).length;
    if (n) parts.push(`${number(n)} ${kind}`);
  }
  if (section.pair.g) {
    const right = own.filter((line) => line.right).length;
    parts.push(`${number(right)} of ${plural(section.pair.g.length / 2, "given link", "given links")} found`);
  }
  info.textContent = parts.join(", ");
}

/** Lines from word to word; places are those of the layout, so this comes after the panel is on the page. */
function draw(section) {
  const diagram = section.drawing.parentElement;
  const words = Object.fromEntries(SIDES.map((side) => [side, diagram.querySelectorAll(`[data-side="${side}"]`)]));
  section.drawing.replaceChildren(...section.lines.map((line, k) => {
    const [from, to] = [words.s[line.s], words.e[line.e]];
    const [x1, y1] = [from.offsetLeft + from.offsetWidth / 2, from.offsetTop + from.offsetHeight + 3];
    const [x2, y2] = [to.offsetLeft + to.offsetWidth / 2, to.offsetTop - 3];
    const middle = (y1 + y2) / 2;
    const path = `M${x1} ${y1}C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}`;
    const ends = line.right === null || line.kind === "missing" ? [] : [[x1, y1], [x2, y2]].map(([x, y]) =>
      svg("circle", { cx: x, cy: y, r: 3.5, class: line.right ? "right" : null }));
    const sign = !SIGNS[line.kind] ? [] : [
      svg("circle", { class: "sign", cx: (x1 + x2) / 2, cy: middle, r: 7.5 }),
      svg("text", { x: (x1 + x2) / 2, y: middle }, SIGNS[line.kind])];
    return svg("g", { class: `link ${line.kind}`, "data-line": k },
      svg("path", { d: path, class: "reach" }), svg("path", { d: path }), ...ends, ...sign);
  }));
}

/** Show in all panels of a pair which links have a property; none if it is null. */
function choose(article, wanted) {
  for (const section of article.querySelectorAll(".panel")) {
    const chosen = wanted ? section.lines.filter(wanted) : [];
    section.drawing.classList.toggle("choosing", chosen.length > 0);
    section.drawing.childNodes.forEach((group, k) => group.classList.toggle("chosen", chosen.includes(section.lines[k])));
    for (const word of section.querySelectorAll(".word")) {
      word.classList.toggle("chosen", chosen.some((line) => line[word.dataset.side] === Number(word.dataset.k)));
    }
    inform(section, chosen);
  }
}

/** What an event is about: a property of links, or null. */
function meant(target) {
  const word = target.closest(".word");
  if (word) return (line) => line[word.dataset.side] === Number(word.dataset.k);
  const group = target.closest(".link");
  if (!group) return null;
  const { s, e } = target.closest(".panel").lines[group.dataset.line];
  return (line) => line.s === s && line.e === e;
}

/** Arrow keys: along a sentence as it is read on the screen, and to the linked word on the other side. */
function move(event) {
  const word = event.target.closest(".word");
  if (!word || event.ctrlKey || event.altKey || event.metaKey) return;
  const [side, k] = [word.dataset.side, Number(word.dataset.k)];
  const row = [...word.parentElement.children];
  const forward = getComputedStyle(word.parentElement).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
  let next;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") next = row[k + (event.key === forward ? 1 : -1)];
  else if (event.key === "Home") next = row[0];
  else if (event.key === "End") next = row[row.length - 1];
  else if (event.key === (side === "s" ? "ArrowDown" : "ArrowUp")) {
    const other = side === "s" ? "e" : "s";
    const words = word.closest(".diagram").querySelectorAll(`[data-side="${other}"]`);
    const link = word.closest(".panel").lines.find((line) => line[side] === k);
    next = words[link ? link[other] : Math.min(k, words.length - 1)];
  } else if (event.key === "Escape") choose(word.closest("article"), null);
  else return;
  event.preventDefault();
  if (next) next.focus();
}

/** All links of a pair in words, a column per model. */
function linkTable(pair, { models, gold }) {
  const all = new Map([...models.flatMap((links) => [...links]), ...(gold || [])]);
  const lines = [...all.values()].sort((a, b) => a.s - b.s || a.e - b.e);
  const head = [languageName(DATA.language), languageName(DATA.anchor), ...MODELS.map((model) => model.label), ...(gold ? ["given"] : [])];
  const rows = lines.map(({ s, e }) => {
    const key = name(s, e);
    const cells = models.map((links, model) => {
      const link = links.get(key);
      const was = models[0].has(key);
      if (!link) return html("td", {}, model && was ? `${SIGNS.removed} removed` : "no link");
      return html("td", {}, cosine(link.score) + (model && !was ? ` ${SIGNS.added} added` : ""));
    });
    return html("tr", {}, html("td", { dir: "auto", lang: DATA.language }, pair.s[s]),
      html("td", { dir: "auto", lang: DATA.anchor }, pair.e[e]), ...cells,
      gold ? html("td", {}, gold.has(key) ? "yes" : "no") : null);
  });
  return html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Links of pair ${pair.n}` },
    html("table", {}, html("caption", {}, "Linked words and the cosine of their vectors"),
      html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...rows)));
}

// --- Matrices ---

/** The cosines of a packed matrix, row by row; null for words without vector. */
function unpack([low, high, packed]) {
  return Array.from(atob(packed), (byte) =>
    byte.charCodeAt(0) === 255 ? null : low + ((high - low) * byte.charCodeAt(0)) / 254);
}

function matrix(pair, links, model, low, high) {
  const values = unpack(pair.x[model]);
  const head = pair.e.map((word) => html("th", { scope: "col", lang: DATA.anchor }, html("span", {}, word)));
  const rows = pair.s.map((word, s) => html("tr", {},
    html("th", { scope: "row", dir: "auto", lang: DATA.language }, word),
    ...pair.e.map((other, e) => {
      const value = values[s * pair.e.length + e];
      if (value === null) return html("td", { title: "no vector" }, "–");
      const share = high > low ? (value - low) / (high - low) : 0;
      const linked = links.models[model].has(name(s, e));
      const cell = html("td", { class: linked ? "linked" : null, title: `${word} – ${other}: ${cosine(value)}${linked ? ", linked" : ""}` },
        cosine(value));
      cell.style.setProperty("--share", share.toFixed(3));
      return cell;
    })));
  const label = MODELS[model].label;
  return html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Similarity matrix of pair ${pair.n}, ${label}` },
    html("table", { class: "matrix" }, html("caption", {}, `${label}: cosine of all words; linked words are framed`),
      html("thead", {}, html("tr", {}, html("td"), ...head)), html("tbody", {}, ...rows)));
}

function matrices(pair, links) {
  const low = Math.min(...pair.x.map((packed) => packed[0]));
  const high = Math.max(...pair.x.map((packed) => packed[1]));
  const shown = MODELS.map((_, model) => model).filter((model) => !state.hidden.has(model));
  return html("div", { class: "matrices" }, ...shown.map((model) => matrix(pair, links, model, low, high)));
}

/** A section whose content is made when it is opened. */
function onDemand(title, make) {
  const details = html("details", {}, html("summary", {}, title));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(make());
  });
  return details;
}

function article(pair, tokens) {
  const links = linksOf(pair);
  const changes = nChanges(pair);
  const shown = MODELS.map((_, model) => model).filter((model) => !state.hidden.has(model));
  const n = new Set([...links.models, links.gold || new Map()].flatMap((one) => [...one.keys()])).size;
  const made = html("article", { "aria-labelledby": `pair-${pair.n}` },
    html("header", {}, html("h3", { id: `pair-${pair.n}` }, `Pair ${number(pair.n)}`),
      changes ? html("span", { class: "badge" }, plural(changes, "link changed", "links changed")) : null),
    html("div", { class: "panels" }, ...shown.map((model) => panel(pair, links, model, tokens))),
    html("div", { class: "more" }, onDemand(`Links as a table (${number(n)})`, () => linkTable(pair, links)),
      pair.x ? onDemand("Similarity matrix", () => matrices(pair, links)) : null));
  made.addEventListener("mouseover", (event) => choose(made, meant(event.target)));
  made.addEventListener("mouseleave", () => choose(made, null));
  made.addEventListener("focusin", (event) => {
    const word = event.target.closest(".word");
    choose(made, meant(event.target));
    if (!word) return;
    for (const other of word.closest(".diagram").querySelectorAll(".word")) other.tabIndex = other === word ? 0 : -1;
  });
  made.addEventListener("focusout", (event) => { if (!made.contains(event.relatedTarget)) choose(made, null); });
  made.addEventListener("click", (event) => { if (meant(event.target)) choose(made, meant(event.target)); });
  made.addEventListener("keydown", move);
  return made;
}

// --- Search and pages ---

const folded = (text) => text.normalize("NFKC").toLowerCase();
const isFound = (word, tokens) => tokens.some((token) => folded(word).includes(token));

function search() {
  const query = folded(state.query.trim());
  const glue = UNSPACED.test(query) && !/\s/.test(query) ? "" : " ";
  const has = (pair) => SIDES.some((side) => folded(pair[side].join(glue)).includes(query));
  found = DATA.pairs.filter((pair) => (!state.changed || nChanges(pair)) && (!query || has(pair)));
}

// A panel is drawn when it is on the page, and again when its size changes.
const observer = new ResizeObserver((entries) => entries.forEach((entry) => draw(entry.target.closest(".panel"))));

function show() {
  const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
  state.page = Math.min(Math.max(0, state.page), last);
  const first = state.page * PAGE;
  const pairs = found.slice(first, first + PAGE);
  const tokens = folded(state.query).split(/\s+/).filter(Boolean);
  observer.disconnect();
  byId("pairs").replaceChildren(...pairs.map((pair) => article(pair, tokens)));
  for (const diagram of document.querySelectorAll(".diagram")) observer.observe(diagram);
  const all = found.length === DATA.pairs.length ? "" : ` (of ${plural(DATA.pairs.length, "pair", "pairs")})`;
  byId("status").textContent = found.length
    ? `${number(first + 1)} to ${number(first + pairs.length)} of ${plural(found.length, "pair", "pairs")}${all}`
    : `No pair fits${all}.`;
  for (const nav of document.querySelectorAll(".pages")) {
    nav.hidden = !last;
    nav.replaceChildren(
      ...[["First", 0], ["Previous", state.page - 1], ["Next", state.page + 1], ["Last", last]].map(([label, page]) => {
        const none = page < 0 || page > last || page === state.page;
        const button = html("button", { type: "button", "aria-disabled": none ? "true" : null }, label);
        button.addEventListener("click", () => { if (!none) go(page); });
        return button;
      }),
      html("span", {}, `Page ${number(state.page + 1)} of ${number(last + 1)}`));
  }
  remember();
}

function go(page) {
  state.page = page;
  show();
  byId("results").focus({ preventScroll: true });
  byId("results").scrollIntoView();
}

/** The address has the search and the page, so that a place can be kept as a bookmark. */
function remember() {
  const place = new URLSearchParams();
  if (state.query) place.set("find", state.query);
  if (state.changed) place.set("changed", "1");
  if (state.page) place.set("page", state.page + 1);
  if (state.hidden.size) place.set("hide", [...state.hidden].join(","));
  try {
    history.replaceState(null, "", `#${place}`);
  } catch { /* some browsers refuse it for files */ }
}

function recall() {
  const place = new URLSearchParams(location.hash.slice(1));
  state.query = place.get("find") || "";
  state.changed = place.get("changed") === "1" && MODELS.length > 1;
  state.page = (parseInt(place.get("page"), 10) || 1) - 1;
  const hidden = (place.get("hide") || "").split(",").filter(Boolean).map(Number);
  state.hidden = new Set(hidden.filter((model) => model in MODELS).slice(0, MODELS.length - 1));
  byId("query").value = state.query;
  byId("changed").checked = state.changed;
  document.querySelectorAll("#shown input").forEach((box, model) => { box.checked = !state.hidden.has(model); });
}

// --- What stands above the pairs ---

function summaryTable() {
  const text = (of) => (model) => (of(model) === null ? "–" : of(model));
  const whole = (key) => (model) => (model[key] === null ? null : number(model[key]));
  const share = (key) => (model) => (model[key] === null ? null : percent(model[key]));
  const columns = [
    ["Layer", (model) => model.layer], ["Links", whole("links")],
    ["Mean cosine", (model) => (model.mean_similarity === null ? null : model.mean_similarity.toFixed(3))],
    ["Pairs changed", whole("changed_pairs")], ["Added", whole("added")], ["Removed", whole("removed")],
    ["Precision, %", share("precision")], ["Recall, %", share("recall")], ["AER, %", share("error_rate")],
  ].filter(([, of]) => MODELS.some((model) => of(model) !== null));
  const caption = MODELS.length > 1 ? `Changes are from ${MODELS[0].label}.` : "";
  return html("table", {}, caption ? html("caption", {}, caption) : null,
    html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "Model"),
      ...columns.map(([title]) => html("th", { scope: "col", class: "number" }, title)))),
    html("tbody", {}, ...MODELS.map((model) => html("tr", {}, html("th", { scope: "row" }, model.label),
      ...columns.map(([, of]) => html("td", { class: "number" }, String(text(of)(model))))))));
}

function legend() {
  const kinds = [["same", null, MODELS.length > 1 ? "link, as in the first model" : "link"]];
  if (MODELS.length > 1) kinds.push(["added", null, "added"], ["removed", null, "removed"]);
  if (HAS_GOLD) kinds.push(["same", true, "among the given links"], ["same", false, "not among them"], ["missing", null, "given, not found"]);
  return kinds.map(([kind, right, text]) => html("li", {}, svg("svg", { "aria-hidden": "true", viewBox: "0 0 48 18" },
    svg("g", { class: `link ${kind}` }, svg("path", { d: "M4 9H44" }),
      ...(right === null ? [] : [4, 44].map((x) => svg("circle", { cx: x, cy: 9, r: 3.5, class: right ? "right" : null }))),
      ...(SIGNS[kind] ? [svg("circle", { class: "sign", cx: 24, cy: 9, r: 7.5 }), svg("text", { x: 24, y: 9 }, SIGNS[kind])] : []))),
    text));
}

function start() {
  const title = `Word links, ${languageName(DATA.language)} – ${languageName(DATA.anchor)}`;
  document.title = byId("title").textContent = title;
  byId("summary").append(summaryTable());
  byId("legend").append(...legend());
  byId("record").textContent = JSON.stringify(DATA.record, null, 2);
  byId("changed-choice").hidden = byId("shown").hidden = MODELS.length < 2;
  byId("shown").append(...MODELS.map((model) => html("label", {}, html("input", { type: "checkbox" }), ` ${model.label}`)));
  const update = () => { state.page = 0; search(); show(); };
  let waiting;
  byId("query").addEventListener("input", (event) => {
    state.query = event.target.value;
    clearTimeout(waiting);
    waiting = setTimeout(update, 200);
  });
  byId("controls").addEventListener("submit", (event) => { event.preventDefault(); update(); });
  byId("changed").addEventListener("change", (event) => { state.changed = event.target.checked; update(); });
  byId("shown").addEventListener("change", (event) => {
    const boxes = [...document.querySelectorAll("#shown input")];
    if (!boxes.some((box) => box.checked)) event.target.checked = true; // one stays
    state.hidden = new Set(boxes.flatMap((box, model) => (box.checked ? [] : [model])));
    show();
  });
  const arrive = () => { recall(); search(); show(); };
  window.addEventListener("hashchange", arrive);
  arrive();
}

start();
