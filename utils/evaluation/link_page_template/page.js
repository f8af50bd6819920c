// The whole page: search, pages of pairs, and what stands above them.

const PAGE = 20; // pairs
const UNSPACED = /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]/;
let found = [];

// --- Search and pages ---

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
      ...[
        ["First", 0],
        ["Previous", state.page - 1],
        ["Next", state.page + 1],
        ["Last", last],
      ].map(([label, page]) => {
        const none = page < 0 || page > last || page === state.page;
        const button = html("button", { type: "button", "aria-disabled": none ? "true" : null }, label);
        button.addEventListener("click", () => {
          if (!none) go(page);
        });
        return button;
      }),
      html("span", {}, `Page ${number(state.page + 1)} of ${number(last + 1)}`),
    );
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
  } catch {
    /* some browsers refuse it for files */
  }
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
  document.querySelectorAll("#shown input").forEach((box, model) => {
    box.checked = !state.hidden.has(model);
  });
}

// --- What stands above the pairs ---

function summaryTable() {
  const text = (of) => (model) => (of(model) === null ? "–" : of(model));
  const whole = (key) => (model) => (model[key] === null ? null : number(model[key]));
  const share = (key) => (model) => (model[key] === null ? null : percent(model[key]));
  const columns = [
    ["Layer", (model) => model.layer],
    ["Links", whole("links")],
    ["Mean cosine", (model) => (model.mean_similarity === null ? null : model.mean_similarity.toFixed(3))],
    ["Pairs changed", whole("changed_pairs")],
    ["Added", whole("added")],
    ["Removed", whole("removed")],
    ["Precision, %", share("precision")],
    ["Recall, %", share("recall")],
    ["AER, %", share("error_rate")],
  ].filter(([, of]) => MODELS.some((model) => of(model) !== null));
  const caption = MODELS.length > 1 ? `Changes are from ${MODELS[0].label}.` : "";
  return html(
    "table",
    {},
    caption ? html("caption", {}, caption) : null,
    html(
      "thead",
      {},
      html(
        "tr",
        {},
        html("th", { scope: "col" }, "Model"),
        ...columns.map(([title]) => html("th", { scope: "col", class: "number" }, title)),
      ),
    ),
    html(
      "tbody",
      {},
      ...MODELS.map((model) =>
        html(
          "tr",
          {},
          html("th", { scope: "row" }, model.label),
          ...columns.map(([, of]) => html("td", { class: "number" }, String(text(of)(model)))),
        ),
      ),
    ),
  );
}

function legend() {
  const kinds = [["same", null, MODELS.length > 1 ? "link, as in the first model" : "link"]];
  if (MODELS.length > 1) kinds.push(["added", null, "added"], ["removed", null, "removed"]);
  if (HAS_GOLD)
    kinds.push(
      ["same", true, "among the given links"],
      ["same", false, "not among them"],
      ["missing", null, "given, not found"],
    );
  return kinds.map(([kind, right, text]) =>
    html(
      "li",
      {},
      svg(
        "svg",
        { "aria-hidden": "true", viewBox: "0 0 48 18" },
        svg(
          "g",
          { class: `link ${kind}` },
          svg("path", { d: "M4 9H44" }),
          ...(right === null
            ? []
            : [4, 44].map((x) => svg("circle", { cx: x, cy: 9, r: 3.5, class: right ? "right" : null }))),
          ...(SIGNS[kind]
            ? [svg("circle", { class: "sign", cx: 24, cy: 9, r: 7.5 }), svg("text", { x: 24, y: 9 }, SIGNS[kind])]
            : []),
        ),
      ),
      text,
    ),
  );
}

function start() {
  const title = `Word links, ${languageName(DATA.language)} – ${languageName(DATA.anchor)}`;
  document.title = byId("title").textContent = title;
  byId("summary").append(summaryTable());
  byId("legend").append(...legend());
  byId("record").textContent = JSON.stringify(DATA.record, null, 2);
  byId("changed-choice").hidden = byId("shown").hidden = MODELS.length < 2;
  byId("shown").append(
    ...MODELS.map((model) => html("label", {}, html("input", { type: "checkbox" }), ` ${model.label}`)),
  );
  const update = () => {
    state.page = 0;
    search();
    show();
  };
  let waiting;
  byId("query").addEventListener("input", (event) => {
    state.query = event.target.value;
    clearTimeout(waiting);
    waiting = setTimeout(update, 200);
  });
  byId("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    update();
  });
  byId("changed").addEventListener("change", (event) => {
    state.changed = event.target.checked;
    update();
  });
  byId("shown").addEventListener("change", (event) => {
    const boxes = [...document.querySelectorAll("#shown input")];
    if (!boxes.some((box) => box.checked)) event.target.checked = true; // one stays
    state.hidden = new Set(boxes.flatMap((box, model) => (box.checked ? [] : [model])));
    show();
  });
  const arrive = () => {
    recall();
    search();
    show();
  };
  window.addEventListener("hashchange", arrive);
  arrive();
}

start();
