// Tables: a heading sorts its column, again turns it round; rows that lack a value stay last.
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const turned = head.ariaSort === (column ? "descending" : "ascending");
    const ascending = column ? turned : !turned;
    const value = (row) => {
      const text = row.cells[column].dataset.value;
      return text === undefined ? null : Number(text);
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return ascending ? x - y : y - x;
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }));
});

// Plots: which lines, against which speed, and what a mark says.
const lines = [...document.querySelectorAll("[data-toggles]")];
const drawnLines = [...document.querySelectorAll(".plot [data-series^=s]")];

function isShown(button) { return button.getAttribute("aria-pressed") === "true"; }

function showLine(button, shown) {
  button.setAttribute("aria-pressed", shown);
  drawnLines.filter((drawn) => drawn.dataset.series === button.dataset.toggles)
    .forEach((drawn) => drawn.classList.toggle("off", !shown));
}

lines.forEach((button) => {
  const dim = (others) => drawnLines.forEach((drawn) =>
    drawn.classList.toggle("dim", others && drawn.dataset.series !== button.dataset.toggles));
  button.addEventListener("click", () => showLine(button, !isShown(button)));
  ["pointerenter", "focus"].forEach((kind) =>
    button.addEventListener(kind, () => dim(isShown(button))));
  ["pointerleave", "blur"].forEach((kind) => button.addEventListener(kind, () => dim(false)));
});
byId("all-lines")?.addEventListener("click", () => {
  const shown = !lines.every(isShown);
  lines.forEach((button) => showLine(button, shown));
});

document.querySelectorAll("input[name=speed]").forEach((radio) =>
  radio.addEventListener("change", () =>
    document.querySelectorAll("[data-speed]").forEach((drawn) => {
      drawn.hidden = drawn.dataset.speed !== radio.value;
    })));

function tell(point) {
  const tip = byId("tip");
  tip.textContent = point.getAttribute("aria-label");
  tip.hidden = false;
  const [mark, box] = [point.getBoundingClientRect(), tip.getBoundingClientRect()];
  const left = mark.left + mark.width / 2 - box.width / 2;
  const above = mark.top - box.height - 8;
  tip.style.left = `${Math.max(8, Math.min(innerWidth - box.width - 8, left))}px`;
  tip.style.top = `${above > 0 ? above : mark.bottom + 8}px`;
}

document.querySelectorAll(".plot .point").forEach((point) => {
  ["pointerenter", "focus", "click"].forEach((kind) => point.addEventListener(kind, () => tell(point)));
  ["pointerleave", "blur"].forEach((kind) =>
    point.addEventListener(kind, () => { byId("tip").hidden = true; }));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") byId("tip").hidden = true;
});

