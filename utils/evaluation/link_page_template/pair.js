// One pair: its links as lines, as a table and as matrices.

function wordButtons(pair, side, lines, tokens) {
  return pair[side].map((word, k) => {
    const own = lines.filter((line) => line[side] === k);
    const other = side === "s" ? "e" : "s";
    const said = own.map((line) => `${pair[other][line[other]]}: ${described(line)}`);
    const classes = [
      "word",
      own.some((line) => line.kind !== "missing") && "linked",
      isFound(word, tokens) && "found",
    ];
    return html(
      "button",
      {
        type: "button",
        class: classes.filter(Boolean).join(" "),
        tabindex: "-1",
        "data-side": side,
        "data-k": k,
        "aria-label": `${word}; ${said.join("; ") || "not linked"}`,
      },
      word,
    );
  });
}

function panel(pair, links, model, tokens) {
  const lines = drawn(links, model);
  const rows = SIDES.map((side) =>
    html("div", { class: "row", dir: "auto", lang: LANGUAGES[side] }, ...wordButtons(pair, side, lines, tokens)),
  );
  const drawing = svg("svg", { class: "lines", "aria-hidden": "true" });
  const diagram = html(
    "div",
    {
      class: "diagram",
      role: "group",
      "aria-label": `Links by ${MODELS[model].label}. Arrow keys move between the words.`,
    },
    ...rows,
    drawing,
  );
  diagram.querySelector(".word").tabIndex = 0;
  const section = html(
    "div",
    { class: "panel", "data-model": model },
    html("h4", {}, MODELS[model].label),
    html("div", { class: "scroll" }, diagram),
    html("p", { class: "info" }),
  );
  Object.assign(section, { pair, lines, drawing, model });
  inform(section, []);
  return section;
}

