"use strict";
// Draws the trace and looks things up in it. The one thing that is computed here is a sum of terms that are on the screen, by
// float32 additions in the kernel's order; every product, result and difference is read from the trace.

const trace = JSON.parse(document.getElementById("trace").textContent);
const arrays = trace.arrays;
const byName = new Map(arrays.map((array) => [array.name, array]));
const state = { rung: "naive", cell: -1, held: false, uses: new Map() };
const cells = new Map(); // number -> its elements: a cell stands on the page once

function make(tag, properties = {}, ...children) {
  const { dataset, style, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  for (const [name, value] of Object.entries(style ?? {})) element.style.setProperty(name, value);
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

// --- numbers and cells -------------------------------------------------------------------------------------------------

const typeset = (digits) => digits.replaceAll("-", "−");

function text(number) {
  if (typeof number === "boolean") return number ? "yes" : "no";
  if (Object.is(number, -0)) return "−0";
  const small = number !== 0 && Math.abs(number) < 1e-4;
  return typeset(small ? number.toExponential() : String(number));
}

// For a label in a cell, or beside a scale of colours.
function short(number) {
  if (number !== 0 && Math.abs(number) < 0.01) return typeset(number.toExponential(0));
  return text(Number(number.toPrecision(Math.abs(number) < 1 ? 2 : 3))).replace(/^(−?)0\./, "$1.");
}

function arrayOf(cell) {
  return arrays.findLast((array) => array.offset <= cell);
}

function indexOf(array, flat) {
  const index = [];
  for (const size of array.shape.toReversed()) {
    index.unshift(flat % size);
    flat = Math.floor(flat / size);
  }
  return index;
}

function nameOf(cell) {
  const array = arrayOf(cell);
  return array.shape.length ? `${array.name}[${indexOf(array, cell - array.offset).join(",")}]` : array.name;
}

const valueOf = (cell) => { const array = arrayOf(cell); return array.values[cell - array.offset]; };

// How a cell was made: by the chosen rung if that is traced, else by the first that is.
function howOf(cell) {
  const { how, offset } = arrayOf(cell);
  const made = how[state.rung] ?? Object.values(how)[0];
  return made === undefined ? null : made[cell - offset];
}

const isCell = (node) => typeof node === "number";
const nodeValue = (node) => (isCell(node) ? valueOf(node) : node[1]);
const operands = (node) => (isCell(node) ? [] : node[0] === "pick" ? [node[3], ...node.slice(4)] : node.slice(3));

function visit(node, see) {
  see(node);
  for (const operand of operands(node)) visit(operand, see);
}

function madeOf(node) {
  const found = new Set();
  if (node !== null) visit(node, (part) => { if (isCell(part)) found.add(part); });
  return found;
}

function findUses() {
  state.uses = new Map();
  for (const array of arrays) {
    if (array.axes === undefined) continue;
    array.values.forEach((_, flat) => {
      for (const source of madeOf(howOf(array.offset + flat))) {
        if (!state.uses.has(source)) state.uses.set(source, []);
        state.uses.get(source).push(array.offset + flat);
      }
    });
  }
}

// --- how a number was made, in words -----------------------------------------------------------------------------------

function reference(cell) {
  const known = cells.has(cell);
  const label = [make("i", {}, nameOf(cell)), " " + text(valueOf(cell))];
  return known ? make("button", { type: "button", className: "ref", onclick: () => hold(cell) }, label) : make("span", { className: "ref" }, label);
}

// A part of a formula; sums of three and more are told in a table of their own, which `later` collects.
function formula(node, later, inner = true) {
  if (isCell(node)) return [reference(node)];
  const [sign, value, , ...parts] = node;
  const part = (i) => formula(parts[i], later);
  const bracket = (content) => (inner ? ["(", ...content, ")"] : content);
  if (sign === "=") return [make("span", { className: "ref" }, text(value))];
  if (sign === "Σ" && parts.length > 2) {
    later.push(node);
    return [`Σ of ${parts.length} `, make("span", { className: "ref" }, text(value))];
  }
  if (sign === "Σ") {
    return bracket(parts.flatMap((term, i) => (i === 0 ? part(0) : term[0] === "−" ? [" − ", ...formula(term[3], later)] : [" + ", ...part(i)])));
  }
  if (sign === "exp" || sign === "log") return [sign + "(", ...formula(parts[0], later, false), ")"];
  if (sign === "−") return ["−", ...part(0)];
  return bracket([...part(0), ` ${sign === "·" ? "×" : sign} `, ...part(1)]);
}

function sumTable(node) {
  const terms = node.slice(3);
  const peak = Math.max(...terms.map((term) => Math.abs(nodeValue(term)))) || 1;
  const later = [];
  let sum = 0;
  const rows = terms.map((term, i) => {
    const value = nodeValue(term);
    sum = Math.fround(sum + Math.fround(value));
    const meter = make("td", { className: value < 0 ? "meter m" : "meter", ariaHidden: "true" }, make("i", { style: { "--t": `${(Math.abs(value) / peak) * 100}%` } }));
    return make("tr", {}, make("td", {}, String(i + 1)), make("td", {}, formula(term, later, false)), meter, make("td", { className: "num term" }, text(value)));
  });
  const same = sum === Math.fround(node[1]);
  const foot = make("tr", {}, make("td"), make("td", {}, `the ${terms.length} add up to`, same ? make("span", { className: "good" }, " ✓ to the bit") : ""), make("td"), make("td", { className: "num sum" }, text(Number(shortest(sum)))));
  const table = make("div", { className: "terms", tabIndex: 0, role: "group", ariaLabel: "Terms" }, make("table", { className: "adds-up", dataset: { value: String(node[1]) } }, make("tbody", {}, rows), make("tfoot", {}, foot)));
  return [table, ...told(later)];
}

const told = (sums) => sums.flatMap((node) => [make("p", { className: "expr" }, `where the Σ of ${node.length - 3} is`), ...explain(node)]);

// The fewest digits that still are this float32.
function shortest(number) {
  for (let digits = 1; digits <= 9; digits++) {
    const candidate = Number(number.toPrecision(digits));
    if (Math.fround(candidate) === number) return candidate;
  }
  return number;
}

function explain(node) {
  if (isCell(node)) return [make("p", { className: "expr" }, "= ", reference(node), ", as it is")];
  if (node[0] === "=") return [make("p", { className: "expr" }, node[1] === 0 ? "Nothing came here: 0" : text(node[1]))];
  if (node[0] === "pick") {
    const rows = [];
    for (const [sign, outcome, , ...asked] of node.slice(4)) {
      const [a, b] = asked.map((operand) => formula(operand, []));
      if (sign === "is NaN" && !outcome && rows.length) {
        rows.at(-1).lastChild.append(", nor NaN"); // asked about the same cell as the row before
        continue;
      }
      const question = sign === "?" ? [...a, "?"] : b === undefined ? [...a, ` ${sign}?`] : [...a, ` ${sign} `, ...b, "?"];
      rows.push(make("tr", {}, make("td", {}, question), make("td", { className: "num" }, text(outcome))));
    }
    return [make("div", { className: "terms" }, make("table", {}, make("tbody", {}, rows))), ...explain(node[3])];
  }
  if (node[0] === "Σ") return sumTable(node);
  const later = [];
  const line = make("p", { className: "expr" }, "= ", ...formula(node, later, false));
  return [line, ...told(later)];
}

// --- the panel ---------------------------------------------------------------------------------------------------------

const anchor = (file, line) => `${file}:${line}`;

function valueTable(array, flat) {
  if (array.torch === undefined) return [];
  const row = (name, value, difference) => make("tr", {}, make("td", {}, name), make("td", { className: "num" }, text(value)), make("td", { className: "num" }, difference));
  const rows = Object.entries(array.rungs).map(([rung, values]) => row(rung, values[flat], text(array.differences[rung][flat])));
  const torch = row(`torch ${trace.torch}`, array.torch[flat], "");
  torch.className = "torch";
  torch.children[1].classList.add("theirs");
  const head = make("tr", {}, ["by", "value", "minus torch"].map((title, i) => make("th", { className: i ? "num" : "" }, title)));
  const allowed = array.allowed[flat];
  return [
    make("h3", {}, "Every rung, and torch"),
    make("table", { className: "values" }, make("tbody", {}, head, rows, torch)),
    make("p", { className: "index allowed", dataset: { allowed: String(allowed) } }, allowed === 0 ? "Nothing is rounded here: they must be equal." : `Rounding alone may part them by ${text(allowed)}.`),
  ];
}

function linesOf(cell) {
  const places = new Map();
  if (howOf(cell) !== null) {
    visit(howOf(cell), (part) => {
      if (isCell(part) || part[2] < 0) return;
      for (const [file, line] of trace.places[part[2]]) places.set(anchor(file, line), [file, line]);
    });
  }
  return [...places.values()];
}

function panel(cell) {
  const array = arrayOf(cell);
  const flat = cell - array.offset;
  const index = indexOf(array, flat);
  const how = howOf(cell);
  const value = (array.rungs[state.rung] ?? array.values)[flat];
  const parts = [
    make("h2", {}, nameOf(cell)),
    make("p", { className: "index" }, array.axes.slice(-index.length).map((axis, i) => `${axis} ${index[i]}`).join(" · ")),
    make("p", { className: "value", dataset: { value: String(value) } }, text(value)),
  ];
  if (how === null) parts.push(make("p", {}, "Given: part of the input."));
  else {
    parts.push(make("h3", {}, `How ${array.how[state.rung] === undefined ? Object.keys(array.how)[0] : state.rung} made it`), ...explain(how));
    if (nodeValue(how) !== value) parts.push(make("p", { className: "index" }, `The rung itself hands these terms to BLAS, which adds in an order of its own: ${text(value)}.`));
    const between = [...madeOf(how)].filter((source) => arrayOf(source).between);
    between.forEach((source) => {
      parts.push(make("details", { open: between.length < 3 }, make("summary", {}, `where ${nameOf(source)} =`), ...explain(howOf(source))));
    });
  }
  parts.push(...valueTable(array, flat));
  const uses = state.uses.get(cell) ?? [];
  if (uses.length) {
    const more = uses.length > 24 ? [` and ${uses.length - 24} more`] : [];
    parts.push(make("h3", {}, `Went into ${uses.length}`), make("p", { className: "links" }, uses.slice(0, 24).map(reference), more));
  }
  const lines = linesOf(cell);
  if (lines.length) {
    const entries = lines.map(([file, line]) => {
      const source = document.getElementById(anchor(file, line));
      return make("li", {}, make("a", { href: "#" + anchor(file, line) }, make("small", {}, anchor(file, line)), make("code", {}, source.querySelector("span").textContent.trim())));
    });
    parts.push(make("h3", {}, "The lines that did it"), make("ol", { className: "lines" }, entries));
  }
  const target = document.getElementById("panel");
  target.replaceChildren(...parts);
  target.scrollTop = 0;
}

// --- choosing a cell ---------------------------------------------------------------------------------------------------

const MARKS = ["sel", "from", "via", "to", "won", "tie"];

function mark(cell, name) {
  cells.get(cell)?.classList.add(name);
}

function show(cell) {
  if (!cells.has(cell)) return;
  state.cell = cell;
  for (const element of document.querySelectorAll(".cell:is(.sel,.from,.via,.to)")) element.classList.remove(...MARKS);
  for (const element of document.querySelectorAll(".code .ran")) element.classList.remove("ran");
  const how = howOf(cell);
  const sources = madeOf(how);
  for (const source of sources) {
    mark(source, "from");
    const further = howOf(source);
    if (further !== null && (isCell(further) || arrayOf(source).between)) for (const behind of madeOf(further)) mark(behind, "via");
  }
  if (how !== null && how[0] === "pick" && sources.size > 1) {
    mark(how[3], "won");
    for (const source of sources) if (source !== how[3] && valueOf(source) === how[1]) mark(source, "tie");
  }
  for (const use of state.uses.get(cell) ?? []) mark(use, "to");
  mark(cell, "sel");
  for (const [file, line] of linesOf(cell)) document.getElementById(anchor(file, line)).classList.add("ran");
  panel(cell);
}

function hold(cell) {
  state.held = true;
  document.getElementById("panel").classList.add("open");
  show(cell);
  focusable(cell);
  history.replaceState(null, "", "#" + encodeURIComponent(nameOf(cell)));
}

// One cell of an array is in the tab order: the last that was looked at.
function focusable(cell) {
  const element = cells.get(cell);
  for (const other of element.closest(".array").querySelectorAll('[tabindex="0"].cell')) other.tabIndex = -1;
  element.tabIndex = 0;
}

function move(array, flat, key) {
  const [rows, columns] = array.shape.length === 1 ? [1, array.shape[0]] : array.shape.slice(-2);
  const plane = rows * columns;
  const [row, column] = [Math.floor((flat % plane) / columns), flat % columns];
  const step = {
    ArrowLeft: column > 0 ? -1 : 0,
    ArrowRight: column < columns - 1 ? 1 : 0,
    ArrowUp: row > 0 ? -columns : 0,
    ArrowDown: row < rows - 1 ? columns : 0,
    Home: -column,
    End: columns - 1 - column,
    PageUp: flat >= plane ? -plane : 0,
    PageDown: flat + plane < array.values.length ? plane : 0,
  }[key];
  return step === undefined ? null : flat + step;
}

function listen(figure, array) {
  const cellOf = (event) => event.target.closest(".cell")?.dataset.cell;
  figure.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && !state.held && cellOf(event) !== undefined) show(Number(cellOf(event)));
  });
  figure.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (cell === undefined) return;
    if (state.held && Number(cell) === state.cell) state.held = false;
    else hold(Number(cell));
  });
  figure.addEventListener("focusin", (event) => {
    if (cellOf(event) !== undefined && event.target.matches(":focus-visible")) show(Number(cellOf(event)));
  });
  figure.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    if (cell === undefined) return;
    if (event.key === "Enter" || event.key === " ") hold(Number(cell));
    else {
      const flat = move(array, Number(cell) - array.offset, event.key);
      if (flat === null) return;
      focusable(array.offset + flat);
      cells.get(array.offset + flat).focus();
    }
    event.preventDefault();
  });
}