// Examples: a task, one of its examples, a decoder; packed by task and decoder, unpacked when asked for.
function browseExamples(index) {
  const [task, filter, example] = ["task", "filter", "example"].map(byId);
  const [previous, next] = ["previous-example", "next-example"].map(byId);
  const player = makePlayer(byId("browser"));
  const unpacked = new Map();
  const filters = {
    all: () => true,
    "grades differ": (grades) => new Set(grades).size > 1,
    "some wrong": (grades) => grades.includes(false),
    "all right": (grades) => grades.every((grade) => grade === true),
  };
  let decoder = null;
  let asked = 0;

  async function unpack(id) {
    if (!unpacked.has(id)) {
      const bytes = Uint8Array.from(atob(byId(id).textContent), (sign) => sign.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      unpacked.set(id, new Response(stream).json());
    }
    return unpacked.get(id);
  }

  function chosen() { return index.tasks[Number(task.value)]; }

  function grades(place) { return chosen().correct.map((row) => row[place]); }

  function sign(grade) { return { true: "✓", false: "✗", null: "" }[grade]; }

  function options(select, names) {
    select.replaceChildren(...names.map(([value, name]) => new Option(name, value)));
  }

  function drawGrade(found) {
    const place = byId("grade");
    const grade = found.grade;
    place.className = grade ? (grade.correct ? "right" : "wrong") : "";
    const lines = [];
    if (grade) {
      const verdict = element("p", "", "");
      verdict.append(element("span", "verdict", grade.correct ? "✓ right" : "✗ wrong"), `: ${grade.reason}`);
      const read = grade.extracted === null ? "no answer could be read" : `answer read: ${grade.extracted}`;
      lines.push(verdict, element("p", "note", read));
    }
    lines.push(element("p", "note", found.ended));
    place.replaceChildren(...lines);
  }

  function drawDecoders(place) {
    byId("decoders").replaceChildren(...chosen().decoders.map((name, number) => {
      const grade = chosen().correct[number][place];
      const button = element("button", "", `${sign(grade)} ${name}`.trim());
      button.type = "button";
      button.setAttribute("aria-pressed", name === decoder);
      if (grade !== null) button.setAttribute("aria-label", `${name}, ${grade ? "right" : "wrong"}`);
      button.addEventListener("click", () => {
        decoder = name;
        show().then(() => byId("decoders").children[number].focus());
      });
      return button;
    }));
  }

  async function show() {
    const mine = (asked += 1);
    const place = Number(example.value);
    const number = chosen().decoders.indexOf(decoder);
    const found = (await unpack(`packed-${task.value}-${number}`))[place];
    if (mine !== asked) return; // something else was chosen meanwhile
    drawDecoders(place);
    drawGrade(found);
    byId("policy").textContent = index.policies[decoder];
    pairs(byId("spent"), found.spent);
    player.load(found);
    previous.disabled = example.selectedIndex === 0;
    next.disabled = example.selectedIndex === example.length - 1;
    byId("browser").dataset.shown = `${chosen().name}/${decoder}/${chosen().ids[place]}`;
  }

  function listExamples() {
    const wanted = filters[filter.value];
    const places = chosen().ids.map((_, place) => place).filter((place) => wanted(grades(place)));
    options(example, places.map((place) => {
      const right = grades(place).filter((grade) => grade === true).length;
      const graded = grades(place).filter((grade) => grade !== null).length;
      const told = graded ? ` · ${right} of ${graded} right` : "";
      return [place, `${chosen().ids[place]}${told}`];
    }));
    return show();
  }

  function listTask() {
    const all = chosen().ids.map((_, place) => grades(place));
    const useful = Object.entries(filters).filter(([name, wanted]) => name === "all" || all.some(wanted));
    const graded = all.some((row) => row.some((grade) => grade !== null));
    options(filter, (graded ? useful : useful.slice(0, 1)).map(([name]) => [name, name]));
    filter.disabled = filter.length === 1;
    if (!chosen().decoders.includes(decoder)) decoder = chosen().decoders[0];
    byId("told").textContent = `In this page: ${chosen().told}.`;
    return listExamples();
  }

  function by(steps) {
    example.selectedIndex += steps;
    return show();
  }

  options(task, index.tasks.map((one, number) => [number, one.name.replaceAll("_", " ")]));
  task.addEventListener("change", listTask);
  filter.addEventListener("change", listExamples);
  example.addEventListener("change", show);
  previous.addEventListener("click", () => by(-1));
  next.addEventListener("click", () => by(1));
  return listTask();
}

if (byId("index")) {
  const index = JSON.parse(byId("index").textContent);
  if (!("DecompressionStream" in window) || !index.tasks.some((task) => task.ids.length)) {
    byId("browser").hidden = true;
    byId("unable").hidden = false;
    byId("unable").textContent = "DecompressionStream" in window
      ? "No example fits into this page: they are in the run's generations folder."
      : "This browser cannot unpack the examples (it has no DecompressionStream): use a newer one.";
  } else {
    browseExamples(index);
  }
}
