"use strict";
// Draws the trace and looks things up in it. The one thing that is computed here is a sum of terms that are on the screen, by
// float32 additions in the kernel's order; every product, result and difference is read from the trace.

const trace = JSON.parse(document.getElementById("trace").textContent);
const arrays = trace.arrays;
const byName = new Map(arrays.map((array) => [array.name, array]));
const state = { rung: "naive", cell: -1, held: false, uses: new Map() };
const cells = new Map(); // number -> its element
const twins = new Map(); // number -> its element in an array that is shown a second time, with its windows turned
const scales = new Map(); // array's name -> how values become colours, and whether they are written into the cells

function make(tag, properties = {}, ...children) {
  const { dataset, style, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  for (const [name, value] of Object.entries(style ?? {})) element.style.setProperty(name, value);
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

// A line ends after a dot only: neither between an axis and its number, nor before the dot.
const inOnePiece = (axes, numbers) => axes.map((axis, i) => `${axis}\u00a0${numbers[i]}`).join("\u00a0· ");

// --- numbers and cells -------------------------------------------------------------------------------------------------

const typeset = (digits) => digits.replaceAll("-", "−");

function text(number) {
  if (typeof number === "boolean") return number ? "1" : "0";
  if (Object.is(number, -0)) return "−0";
  const small = number !== 0 && Math.abs(number) < 1e-4;
  return typeset(small ? number.toExponential() : String(number));
}

const grouped = (count) => count.toLocaleString("en");

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

// Rows and columns of what is drawn as one grid.
const planeOf = ({ shape }) => (shape.length === 1 ? [1, shape[0]] : shape.slice(-2));

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
const operands = (node) => (isCell(node) || node[0] === "=" ? [] : node[0] === "pick" ? [node[3], ...node.slice(4)] : node.slice(3));

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

// A number without a cell: ["=", value, -1], and its name if it has one.
function constant([, value, , name]) {
  return make("span", { className: "ref" }, name ? make("i", {}, `${name} `) : "", text(value));
}

// A part of a formula; sums of three and more are told in a table of their own, which `later` collects.
function formula(node, later, inner = true) {
  if (isCell(node)) return [reference(node)];
  const [sign, value, , ...parts] = node;
  const part = (i) => formula(parts[i], later);
  const bracket = (content) => (inner ? ["(", ...content, ")"] : content);
  if (sign === "=") return [constant(node)];
  if (sign === "Σ" && parts.length > 2) {
    later.push(node);
    return [`(Σ of ${parts.length} terms: `, make("span", { className: "ref" }, text(value)), ")"];
  }
  if (sign === "Σ") {
    return bracket(parts.flatMap((term, i) => (i === 0 ? part(0) : term[0] === "−" ? [" − ", ...formula(term[3], later)] : [" + ", ...part(i)])));
  }
  if (sign === "exp" || sign === "log") return [sign + "(", ...formula(parts[0], later, false), ")"];
  if (sign === "−") return ["−", ...part(0)];
  return bracket([...part(0), ` ${sign === "·" ? "×" : sign} `, ...part(1)]);
}

// Rows that scroll by themselves; while some are hidden below the foot, its shadow says so.
function scrolling(ariaLabel, table) {
  const box = make("div", { className: "terms", tabIndex: 0, role: "group", ariaLabel, style: { "--rows": table.rows.length } }, table);
  const hint = () => box.classList.toggle("more", box.scrollHeight - box.scrollTop - box.clientHeight > 1);
  box.addEventListener("scroll", hint, { passive: true });
  new ResizeObserver(hint).observe(box);
  return box;
}

// All terms of a sum, or while it grows the first of them.
function sumTable(node, count = node.length - 3) {
  const terms = node.slice(3, 3 + count);
  const all = node.length - 3;
  const peak = Math.max(...terms.map((term) => Math.abs(nodeValue(term)))) || 1;
  const later = [];
  let sum = 0;
  const rows = terms.map((term, i) => {
    const value = nodeValue(term);
    sum = Math.fround(sum + Math.fround(value));
    const meter = make("td", { className: value < 0 ? "meter m" : "meter", ariaHidden: "true" }, make("i", { style: { "--t": `${(Math.abs(value) / peak) * 100}%` } }));
    return make("tr", {}, make("td", {}, String(i + 1)), make("td", {}, formula(term, later, false)), meter, make("td", { className: "num term" }, text(value)));
  });
  const same = count === all && sum === Math.fround(node[1]);
  const which = count === all ? `the ${all}` : `the first ${count} of ${all}`;
  const words = all === 1 ? "the only term is" : count === 1 ? `the first of ${all} is` : `${which} add up to`;
  const foot = make("tr", {}, make("td"), make("td", {}, words, same ? make("span", { className: "good" }, " ✓ to the bit") : ""), make("td"), make("td", { className: "num sum" }, text(shortest(sum))));
  const table = scrolling("Terms", make("table", { className: "adds-up", dataset: { value: count === all ? String(node[1]) : "" } }, make("tbody", {}, rows), make("tfoot", {}, foot)));
  return [table, ...told(later)];
}

const told = (sums) => sums.flatMap((node) => [make("p", { className: "expr" }, `where the Σ of ${node.length - 3} terms is`), ...explain(node)]);

// The fewest digits that still are this float32.
function shortest(number) {
  for (let digits = 1; digits <= 9; digits++) {
    const candidate = Number(number.toPrecision(digits));
    if (Math.fround(candidate) === number) return candidate;
  }
  return number;
}

const isNothing = (node) => !isCell(node) && node[0] === "=" && !node[3] && Object.is(node[1], 0);

function explain(node) {
  if (isCell(node)) return [make("p", { className: "expr" }, "= ", reference(node), ", as it is")];
  if (node[0] === "=") return [make("p", { className: "expr" }, isNothing(node) ? "Nothing came here: 0" : constant(node))];
  if (node[0] === "pick") {
    const rows = [];
    for (const [sign, outcome, , ...asked] of node.slice(4)) {
      const [a, b] = asked.map((operand) => formula(operand, []));
      if (sign === "is NaN" && !outcome && rows.length) {
        rows.at(-1).lastChild.append(", nor NaN"); // asked about the same cell as the row before
        continue;
      }
      const question = sign === "?" ? [...a, ": is it 1?"] : b === undefined ? [...a, ` ${sign}?`] : [...a, ` ${sign} `, ...b, "?"];
      rows.push(make("tr", {}, make("td", {}, question), make("td", { className: "num" }, outcome ? "yes" : "no")));
    }
    const answer = !isCell(node[3]) && node[3][0] === "=" ? [make("p", { className: "expr" }, `= ${text(node[3][1])}`)] : explain(node[3]);
    return [scrolling("Questions", make("table", {}, make("tbody", {}, rows))), ...answer];
  }
  if (node[0] === "Σ") return sumTable(node);
  const later = [];
  const line = make("p", { className: "expr" }, "= ", ...formula(node, later, false));
  return [line, ...told(later)];
}

// --- the panel ---------------------------------------------------------------------------------------------------------

const anchor = (file, line) => `${file}:${line}`;

const PARTS = [[0.04, "a small part"], [0.15, "a tenth"], [0.29, "a quarter"], [0.42, "a third"], [0.58, "half"], [0.8, "two thirds"], [1, "nearly all"]];

// A difference from torch in words; the number comes after it.
function inWords(difference, allowed) {
  if (difference === 0) return "the same";
  if (Math.abs(difference) > allowed) return "more than rounding";
  const [, part] = PARTS.find(([most]) => Math.abs(difference) / allowed <= most);
  return `rounding only: ${part} of what is allowed`;
}

function valueTable(array, flat) {
  if (array.torch === undefined) return [];
  const allowed = array.allowed[flat];
  const row = (name, value, difference) => make("tr", {}, make("td", {}, name), make("td", { className: "num" }, text(value)), make("td", { className: "than" }, difference));
  const rows = Object.entries(array.rungs).map(([rung, values]) => {
    const difference = array.differences[rung][flat];
    return row(rung, values[flat], [inWords(difference, allowed), difference === 0 ? "" : make("small", {}, ` ${text(difference)}`)]);
  });
  const torch = row(`torch ${trace.torch}`, array.torch[flat], "");
  torch.className = "torch";
  torch.children[1].classList.add("theirs");
  const head = make("tr", {}, ["by", "value", "compared with torch"].map((title, i) => make("th", { className: ["", "num", "than"][i] }, title)));
  return [
    make("h3", {}, "Every rung, and torch"),
    make("table", { className: "values" }, make("tbody", {}, head, rows, torch)),
    make("p", { className: "index allowed", dataset: { allowed: String(allowed) } }, allowed === 0 ? "Nothing is rounded here: they must be equal." : `Both sides round. That explains a difference of up to ${text(allowed)}, and no more.`),
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
    make("p", { className: "index" }, inOnePiece(array.axes.slice(-index.length), index)),
    make("p", { className: "value", dataset: { value: String(value) } }, text(value)),
  ];
  if ([value, ...[...madeOf(how)].map(valueOf)].some((each) => Object.is(each, -0))) {
    parts.push(make("p", { className: "index minus" }, "−0 is a zero that kept its sign. It equals 0, and adds up like 0."));
  }
  if (how === null) parts.push(make("p", {}, "Given: part of the input."));
  else {
    parts.push(make("h3", {}, `How ${array.how[state.rung] === undefined ? Object.keys(array.how)[0] : state.rung} made it`), ...explain(how));
    const between = [...madeOf(how)].filter((source) => arrayOf(source).between);
    if (nodeValue(how) !== value) {
      const adding = between.length ? "BLAS made these terms for the rung itself, and it adds" : "The rung itself hands these terms to BLAS, which adds";
      parts.push(make("p", { className: "index" }, `${adding} in an order of its own: ${text(value)}.`));
    }
    between.forEach((source) => {
      parts.push(make("details", { open: between.length < 3 }, make("summary", {}, `where ${nameOf(source)} =`), ...explain(howOf(source))));
    });
  }
  parts.push(...valueTable(array, flat));
  const uses = state.uses.get(cell) ?? [];
  if (uses.length) {
    const more = uses.length > 24 ? [` and ${uses.length - 24} more`] : [];
    parts.push(make("h3", {}, `Went into ${uses.length} ${uses.length === 1 ? "number" : "numbers"}`), make("p", { className: "links" }, uses.slice(0, 24).map(reference), more));
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

const narrow = matchMedia("(max-width: 60rem)"); // as in the style
const MARKS = ["sel", "from", "via", "to", "won", "tie"];

function mark(cell, name) {
  cells.get(cell)?.classList.add(name);
  twins.get(cell)?.classList.add(name);
}

function show(cell) {
  if (!cells.has(cell)) return;
  if (player.array !== null && !player.timer) finish();
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
  peek();
  for (const [file, line] of linesOf(cell)) document.getElementById(anchor(file, line)).classList.add("ran");
  panel(cell);
}

function hold(cell) {
  pause();
  state.held = true;
  document.getElementById("panel").classList.add("open");
  show(cell);
  aim(cell);
  focusable(cell);
  uncover(cells.get(cell));
  history.replaceState(null, "", "#" + encodeURIComponent(nameOf(cell)));
}

function release() {
  state.held = false;
  aim(-1);
}

// On a narrow page the small view lies over the upper edge and the panel over the lower one: scroll the element out from under
// them, and then as much further as a row of buttons needs that the panel would cut. Without an element, only the latter.
function uncover(element = null) {
  const panel = document.getElementById("panel");
  const above = Math.min(panel.getBoundingClientRect().top, innerHeight - parseFloat(getComputedStyle(panel).maxHeight)); // it may grow
  if (!narrow.matches || above <= 0) return;
  const [top, bottom] = [document.getElementById("peek").getBoundingClientRect().bottom + 24, above - 24];
  const box = element?.getBoundingClientRect();
  let move = box ? Math.max(0, box.bottom - bottom) || Math.min(0, box.top - top) : 0;
  for (const row of document.querySelectorAll(".player")) {
    const cut = row.getBoundingClientRect().bottom - move - bottom;
    if (cut > 0 && cut < row.offsetHeight + 24 && !(box?.top - move - cut < top)) move += cut;
  }
  scrollBy({ top: move, behavior: "instant" });
}

// One cell of an array is in the tab order: the last that was looked at.
function focusable(cell) {
  const element = cells.get(cell);
  for (const other of element.closest(".array").querySelectorAll('[tabindex="0"].cell')) other.tabIndex = -1;
  element.tabIndex = 0;
}

function move(array, flat, key) {
  const [rows, columns] = planeOf(array);
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
  const cellOf = (event) => { const { cell, twin } = event.target.closest(".cell")?.dataset ?? {}; return cell ?? twin; };
  figure.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && !state.held && cellOf(event) !== undefined) show(Number(cellOf(event)));
  });
  figure.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (cell === undefined) return;
    if (state.held && Number(cell) === state.cell) release();
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

// A cell's colour and label for a value: its own, or while a kernel runs what it holds so far.
function paint(element, array, value) {
  const { middle, peak, labelled } = scales.get(array.name);
  const away = Number(value) - middle;
  const t = Math.min(1, Math.abs(away) / peak);
  // Where the label changes its colour, to be read: on a dark page, and on a light one, where black on orange always can be.
  const loud = (t > (away > 0 ? 0.575 : 0.605) ? "loud " : "") + (away < 0 && t > 0.83 ? "louder" : "");
  element.className = `cell ${away > 0 ? "p" : away < 0 ? "m" : ""} ${loud}`;
  element.style.setProperty("--t", `${t * 100}%`);
  element.textContent = labelled ? short(Number(value)) : "";
}

function plane(array, first, rows, columns, label, turned) {
  const { size } = scales.get(array.name);
  const last = first + rows * columns - 1;
  const lines = Array.from({ length: rows }, (_, row) => make("div", { role: "row" }, Array.from({ length: columns }, (_, column) => {
    const flat = turned ? last - row * columns - column : first + row * columns + column;
    const number = array.offset + flat;
    const element = turned
      ? make("div", { dataset: { twin: String(number) } })
      : make("div", { role: "gridcell", tabIndex: flat === 0 ? 0 : -1, ariaLabel: `${nameOf(number)} is ${text(array.values[flat])}`, dataset: { cell: String(number) } });
    paint(element, array, array.values[flat]);
    (turned ? twins : cells).set(number, element);
    return element;
  })));
  const grid = make("div", { className: "grid", role: "grid", ariaLabel: `${array.name} ${label}`, style: { "--n": columns } }, lines);
  return make("div", { className: "plane", style: { "--n": columns, "--size": size } }, make("small", {}, label), grid);
}

function figure(array, turned) {
  const { shape } = array;
  const [rows, columns] = planeOf(array);
  const leading = shape.slice(0, -2);
  const count = leading.reduce((product, size) => product * size, 1);
  const scale = scaleOf(array.values);
  const size = array.values.length > 500 && columns > 14 ? "13px" : columns > 8 || array.values.length > 300 ? "19px" : "30px";
  scales.set(array.name, { ...scale, size, labelled: size === "30px" });
  const planes = Array.from({ length: count }, (_, i) => {
    const index = indexOf({ shape: leading }, i);
    const label = index.map((at, axis) => (leading[axis] > 1 ? `${array.axes[axis]}\u00a0${at}` : "")).filter(Boolean).join(" ");
    return plane(array, i * rows * columns, rows, columns, label, turned);
  });
  if (array.picture) planes.push(make("div", { className: "plane", style: { "--n": columns, "--size": size } }, make("small", {}, "in its own colours"), make("img", { className: "colours", src: array.picture, alt: "The part of the photograph, in its own colours" })));
  const perRow = leading.length === 2 && leading[0] > 1 ? leading[1] : planes.length;
  const grouped = perRow === planes.length ? planes : Array.from({ length: count / perRow }, (_, i) => make("div", { className: "row" }, planes.slice(i * perRow, (i + 1) * perRow)));
  const name = turned ? `${array.name} turned` : array.name;
  const note = turned ? "The same weights, each window turned by 180°." : array.note;
  const caption = make("figcaption", {}, make("b", {}, name), " ", make("span", {}, inOnePiece(array.axes, shape)), make("small", { className: "extent" }, short(scale.low), make("span", { className: `scale ${scale.low === 0 ? "above" : scale.high === 0 ? "below" : ""}` }), short(scale.high), scale.middle ? `, middle ${short(scale.middle)}` : ""), note ? make("small", {}, note) : "");
  const drawn = make("figure", { className: turned ? "array turned" : "array", dataset: { array: name }, ariaHidden: turned ? "true" : null }, caption, make("div", { className: "planes" }, grouped));
  listen(drawn, array);
  return drawn;
}

function section({ title, text: words, panels }) {
  const draw = ({ name, turned, rung }) => {
    const drawn = figure(byName.get(name), turned);
    if (rung) drawn.dataset.rung = rung;
    return drawn;
  };
  const [row, rest] = [panels.filter((panel) => panel.row), panels.filter((panel) => !panel.row)];
  const played = panels.map(({ name }) => byName.get(name)).find((array) => array.torch !== undefined && array.how.naive !== undefined);
  return make("section", {}, make("h2", {}, title), make("p", {}, words), played ? controls(played) : "",
    row.length ? make("div", { className: "arrays abreast" }, row.map(draw)) : "",
    rest.length ? make("div", { className: "arrays" }, rest.map(draw)) : "");
}

// --- the kernel at work: term by term, in the order in which the naive rung ran ------------------------------------------

const RATES = [2, 5, 15, 60, 300, 1500, 6000]; // terms a second
const still = matchMedia("(prefers-reduced-motion: reduce)");
const player = { array: null, steps: [], at: 0, timer: 0, rate: 1, buttons: new Map(), first: -1 }; // first: the cell to start at

// A cell to which nothing is added takes no step, unless no cell takes one.
function stepsOf(array) {
  const steps = array.how.naive.flatMap((_, flat) => array.steps[flat].map((when, k) => ({ when, cell: array.offset + flat, terms: k + 1 })));
  const added = steps.filter(({ cell }) => !isNothing(array.how.naive[cell - array.offset]));
  return (added.length ? added : steps).sort((a, b) => a.when - b.when);
}

const termsOf = (node) => (!isCell(node) && node[0] === "Σ" ? node.slice(3) : [node]);

// What the cell holds after so many terms: the sum of those on the screen, added in float32 as the kernel adds them.
function soFar(node, count) {
  const terms = termsOf(node);
  return terms.length === count && terms.length === 1 ? nodeValue(node) : terms.slice(0, count).reduce((sum, term) => Math.fround(sum + Math.fround(nodeValue(term))), 0);
}

// The next run starts at this cell's first step, or with -1 at the first of all.
function aim(cell) {
  player.first = cell;
  for (const array of player.buttons.keys()) {
    if (array !== arrayOf(cell)) report(array, "");
    else report(array, `▶ from step ${grouped(startOf(stepsOf(array)) + 1)} of ${grouped(stepsOf(array).length)}`);
  }
}

const startOf = (steps) => Math.max(0, steps.findIndex(({ cell }) => cell === player.first));

function load(array) {
  if (player.array === array) return;
  finish();
  const steps = stepsOf(array);
  Object.assign(player, { array, steps, at: startOf(steps) });
  const held = new Map(steps.slice(0, player.at).map(({ cell, terms }) => [cell, terms])); // so many terms each cell has by then
  array.values.forEach((_, flat) => {
    const element = cells.get(array.offset + flat);
    const terms = held.get(array.offset + flat);
    paint(element, array, terms ? soFar(array.how.naive[flat], terms) : 0);
    if (!terms && !isNothing(array.how.naive[flat])) element.textContent = "";
  });
}

// Put the values back that the array has in the end.
function finish() {
  pause();
  const { array } = player;
  if (array === null) return;
  array.values.forEach((value, flat) => paint(cells.get(array.offset + flat), array, value));
  player.array = null;
  player.at = 0;
  report(array, "");
}

function report(array, words) {
  player.buttons.get(array)?.at(-1).replaceChildren(words);
}

function advance(count) {
  const { array, steps } = player;
  const until = Math.min(steps.length, player.at + count);
  for (; player.at < until; player.at++) {
    const { cell, terms } = steps[player.at];
    paint(cells.get(cell), array, soFar(array.how.naive[cell - array.offset], terms));
  }
  look();
  if (player.at === steps.length) {
    const sums = array.how.naive.filter((node) => Math.fround(soFar(node, termsOf(node).length)) === Math.fround(nodeValue(node))).length;
    pause();
    report(array, `All ${grouped(steps.length)} steps: ${sums === array.values.length ? "every value is the kernel's, to the bit ✓" : "the sums differ"}`);
  }
}

// Show the last step: which cells met, and the sum up to there.
function look() {
  const { array, steps } = player;
  const { cell, terms } = steps[player.at - 1];
  const node = array.how.naive[cell - array.offset];
  const all = termsOf(node);
  for (const element of document.querySelectorAll(".cell:is(.sel,.from,.via,.to)")) element.classList.remove(...MARKS);
  for (const term of all) for (const source of madeOf(term)) mark(source, "via");
  for (const source of madeOf(all[terms - 1])) mark(source, "from");
  mark(cell, "sel");
  state.cell = cell;
  const sum = soFar(node, terms);
  const told = all.length > 1 ? sumTable(node, terms) : explain(node);
  document.getElementById("panel").replaceChildren(
    make("h2", {}, nameOf(cell)),
    make("p", { className: "index step" }, `step ${grouped(player.at)} of ${grouped(steps.length)}`),
    make("p", { className: "value", dataset: { value: String(sum) } }, text(shortest(Math.fround(sum)))),
    ...told,
  );
  const rows = document.querySelector("#panel .terms");
  if (rows) rows.scrollTop = rows.scrollHeight;
  peek();
  report(array, `${grouped(player.at)} of ${grouped(steps.length)}`);
}

function pause() {
  clearInterval(player.timer);
  player.timer = 0;
  for (const [button] of player.buttons.values()) Object.assign(button, { textContent: "▶", ariaLabel: "Play" });
}

function play(array) {
  if (player.timer && player.array === array) return pause();
  pause();
  load(array);
  if (player.at === player.steps.length) { finish(); load(array); }
  begin(array);
  if (still.matches) { // no motion by itself: each press ends the sum that is growing
    const { cell } = player.steps[player.at];
    let count = 1;
    while (player.steps[player.at + count]?.cell === cell) count++;
    return advance(count);
  }
  Object.assign(player.buttons.get(array)[0], { textContent: "❚❚", ariaLabel: "Pause" });
  let [owed, last] = [0, performance.now()];
  player.timer = setInterval(() => {
    const now = performance.now();
    owed += ((now - last) / 1000) * RATES[player.rate];
    last = now;
    if (owed >= 1) advance(Math.floor(owed));
    owed %= 1;
  }, 33);
}

function step(array) {
  pause();
  load(array);
  if (player.at < player.steps.length) { begin(array); advance(1); }
}

// Go on to the next step of the cell that the run is at, or is about to begin with.
function stepHere(array) {
  pause();
  load(array);
  const here = (arrayOf(player.first) === array ? player.steps[player.at] : player.steps[player.at - 1] ?? player.steps[0]).cell;
  const next = player.steps.findIndex(({ cell }, i) => i >= player.at && cell === here);
  if (next >= 0) { begin(array); advance(next - player.at + 1); }
}

function begin(array) {
  state.held = true; // so that the mouse does not take the panel away
  player.first = -1;
  choose("naive");
  uncover(player.buttons.get(array)[0]);
}

function controls(array) {
  const button = (label, name, onclick) => make("button", { type: "button", ariaLabel: name, title: name, onclick }, label);
  const speed = make("input", { type: "range", min: "0", max: String(RATES.length - 1), value: String(player.rate), ariaLabel: "Speed", title: "Speed (+ and −)" });
  speed.addEventListener("input", () => setRate(Number(speed.value)));
  const status = make("output", { className: "status" });
  const parts = [button("▶", "Play", () => play(array)), button("+1", "Step", () => step(array)), button("↻", "Next step of this cell", () => stepHere(array)), button("■", "Stop", () => { finish(); release(); show(array.offset); }), speed, status];
  player.buttons.set(array, parts);
  return make("div", { className: "player", role: "group", ariaLabel: `${array.name}, step by step`, dataset: { array: array.name } }, parts);
}

function setRate(rate) {
  player.rate = Math.min(RATES.length - 1, Math.max(0, rate));
  for (const parts of player.buttons.values()) parts[4].value = String(player.rate);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, summary")) return;
  const chosen = arrayOf(player.first);
  const array = player.array ?? (player.buttons.has(chosen) ? chosen : player.buttons.keys().next().value);
  const action = { p: () => play(array), n: () => step(array), c: () => stepHere(array), "+": () => setRate(player.rate + 1), "-": () => setRate(player.rate - 1) }[event.key];
  if (action && array) action();
}

// --- on a narrow page: a small view of every plane that has a lit cell, since most of them are off the screen --------------

function peek() {
  const box = document.getElementById("peek");
  const planes = new Map(); // array -> the first cells of its planes
  if (narrow.matches) {
    for (const element of document.querySelectorAll(".cell[data-cell]:is(.sel,.from,.via,.to)")) {
      const cell = Number(element.dataset.cell);
      const array = arrayOf(cell);
      const [rows, columns] = planeOf(array);
      if (!planes.has(array)) planes.set(array, new Set());
      planes.get(array).add(cell - ((cell - array.offset) % (rows * columns)));
    }
  }
  const drawings = [...planes].map(([array, firsts]) => ({ array, firsts: [...firsts], canvas: make("canvas") }));
  box.replaceChildren(...drawings.map(({ array, canvas }) => make("figure", {}, make("figcaption", {}, array.name), canvas)));
  for (const height of [80, 64, 56, 48, 40, 32, 24, 16]) { // of a plane, in pixels: the largest at which all of them fit
    for (const { array, firsts, canvas } of drawings) {
      const [rows, columns] = planeOf(array);
      const size = Math.min(12, Math.max(2, Math.floor(height / rows)));
      Object.assign(canvas, { width: firsts.length * (columns * size + size) - size, height: rows * size });
    }
    if (box.scrollHeight <= box.clientHeight && box.scrollWidth <= box.clientWidth) break;
  }
  for (const drawing of drawings) miniature(drawing);
}

function miniature({ array, firsts, canvas }) {
  const [rows, columns] = planeOf(array);
  const size = canvas.height / rows;
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const frames = { sel: "--ink", from: "--from", to: "--to", via: "--from" };
  firsts.forEach((first, plane) => {
    for (let flat = 0; flat < rows * columns; flat++) {
      const element = cells.get(first + flat);
      const [x, y] = [(plane * (columns + 1) + (flat % columns)) * size, Math.floor(flat / columns) * size];
      pen.fillStyle = getComputedStyle(element).backgroundColor;
      pen.fillRect(x, y, size, size);
      const lit = Object.keys(frames).find((name) => element.classList.contains(name));
      if (lit === undefined) continue;
      pen.strokeStyle = style.getPropertyValue(frames[lit]);
      pen.globalAlpha = lit === "via" ? 0.65 : 1;
      pen.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
      pen.globalAlpha = 1;
    }
  });
}

// --- a page of one's own: a form that writes the command -----------------------------------------------------------------

function yours() {
  const box = document.getElementById("yours");
  const wanted = new Map();
  const line = make("code", { id: "command" });
  const quoted = (value) => (/^[\w.,/:+~-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`);
  const write = () => { line.textContent = ["python -m alexnet_from_scratch.xray", trace.operation, ...[...wanted].map(([flag, value]) => (value === true ? flag : `${flag} ${flag === "--crop" ? value.trim().split(/\s+/).map(quoted).join(" ") : quoted(value)}`))].join(" "); };
  const field = ({ flag, value, default: standard, help }) => {
    const kind = typeof standard === "boolean" ? "checkbox" : typeof standard === "number" ? "number" : "text";
    const input = make("input", { type: kind, value: String(value), checked: value === true, step: "any" });
    const change = () => {
      const chosen = kind === "checkbox" ? input.checked : input.value;
      if (chosen === standard || chosen === String(standard) || chosen === "") wanted.delete(flag);
      else wanted.set(flag, chosen);
      write();
    };
    input.addEventListener("input", change);
    change();
    return make("label", {}, make("b", {}, flag), input, make("small", {}, help));
  };
  const copy = make("button", { type: "button", onclick: () => navigator.clipboard?.writeText(line.textContent).then(() => { copy.textContent = "copied"; }) }, "copy");
  box.append(make("div", { className: "fields" }, trace.command.map(field)), make("p", { className: "command" }, line, copy));
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
  const set = (name) => {
    root.dataset.theme = name;
    if (state.cell >= 0) peek();
  };
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
    const input = make("input", { type: "radio", name: "rung", value: rung, onchange: () => { finish(); choose(rung); if (state.cell >= 0) show(state.cell); } });
    box.append(make("label", {}, input, rung));
  }
}

function choose(rung) {
  if (state.rung !== rung || state.uses.size === 0) {
    state.rung = rung;
    findUses();
  }
  for (const input of document.querySelectorAll("#rungs input")) input.checked = input.value === rung;
  for (const folded of document.querySelectorAll("[data-rung]")) folded.hidden = folded.dataset.rung !== rung;
}

// --- the network: pictures in place of cells ---------------------------------------------------------------------------

// A long name may break after its bracket, so that no number breaks.
function afterBracket(text) {
  return text.split(/(?<=\()/).flatMap((part, i) => (i ? [make("wbr"), part] : [part]));
}

function stop({ name, module, page, shape, forward, backward }) {
  const picture = (side, title) => make("span", {}, make("small", {}, title), make("img", { src: side.picture, alt: `${title} of ${name}` }));
  const element = make("button", { type: "button", className: "stop" },
    make("span", {}, make("b", {}, name), make("small", {}, afterBracket(module)), make("small", {}, shape.join(" × "))),
    picture(forward, "activations"), picture(backward, "gradient"));
  element.onclick = () => {
    for (const other of document.querySelectorAll(".stop.sel")) other.classList.remove("sel");
    element.classList.add("sel");
    const side = (title, { picture: source, numbers, torch }) => [
      make("h3", {}, title), make("img", { src: source, alt: title }),
      make("table", { className: "values" }, make("tbody", {}, Object.entries(numbers).map(([key, value]) => make("tr", {}, make("td", {}, key), make("td", { className: "num" }, typeset(value)))),
        make("tr", {}, make("td", {}, "largest difference from torch, as a share of the largest |x|"), make("td", { className: "num torch" }, typeset(torch))))),
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
  document.getElementById("stage").append(...trace.sections.map(section));
  yours();
  if (trace.strip.length) {
    const stops = trace.strip.map(stop);
    const rows = trace.answer.map(({ name, probability, torch }) => make("tr", {}, make("td", {}, name), make("td", { className: "share", ariaHidden: "true" }, make("i", { style: { "--t": `${probability * 100}%` } })), make("td", { className: "num probability", title: `torch: ${torch}` }, `${(probability * 100).toFixed(2)} %`)));
    const answer = make("section", { className: "answer" }, make("h2", {}, "The answer"), make("table", {}, make("tbody", {}, rows)));
    document.getElementById("stage").replaceChildren(make("div", { className: "strip" }, stops, answer));
    document.getElementById("sources").remove();
    stops[0].click();
    document.getElementById("panel").classList.remove("open");
    return;
  }
  rungs();
  choose(state.rung);
  narrow.addEventListener("change", peek);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { finish(); release(); }
    else keys(event);
  });
  const asked = cellNamed(decodeURIComponent(location.hash.slice(1)));
  if (asked >= 0) hold(asked);
  else {
    const made = arrays.find((array) => array.torch !== undefined);
    const [rows, columns] = planeOf(made);
    const planes = made.values.length / (rows * columns);
    show(made.offset + (Math.floor(planes / 2) * rows + Math.floor(rows / 2)) * columns + Math.floor(columns / 2));
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
    else uncover();
  }
}

start();