// --- drawing -----------------------------------------------------------------------------------------------------------

// Colours spread around zero; values that all lie far from it, around their middle.
function scaleOf(values) {
  const numbers = values.map(Number);
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  if (low > high / 2 && low < high) return { low, middle: (low + high) / 2, high, peak: (high - low) / 2 };
  const peak = Math.max(-low, high) || 1;
  return { low: low < 0 ? -peak : 0, middle: 0, high: high > 0 || low === 0 ? peak : 0, peak };
}

function plane(array, scale, first, rows, columns, label) {
  const size = array.values.length > 500 && columns > 14 ? "13px" : columns > 8 || array.values.length > 300 ? "19px" : "30px";
  const labelled = size === "30px";
  const lines = Array.from({ length: rows }, (_, row) => make("div", { role: "row" }, Array.from({ length: columns }, (_, column) => {
    const flat = first + row * columns + column;
    const value = Number(array.values[flat]);
    const away = value - scale.middle;
    const t = Math.abs(away) / scale.peak;
    const loud = (t > 0.55 ? "loud " : "") + (t > (away > 0 ? 0.9 : 0.75) ? "louder" : ""); // where the label changes its colour
    const element = make("div", {
      className: `cell ${away > 0 ? "p" : away < 0 ? "m" : ""} ${loud}`,
      role: "gridcell",
      tabIndex: flat === 0 ? 0 : -1,
      ariaLabel: `${nameOf(array.offset + flat)} is ${text(array.values[flat])}`,
      dataset: { cell: String(array.offset + flat) },
      style: { "--t": `${t * 100}%` },
    }, labelled ? short(value) : "");
    cells.set(array.offset + flat, element);
    return element;
  })));
  const grid = make("div", { className: "grid", role: "grid", ariaLabel: `${array.name} ${label}`, style: { "--n": columns } }, lines);
  return make("div", { className: "plane", style: { "--n": columns, "--size": size } }, make("small", {}, label), grid);
}

