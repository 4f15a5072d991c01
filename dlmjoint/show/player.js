"use strict";
function byId(id) { return document.getElementById(id); }

function element(name, classes, text) {
  const made = document.createElement(name);
  made.className = classes;
  made.textContent = text;
  return made;
}

function pairs(list, rows) {
  list.replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div");
    row.append(element("dt", "", name), element("dd", "", value));
    return row;
  }));
}

// Shows one decoding step by step, in the elements of player.html; keys count inside `keys`.
function makePlayer(keys) {
  const [slider, play, back, next] = ["slider", "play", "back", "next"].map(byId);
  let data = null;
  let drawn = [];
  let last = 0;
  let timer = null;

  function percent(prob) {
    return prob >= 0.9995 ? "100 %" : (100 * prob).toPrecision(3) + " %";
  }

  // A piece of several tokens looks like its newest one and tells about all of them.
  function tokensOf(span) { return data.tokens.slice(span.first, span.stop); }

  function newest(span) {
    return tokensOf(span).reduce((a, b) => (b.step > a.step ? b : a));
  }

  // 0 for the first step, 1 for the last.
  function when(step) { return (step - 1) / Math.max(1, last - 1); }

  function about(token, column) {
    const place = `column ${column}, id ${token.id}`;
    if (token.writer === "anchor") return `${data.writers.anchor}, ${place}`;
    return `step ${token.step}, ${data.writers[token.writer]}, ` +
      `probability ${percent(token.prob)}, ${place}`;
  }

  function drawSpan(span) {
    if (span.kind === "mask") return element("span", "mask", span.text);
    const shown = newest(span);
    const made = element("span", `token ${span.kind} ${shown.writer}`, span.text);
    if (/^[ \t]*[\n\r]/.test(span.text)) made.classList.add("break");
    made.style.setProperty("--when", when(shown.step));
    made.title = tokensOf(span).map((token, i) => about(token, span.first + i)).join("\n");
    return made;
  }

  function listWritten(step) {
    const visible = data.spans.filter((span) => span.born <= step && step < span.gone);
    const items = data.steps[step].columns.map((column) => {
      const token = data.tokens[column];
      const span = visible.find((one) => one.first <= column && column < one.stop);
      const item = document.createElement("li");
      const words = `${data.writers[token.writer]}, ${percent(token.prob)}, column ${column}`;
      const text = element("code", `token ${token.writer}`, JSON.stringify(span.text));
      text.style.setProperty("--when", when(step));
      item.append(text, " ", element("small", "", words));
      return item;
    });
    items.push(...(data.steps[step].refused ?? []).map((draft) => {
      const item = document.createElement("li");
      item.append(element("code", "refused", JSON.stringify(draft.text)), " ",
        element("small", "", `draft taken back, column ${draft.column}`));
      return item;
    }));
    const empty = step === 0 ? "nothing: decoding has not begun" : "nothing";
    if (!items.length) items.push(element("li", "note", empty));
    byId("wrote").replaceChildren(...items);
  }

  function show(step) {
    data.spans.forEach((span, i) => {
      drawn[i].hidden = step < span.born || step >= span.gone;
      drawn[i].classList.toggle("new", step > 0 && span.kind !== "mask" && newest(span).step === step);
    });
    back.disabled = step === 0;
    next.disabled = step === last;
    byId("where").textContent = `step ${step} of ${last}`;
    slider.setAttribute("aria-valuetext", `step ${step} of ${last}`);
    pairs(byId("cost"), data.steps[step].cost);
    listWritten(step);
  }

  // Buttons, keys and the player all move the slider, and only the slider shows.
  function move(step) {
    slider.value = Math.min(last, step);
    slider.dispatchEvent(new Event("input"));
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  function start() {
    if (Number(slider.value) === last) move(0);
    play.textContent = "Pause";
    const pause = Math.min(700, Math.max(60, 9000 / last));
    timer = setInterval(() => {
      move(Number(slider.value) + 1);
      if (Number(slider.value) === last) stop();
    }, pause);
  }

  function byKey(event) {
    const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (typing || event.altKey || event.ctrlKey || event.metaKey) return;
    const now = Number(slider.value);
    const goal = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    stop();
    move(goal);
  }

  // Takes a decoding and shows its end.
  function load(decoding) {
    stop();
    data = decoding;
    last = data.steps.length - 1;
    slider.max = last;
    drawn = data.spans.map(drawSpan);
    byId("response").replaceChildren(...drawn);
    byId("prompt").replaceChildren(
      ...data.prompt.map((piece) => element("span", piece.kind, piece.text)));
    byId("writers").replaceChildren(...Object.entries(data.writers).flatMap(([writer, name]) =>
      [element("span", `token swatch ${writer}`, name), " "]));
    move(last);
  }

  slider.addEventListener("input", () => show(Number(slider.value)));
  ["pointerdown", "keydown"].forEach((moved) => slider.addEventListener(moved, stop));
  back.addEventListener("click", () => { stop(); move(Number(slider.value) - 1); });
  next.addEventListener("click", () => { stop(); move(Number(slider.value) + 1); });
  play.addEventListener("click", () => (timer === null ? start() : stop()));
  keys.addEventListener("keydown", byKey);
  document.querySelectorAll("input[name=colour]").forEach((radio) =>
    radio.addEventListener("change", () => {
      const byTime = radio.value === "time";
      document.body.classList.toggle("by-time", byTime);
      byId("writers").hidden = byTime;
      byId("times").hidden = !byTime;
    }));
  return { load, move };
}