/** The line below a drawing: about the chosen links, or about all. */
function inform(section, chosen) {
  const info = section.querySelector(".info");
  if (chosen.length) {
    const { s, e } = section.pair;
    info.replaceChildren(
      ...chosen.flatMap((line, k) => [
        k ? "; " : "",
        html("strong", {}, html("bdi", {}, s[line.s]), " – ", html("bdi", {}, e[line.e])),
        `: ${described(line)}`,
      ]),
    );
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
  section.drawing.replaceChildren(
    ...section.lines.map((line, k) => {
      const [from, to] = [words.s[line.s], words.e[line.e]];
      const [x1, y1] = [from.offsetLeft + from.offsetWidth / 2, from.offsetTop + from.offsetHeight + 3];
      const [x2, y2] = [to.offsetLeft + to.offsetWidth / 2, to.offsetTop - 3];
      const middle = (y1 + y2) / 2;
      const path = `M${x1} ${y1}C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}`;
      const ends =
        line.right === null || line.kind === "missing"
          ? []
          : [
              [x1, y1],
              [x2, y2],
            ].map(([x, y]) => svg("circle", { cx: x, cy: y, r: 3.5, class: line.right ? "right" : null }));
      const sign = !SIGNS[line.kind]
        ? []
        : [
            svg("circle", { class: "sign", cx: (x1 + x2) / 2, cy: middle, r: 7.5 }),
            svg("text", { x: (x1 + x2) / 2, y: middle }, SIGNS[line.kind]),
          ];
      return svg(
        "g",
        { class: `link ${line.kind}`, "data-line": k },
        svg("path", { d: path, class: "reach" }),
        svg("path", { d: path }),
        ...ends,
        ...sign,
      );
    }),
  );
}

/** Show in all panels of a pair which links have a property; none if it is null. */
function choose(article, wanted) {
  for (const section of article.querySelectorAll(".panel")) {
    const chosen = wanted ? section.lines.filter(wanted) : [];
    section.drawing.classList.toggle("choosing", chosen.length > 0);
    section.drawing.childNodes.forEach((group, k) =>
      group.classList.toggle("chosen", chosen.includes(section.lines[k])),
    );
    for (const word of section.querySelectorAll(".word")) {
      word.classList.toggle(
        "chosen",
        chosen.some((line) => line[word.dataset.side] === Number(word.dataset.k)),
      );
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
  const head = [
    languageName(DATA.language),
    languageName(DATA.anchor),
    ...MODELS.map((model) => model.label),
    ...(gold ? ["given"] : []),
  ];
  const rows = lines.map(({ s, e }) => {
    const key = linkName(s, e);
    const cells = models.map((links, model) => {
      const link = links.get(key);
      const was = models[0].has(key);
      if (!link) return html("td", {}, model && was ? `${SIGNS.removed} removed` : "no link");
      return html("td", {}, cosine(link.score) + (model && !was ? ` ${SIGNS.added} added` : ""));
    });
    return html(
      "tr",
      {},
      html("td", { dir: "auto", lang: DATA.language }, pair.s[s]),
      html("td", { dir: "auto", lang: DATA.anchor }, pair.e[e]),
      ...cells,
      gold ? html("td", {}, gold.has(key) ? "yes" : "no") : null,
    );
  });
  return html(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": `Links of pair ${pair.n}` },
    html(
      "table",
      {},
      html("caption", {}, "Linked words and the cosine of their vectors"),
      html("thead", {}, html("tr", {}, ...head.map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...rows),
    ),
  );
}

// --- Matrices ---

/** The cosines of a packed matrix, row by row; null for words without vector. */
function unpack([low, high, packed]) {
  return Array.from(atob(packed), (byte) =>
    byte.charCodeAt(0) === 255 ? null : low + ((high - low) * byte.charCodeAt(0)) / 254,
  );
}

function matrix(pair, links, model, low, high) {
  const values = unpack(pair.x[model]);
  const head = pair.e.map((word) => html("th", { scope: "col", lang: DATA.anchor }, html("span", {}, word)));
  const rows = pair.s.map((word, s) =>
    html(
      "tr",
      {},
      html("th", { scope: "row", dir: "auto", lang: DATA.language }, word),
      ...pair.e.map((other, e) => {
        const value = values[s * pair.e.length + e];
        if (value === null) return html("td", { title: "no vector" }, "–");
        const share = high > low ? (value - low) / (high - low) : 0;
        const linked = links.models[model].has(linkName(s, e));
        const cell = html(
          "td",
          {
            class: linked ? "linked" : null,
            title: `${word} – ${other}: ${cosine(value)}${linked ? ", linked" : ""}`,
          },
          cosine(value),
        );
        cell.style.setProperty("--share", share.toFixed(3));
        return cell;
      }),
    ),
  );
  const label = MODELS[model].label;
  return html(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": `Similarity matrix of pair ${pair.n}, ${label}` },
    html(
      "table",
      { class: "matrix" },
      html("caption", {}, `${label}: cosine of all words; linked words are framed`),
      html("thead", {}, html("tr", {}, html("td"), ...head)),
      html("tbody", {}, ...rows),
    ),
  );
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
  const made = html(
    "article",
    { "aria-labelledby": `pair-${pair.n}` },
    html(
      "header",
      {},
      html("h3", { id: `pair-${pair.n}` }, `Pair ${number(pair.n)}`),
      changes ? html("span", { class: "badge" }, plural(changes, "link changed", "links changed")) : null,
    ),
    html("div", { class: "panels" }, ...shown.map((model) => panel(pair, links, model, tokens))),
    html(
      "div",
      { class: "more" },
      onDemand(`Links as a table (${number(n)})`, () => linkTable(pair, links)),
      pair.x ? onDemand("Similarity matrix", () => matrices(pair, links)) : null,
    ),
  );
  made.addEventListener("mouseover", (event) => choose(made, meant(event.target)));
  made.addEventListener("mouseleave", () => choose(made, null));
  made.addEventListener("focusin", (event) => {
    const word = event.target.closest(".word");
    choose(made, meant(event.target));
    if (!word) return;
    for (const other of word.closest(".diagram").querySelectorAll(".word")) other.tabIndex = other === word ? 0 : -1;
  });
  made.addEventListener("focusout", (event) => {
    if (!made.contains(event.relatedTarget)) choose(made, null);
  });
  made.addEventListener("click", (event) => {
    if (meant(event.target)) choose(made, meant(event.target));
  });
  made.addEventListener("keydown", move);
  made.addEventListener(
    "scroll",
    (event) => {
      // long sentences move together
      if (!event.target.matches(".panel > .scroll")) return;
      for (const other of made.querySelectorAll(".panel > .scroll")) other.scrollLeft = event.target.scrollLeft;
    },
    true,
  );
  return made;
}