function figure(array) {
  const { shape } = array;
  const [rows, columns] = shape.length === 1 ? [1, shape[0]] : shape.slice(-2);
  const leading = shape.slice(0, -2);
  const count = leading.reduce((product, size) => product * size, 1);
  const scale = scaleOf(array.values);
  const planes = Array.from({ length: count }, (_, i) => {
    const index = indexOf({ shape: leading }, i);
    const label = index.map((at, axis) => (leading[axis] > 1 ? `${array.axes[axis]} ${at}` : "")).filter(Boolean).join(" ");
    return plane(array, scale, i * rows * columns, rows, columns, label);
  });
  const perRow = leading.length === 2 && leading[0] > 1 ? leading[1] : count;
  const grouped = perRow === count ? planes : Array.from({ length: count / perRow }, (_, i) => make("div", { className: "row" }, planes.slice(i * perRow, (i + 1) * perRow)));
  const axes = array.axes.map((axis, i) => `${axis} ${shape[i]}`).join(" · ");
  const caption = make("figcaption", {}, make("b", {}, array.name), " ", make("span", {}, axes), make("small", {}, short(scale.low), make("span", { className: `scale ${scale.low === 0 ? "above" : scale.high === 0 ? "below" : ""}` }), short(scale.high)), array.note ? make("small", {}, array.note) : "");
  const drawn = make("figure", { className: "array", dataset: { array: array.name } }, caption, make("div", { className: "planes" }, grouped));
  listen(drawn, array);
  return drawn;
}

function sources() {
  for (const { file, function: name, first, lines } of trace.sources) {
    const code = make("div", { className: "code", tabIndex: 0, role: "group", ariaLabel: `${name} in ${file}` });
    lines.forEach((line, i) => {
      const number = first + i;
      const content = make("span");
      content.innerHTML = line; // highlighted by the generator
      code.append(make("div", { id: anchor(file, number) }, make("a", { href: "#" + anchor(file, number), tabIndex: -1 }, String(number)), content));
    });
    document.getElementById("sources").append(make("h3", {}, `${file} · ${name}`), code);
  }
}

function theme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = (name) => { root.dataset.theme = name; };
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* a file that may not store anything follows the system */ }
  set(chosen ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => { if (chosen === null) set(dark.matches ? "dark" : "light"); });
  document.getElementById("theme").onclick = () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    set(chosen);
    try { localStorage.setItem("theme", chosen); } catch { /* as above */ }
  };
}

function rungs() {
  const traced = [...new Set(arrays.flatMap((array) => Object.keys(array.how)))];
  const box = document.getElementById("rungs");
  box.hidden = traced.length < 2;
  for (const rung of traced) {
    const input = make("input", { type: "radio", name: "rung", value: rung, checked: rung === state.rung, onchange: () => { state.rung = rung; findUses(); if (state.cell >= 0) show(state.cell); } });
    box.append(make("label", {}, input, rung));
  }
}

// --- the network: pictures in place of cells ---------------------------------------------------------------------------

function stop({ name, module, page, shape, forward, backward }) {
  const picture = (side, title) => make("span", {}, make("small", {}, title), make("img", { src: side.picture, alt: `${title} of ${name}` }));
  const element = make("button", { type: "button", className: "stop" },
    make("span", {}, make("b", {}, name), make("small", {}, module), make("small", {}, shape.join(" × "))),
    picture(forward, "activations"), picture(backward, "gradient"));
  element.onclick = () => {
    for (const other of document.querySelectorAll(".stop.sel")) other.classList.remove("sel");
    element.classList.add("sel");
    const side = (title, { picture: source, numbers, torch }) => [
      make("h3", {}, title), make("img", { src: source, alt: title }),
      make("table", { className: "values" }, make("tbody", {}, Object.entries(numbers).map(([key, value]) => make("tr", {}, make("td", {}, key), make("td", { className: "num" }, typeset(value)))),
        make("tr", {}, make("td", {}, "largest difference from torch, of max |·|"), make("td", { className: "num torch" }, typeset(torch))))),
    ];
    const link = page && trace.siblings.includes(page) ? [make("p", {}, make("a", { href: `${page}.html` }, `How ${page} makes its numbers`))] : [];
    document.getElementById("panel").replaceChildren(make("h2", {}, name), make("p", { className: "index" }, `${module} · ${shape.join(" × ")}`), ...link, ...side("Activations", forward), ...side("Gradient of the loss", backward));
    document.getElementById("panel").classList.add("open");
  };
  return element;
}

function cellNamed(name) {
  const match = /^(.+)\[([\d,]+)\]$/.exec(name);
  const array = match && byName.get(match[1]);
  if (!array) return -1;
  const index = match[2].split(",").map(Number);
  const flat = array.shape.reduce((total, size, axis) => total * size + index[axis], 0);
  return index.length === array.shape.length && flat < array.values.length ? array.offset + flat : -1;
}

function start() {
  theme();
  document.getElementById("title").textContent = trace.title;
  document.getElementById("lead").textContent = trace.lead;
  document.getElementById("settings").append(...Object.entries(trace.settings).map(([name, value]) => make("span", {}, `${name} ${value}`)));
  document.getElementById("pages").append(...trace.siblings.map((name) => {
    const link = make("a", { href: `${name}.html` }, name);
    if (name === trace.operation) link.setAttribute("aria-current", "page");
    return link;
  }));
  if (trace.book) {
    const book = document.getElementById("book");
    book.href = trace.book;
    book.hidden = false;
  }
  if (trace.thumbnail) {
    document.getElementById("photo").append(make("img", { src: trace.thumbnail, alt: "The photograph, with the part that is used framed" }), make("figcaption", {}, trace.photograph));
  }
  sources();
  for (const { title, text: words, panels } of trace.sections) {
    document.getElementById("stage").append(make("section", {}, make("h2", {}, title), make("p", {}, words), make("div", { className: "arrays" }, panels.map((name) => figure(byName.get(name))))));
  }
  if (trace.strip.length) {
    const stops = trace.strip.map(stop);
    document.getElementById("stage").replaceChildren(make("div", { className: "strip" }, stops));
    document.getElementById("sources").remove();
    stops[0].click();
    document.getElementById("panel").classList.remove("open");
    return;
  }
  rungs();
  findUses();
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") state.held = false; });
  const asked = cellNamed(decodeURIComponent(location.hash.slice(1)));
  if (asked >= 0) hold(asked);
  else {
    const made = arrays.find((array) => array.torch !== undefined);
    const [rows, columns] = made.shape.length === 1 ? [1, made.shape[0]] : made.shape.slice(-2);
    const planes = made.values.length / (rows * columns);
    show(made.offset + (Math.floor(planes / 2) * rows + Math.floor(rows / 2)) * columns + Math.floor(columns / 2));
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }
}

start();
