"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (name, kind, text) => {
    const element = document.createElement(name);
    if (kind) element.className = kind;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const shape = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const seconds = (value) => value.toFixed(2) + " s";

  // The theme is the system's until the button sets one.
  const root = document.documentElement;
  const remembered = (() => { try { return localStorage.getItem("emovox-theme"); } catch { return null; } })();
  if (remembered) root.dataset.theme = remembered;
  $("theme").addEventListener("click", () => {
    const dark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("emovox-theme", root.dataset.theme); } catch { /* not available for files */ }
  });

  // Mark the link of the section in view.
  const links = [...document.querySelectorAll(".links a")];
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links) link.classList.toggle("here", link.hash === "#" + entry.target.id);
    }
  }, { rootMargin: "-25% 0px -70% 0px" });
  document.querySelectorAll("section").forEach((section) => seen.observe(section));

  if (!$("browser")) return;
  const data = JSON.parse($("data").textContent);
  const { emotions, step, levels, students, tracks } = data;
  const N = emotions.length, PAGE = 20;  // tracks of a page of the list
  const softmax = (row) => {
    const high = Math.max(...row), powers = row.map((value) => Math.exp(value - high));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  };

  const unpack = (track) => {
    if (track.rows) return track;
    const bytes = Uint8Array.from(atob(track.logits), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    track.rows = [];
    for (let i = 0; i < bytes.length / 2; i += N) {
      track.rows.push(emotions.map((_, k) => view.getInt16(2 * (i + k), true) / levels));
    }
    track.index = track.index || track.rows.map((_, i) => i);
    track.top = track.rows.map((row) => row.indexOf(Math.max(...row)));
    track.probabilities = track.rows.map(softmax);
    const last = track.index.length ? track.index[track.index.length - 1] : 0;
    // The axis has the dataset's duration, unless frames lie beyond it or are not in the page.
    track.whole = track.rows.length === track.frames;
    track.end = (last + 1) * step;
    if (track.whole && track.seconds === null) track.end = Math.max(track.end, track.expected * step);
    else if (track.whole && track.seconds > last * step) track.end = track.seconds;
    track.length = track.seconds === null ? seconds(track.expected * step) + " of grid" : seconds(track.seconds);
    return track;
  };

  // Return the dominant emotions as a CSS gradient; gaps in the grid are transparent.
  const strip = (track) => {
    const stops = [];
    track.index.forEach((index, i) => {
      const [from, to] = [index, index + 1].map((x) => Math.min(100 * x * step / track.end, 100).toFixed(2) + "%");
      const last = stops[stops.length - 1];
      if (last && last.k === track.top[i] && last.to === from) last.to = to;
      else stops.push({ k: track.top[i], from, to });
    });
    let at = "0%";
    const parts = [];
    for (const { k, from, to } of stops) {
      if (at !== from) parts.push(`transparent ${at} ${from}`);
      parts.push(`var(--e${k}) ${from} ${to}`);
      at = to;
    }
    if (parts.length && at !== "100.00%") parts.push(`transparent ${at} 100%`);
    return `linear-gradient(90deg, ${parts.join(", ") || "transparent 0 100%"})`;
  };

  // List and filters.
  const rows = tracks.map((track, number) => {
    unpack(track);
    const item = make("li"), button = make("button");
    button.type = "button";
    const bar = make("span", "strip");
    bar.style.backgroundImage = `${strip(track)}, var(--gap)`;
    const under = make("span", "under"), label = make("span");
    label.append(make("span", "dot b" + track.label), " " + (emotions[track.label] || "?"));
    under.append(label, make("span", "", track.split), make("span", "", track.length));
    button.append(make("span", "id", track.id), bar, under);
    button.addEventListener("click", () => open(number, true));
    item.append(button);
    return { item, button, text: track.id.toLowerCase() };
  });
  const people = [...new Set(tracks.map((track) => track.who))].sort();
  $("identity").append(...people.map((who) => { const o = make("option", "", who); o.value = who; return o; }));
  let wanted = -1, visible = [], current = -1, page = 0;
  const showPage = (number) => {
    const pages = Math.max(Math.ceil(visible.length / PAGE), 1);
    page = clamp(number, 0, pages - 1);
    const shown = visible.slice(page * PAGE, (page + 1) * PAGE);
    $("list").replaceChildren(...shown.map((i) => rows[i].item));
    $("pages").hidden = pages < 2;
    $("page").textContent = `${page * PAGE + 1} to ${page * PAGE + shown.length} of ${visible.length}`;
    $("previous").disabled = page === 0;
    $("next").disabled = page === pages - 1;
  };
  const turn = (by) => {
    showPage(page + by);
    const [button, other] = by > 0 ? [$("next"), $("previous")] : [$("previous"), $("next")];
    if (button.disabled) other.focus({ preventScroll: true });
    $("list").scrollTop = 0;
    if ($("count").getBoundingClientRect().top < 0) $("count").scrollIntoView({ behavior: "instant" });
  };
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  const chips = emotions.map((emotion, k) => {
    const chip = make("button");
    chip.type = "button";
    chip.setAttribute("aria-pressed", "false");
    chip.append(make("span", "dot b" + k), emotion, make("span", "n"));
    chip.addEventListener("click", () => { wanted = wanted === k ? -1 : k; filter(); });
    return chip;
  });
  $("chips").append(...chips);

  const filter = () => {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (track, i) => ($("split").value === "" || track.split === $("split").value)
      && ($("identity").value === "" || track.who === $("identity").value)
      && words.every((word) => rows[i].text.includes(word));
    const counts = emotions.map(() => 0);
    visible = [];
    tracks.forEach((track, i) => {
      const fit = fits(track, i);
      if (fit && track.label >= 0) counts[track.label] += 1;
      const shown = fit && (wanted < 0 || track.label === wanted);
      if (shown) visible.push(i);
    });
    chips.forEach((chip, k) => {
      chip.setAttribute("aria-pressed", String(wanted === k));
      chip.disabled = !counts[k] && wanted !== k;
      chip.lastChild.textContent = counts[k];
    });
    $("count").textContent = `${visible.length} of ${tracks.length} tracks`;
    showPage(Math.max(Math.floor(visible.indexOf(current) / PAGE), 0));
    $("nothing").hidden = visible.length > 0;
    $("list").hidden = !visible.length;
  };
  $("search").addEventListener("input", filter);
  $("split").addEventListener("change", filter);
  $("identity").addEventListener("change", filter);
  $("reset").addEventListener("click", () => {
    $("search").value = $("split").value = $("identity").value = "";
    wanted = -1;
    filter();
  });

  // The scale of the plot, and the student whose scores are drawn over the teacher's.
  let scale = "logits", student = "";
  const valuesOf = (track) => (scale === "logits" ? track.rows : track.probabilities);
  const tracesOf = (track) => Object.keys(students).filter((name) => Object.hasOwn(students[name], track.id));
  const windowsOf = (track) => {
    if (scale === "logits" || !tracesOf(track).includes(student)) return [];
    return students[student][track.id].map(([start, end, ...scores]) => {
      const known = scores.filter((score) => score !== null);
      const sum = known.reduce((a, b) => a + b, 0);
      // predict --logits gives no probabilities.
      const shares = known.some((score) => score < 0) || Math.abs(sum - 1) > 0.01 ? softmax(known) : [...known];
      const values = scores.map((score) => (score === null ? null : shares.shift()));
      return { start, end: Math.min(end, track.end), values, top: known.length ? values.indexOf(Math.max(...values.filter((value) => value !== null))) : -1 };
    }).filter((each) => each.start < track.end).sort((a, b) => a.start - b.start);
  };
  const middle = (each) => (each.start + each.end) / 2;
  const choose = (name) => {
    scale = name;
    $("as-logits").setAttribute("aria-pressed", String(name === "logits"));
    $("as-probabilities").setAttribute("aria-pressed", String(name !== "logits"));
    if (current < 0) return;
    draw();
    numbers(tracks[current]);
    show(now());
  };
  const offer = (track) => {
    const names = tracesOf(track);
    $("trace-label").hidden = !names.length;
    $("trace").replaceChildren(...["none", ...names].map((name, i) => {
      const option = make("option", "", name);
      option.value = i ? name : "";
      return option;
    }));
    if (student && !names.includes(student)) student = "";
    $("trace").value = student;
  };
  $("as-logits").addEventListener("click", () => choose("logits"));
  $("as-probabilities").addEventListener("click", () => choose("probabilities"));
  $("trace").addEventListener("change", () => { student = $("trace").value; choose(student ? "probabilities" : scale); });

  // Explain label, majority and strongest where they are different emotions.
  const terms = (track) => {
    const label = emotions[track.label] || "?", majority = emotions[track.majority] || "?";
    const peak = (k) => track.rows.reduce((best, row, i) => (row[k] > track.rows[best][k] ? i : best), 0);
    const high = emotions.map((_, k) => track.rows[peak(k)][k]), top = high.indexOf(Math.max(...high));
    const lines = [];
    if (track.whole && top !== track.label) {
      lines.push(`Label ${label}: of the whole track, as stated in the dataset.`);
      lines.push(`Strongest ${emotions[top]}: has the highest logit of all frames, ${high[top].toFixed(2)} at ${seconds(track.index[peak(top)] * step)}.`);
    } else if (track.label !== track.majority) {
      lines.push(`Label ${label}: has the highest logit of all frames${track.whole ? `, ${high[top].toFixed(2)}` : ""}.`);
    }
    if (track.label !== track.majority) {
      const num = track.top.filter((k) => k === track.majority).length;
      lines.push(`Majority ${majority}: dominant in the most frames${track.whole ? `, ${num} of ${track.frames}` : ""}.`);
    }
    for (const reason of track.why) {
      const [, name] = reason.match(/^strongest (.+)$/) || [];
      const k = emotions.indexOf(name);
      if (k < 0 || k === track.label) continue;
      const value = track.whole ? `, ${high[k].toFixed(2)}` : "", higher = top === track.label && track.whole;
      lines.push(`Strongest ${name}: the highest logit of ${name} in all tracks${value}. The label is ${label}${higher ? `, whose logit reaches ${high[top].toFixed(2)}` : ""}.`);
    }
    $("terms").replaceChildren(...lines.map((line) => make("li", "", line)));
  };

  // The open track: sound, clock and plot.
  const sound = new Audio();
  sound.addEventListener("loadedmetadata", () => {
    const track = tracks[current];
    if (track && sound.duration < track.end - 1) say(`${$("silent").textContent} The sound ends at ${seconds(sound.duration)}.`.trim());
  });
  let heard = false, clock = 0, started = 0, playing = false, plot = null;
  const now = () => {
    if (heard) return sound.currentTime;
    return playing ? clock + (performance.now() - started) / 1000 : clock;
  };
  const seek = (time) => {
    const track = tracks[current];
    clock = clamp(time, 0, track.end);
    started = performance.now();
    if (heard) sound.currentTime = Math.max(0, Math.min(clock, (sound.duration || clock + 1) - 0.01));
    show(clock);
  };
  const setPlaying = (on) => {
    playing = on;
    $("icon").setAttribute("d", on ? "M3 1h3.5v14H3zM9.5 1H13v14H9.5z" : "M4 1.5 14 8 4 14.5z");
    $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  };
  const pause = () => {
    if (!playing) return;
    clock = now();
    sound.pause();
    setPlaying(false);
  };
  const play = () => {
    if (current < 0) return;
    if (now() >= tracks[current].end - 0.02 || (heard && sound.ended)) seek(0);
    started = performance.now();
    setPlaying(true);
    if (heard) sound.play().catch(() => { heard = false; started = performance.now(); say("This browser cannot play the sound."); });
    requestAnimationFrame(tick);
  };
  const tick = () => {
    if (!playing) return;
    const time = now();
    show(time);
    if (time >= tracks[current].end || (heard && sound.ended)) {
      pause();
      show(heard ? sound.currentTime : tracks[current].end);
    } else requestAnimationFrame(tick);
  };
  const say = (text) => { $("silent").textContent = text; $("silent").hidden = !text; };

  const rowAt = (track, time) => {
    const wantedIndex = Math.floor(time / step + 1e-6);
    let low = 0, high = track.index.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (track.index[middle] <= wantedIndex) low = middle; else high = middle - 1;
    }
    return low;
  };
  const show = (time) => {
    const track = tracks[current];
    if (!track || !plot) return;
    const t = clamp(time, 0, track.end), i = rowAt(track, Math.min(t, track.end - 1e-6));
    plot.cursor.setAttribute("transform", `translate(${plot.x(t).toFixed(1)} 0)`);
    $("scrub").value = t;
    $("scrub").setAttribute("aria-valuetext", seconds(t));
    $("time").textContent = `${t.toFixed(2)} / ${seconds(track.end)}`;
    // At the end of the axis the last frame counts, unless a gap follows it.
    const here = Math.floor(Math.min(t, track.end - 1e-6) / step + 1e-6) === track.index[i];
    const values = valuesOf(track)[i];
    const heardHere = plot.windows.filter((each) => each.start <= t && t <= each.end)
      .sort((a, b) => Math.abs(middle(a) - t) - Math.abs(middle(b) - t))[0];
    [...$("values").children].forEach((item, k) => {
      const score = heardHere ? heardHere.values[k] : null;
      item.querySelector(".v").textContent = here && values ? values[k].toFixed(2) : "-";
      item.querySelector(".u").textContent = score === null ? (plot.windows.length ? "-" : "") : score.toFixed(2);
      item.classList.toggle("most", here && track.top[i] === k);
    });
    for (const button of $("film").children) button.classList.toggle("on", +button.dataset.index === track.index[i]);
  };

  const draw = () => {
    const track = tracks[current], values = valuesOf(track), windows = windowsOf(track);
    const width = Math.max($("plot").clientWidth, 240), height = windows.length ? 270 : 250;
    const left = 34, right = 8, top = 8, bottom = 196, stripTop = 206, stripHeight = 16;
    let low = 0, high = 1;
    if (scale === "logits") for (const row of track.rows) for (const value of row) { low = Math.min(low, value); high = Math.max(high, value); }
    const span = 1.08 * (high - low);
    low -= 0.04 * span;
    high += 0.04 * span;
    const x = (t) => left + (width - left - right) * t / track.end;
    const y = (v) => bottom - (bottom - top) * (v - low) / span;
    const lengthOfTick = [0.2, 1, 2, 5, 10, 20, 50, 100].find((size) => span / size <= 6) || 200;
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    const most = emotions.map((e, k) => [track.top.filter((v) => v === k).length, e]).sort((a, b) => b[0] - a[0]);
    svg.setAttribute("aria-label", `${N} ${scale} over ${seconds(track.end)}; dominant: `
      + most.filter(([n]) => n).map(([n, e]) => `${e} in ${n} frames`).join(", ")
      + (windows.length ? `; the student hears: ${windows.filter((each) => each.top >= 0).map((each) => `${emotions[each.top]} at ${seconds(middle(each))}`).join(", ")}` : ""));
    const label = (text, tx, ty, anchor) => {
      const element = shape("text", { x: tx, y: ty, "text-anchor": anchor });
      element.textContent = text;
      svg.append(element);
    };
    for (let v = Math.ceil(low / lengthOfTick) * lengthOfTick; v <= high; v += lengthOfTick) {
      svg.append(shape("line", { x1: left, x2: width - right, y1: y(v), y2: y(v), class: v ? "grid" : "base" }));
      label(+v.toFixed(1), left - 6, y(v) + 4, "end");
    }
    const timeTick = [0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600].find((size) => track.end / size <= (width - 60) / 55) || 1800;
    for (let t = 0; t <= track.end + 1e-6; t += timeTick) label(t + (t ? "" : " s"), x(t), height - 8, t ? "middle" : "start");
    // A line stops at a gap: no face was seen there.
    emotions.forEach((_, k) => {
      let points = [];
      const flush = (kind = "") => {
        if (points.length) {
          const single = points.length === 1;  // its round ends are a dot
          if (single) points.push(points[0]);
          svg.append(shape("polyline", { points: points.map((p) => p.map((c) => c.toFixed(1)).join()).join(" "), class: `${kind}s${k}${single ? " single" : ""}`, "data-k": k }));
        }
        points = [];
      };
      track.index.forEach((index, i) => {
        if (i && index !== track.index[i - 1] + 1) flush();
        points.push([x(index * step), y(values[i][k])]);
      });
      flush();
      // The student's line passes through the middles of its windows, and stops in silence.
      windows.forEach((each, n) => {
        const value = each.values[k];
        if (value === null) return;
        const known = (other) => other && other.values[k] !== null;
        if (!known(windows[n - 1])) points.push([x(each.start), y(value)]);
        points.push([x(middle(each)), y(value)]);
        if (known(windows[n + 1])) return;
        points.push([x(each.end), y(value)]);
        flush("heard ");
      });
    });
    const block = (from, to, place, k) => {
      const rect = shape("rect", { x: x(from), y: place, width: Math.max(x(to) - x(from), 0.5), height: stripHeight, class: k < 0 ? "gap" : "e" + k });
      const title = shape("title", {});
      title.textContent = k < 0 ? "no face" : emotions[k];
      rect.append(title);
      svg.append(rect);
    };
    block(0, track.end, stripTop, -1);
    windows.forEach((each, n) => {
      if (each.top < 0) return;
      const from = n ? (middle(windows[n - 1]) + middle(each)) / 2 : each.start;
      const to = n + 1 < windows.length ? (middle(each) + middle(windows[n + 1])) / 2 : each.end;
      block(Math.max(from, each.start), Math.min(to, each.end), stripTop + stripHeight + 4, each.top);
    });
    let i = 0;
    while (i < track.index.length) {
      let j = i;
      while (j + 1 < track.index.length && track.top[j + 1] === track.top[i] && track.index[j + 1] === track.index[j] + 1) j += 1;
      block(track.index[i] * step, Math.min((track.index[j] + 1) * step, track.end), stripTop, track.top[i]);
      i = j + 1;
    }
    for (const [k, index] of track.peaks) {
      const row = track.index.indexOf(index);
      if (row >= 0) svg.append(shape("circle", { cx: x(index * step), cy: y(values[row][k]), r: 4, class: `peak s${k}` }));
    }
    const cursor = shape("g", { class: "cursor" });
    cursor.append(shape("line", { y1: top, y2: stripTop + stripHeight, class: "cursor" }));
    svg.append(cursor);
    $("plot").replaceChildren(svg);
    $("values").classList.toggle("two", windows.length > 0);
    plot = { x, cursor, left, right, width, windows };
    $("key").textContent = windows.length
      ? "Lines and upper strip: the teacher. Dotted lines and lower strip: the student, in its windows of the sound."
      : tracesOf(track).length ? "Choose a student to draw its probabilities over the teacher's." : "";
  };

  const film = (track, pictures) => {
    const peaks = new Map(track.peaks.map(([k, index, logit]) => [index, [k, logit]]));
    const indices = [...new Set([...peaks.keys(), ...Object.keys(pictures).map(Number)])].sort((a, b) => a - b);
    $("film").replaceChildren(...indices.map((index) => {
      const button = make("button"), body = pictures[index] ? button : make("span", "text");
      const [k, logit] = peaks.get(index) || [track.top[track.index.indexOf(index)]];
      button.type = "button";
      button.dataset.index = index;
      if (pictures[index]) {
        const image = make("img");
        image.src = pictures[index];
        image.alt = `Face at ${seconds(index * step)}, ${emotions[k]}`;
        button.append(image);
      } else button.append(body);
      const what = make("span");
      what.append(make("span", "dot b" + k), " " + emotions[k]);
      what.firstChild.style.display = "inline-block";
      body.append(what, make("span", "when", seconds(index * step)));
      if (logit !== undefined) body.append(make("span", "when", `peak ${logit.toFixed(2)}`));
      button.addEventListener("click", () => { pause(); seek(index * step); });
      return button;
    }));
  };
  const numbers = (track) => {
    const table = make("table"), head = make("tr"), body = make("tbody"), thead = make("thead");
    table.append(make("caption", "", `${scale[0].toUpperCase()}${scale.slice(1)} of ${track.id}, one row each ${Math.round(1000 * step)} ms`), thead, body);
    for (const name of ["time, s", ...emotions]) { const th = make("th", "", name); th.scope = "col"; head.append(th); }
    thead.append(head);
    valuesOf(track).forEach((row, i) => {
      const line = make("tr"), first = make("th", "", (track.index[i] * step).toFixed(2));
      first.scope = "row";
      line.append(first, ...row.map((value) => make("td", "", value.toFixed(2))));
      body.append(line);
    });
    $("numbers").replaceChildren(table);
  };

  const open = (number, focus) => {
    pause();
    current = number;
    const track = tracks[number];
    const stored = $("media-" + number), media = stored ? JSON.parse(stored.textContent) : { sound: null, pictures: {}, problems: [] };
    rows.forEach((row, i) => row.button.setAttribute("aria-current", String(i === number)));
    $("hint").hidden = true;
    $("track").hidden = false;
    $("browser").classList.add("open");
    document.body.classList.add("held");
    $("name").textContent = track.id;
    const part = !track.whole ? ` (first ${track.rows.length} shown)` : "";
    $("meta").textContent = `${track.split}, label ${emotions[track.label] || "?"}, majority ${emotions[track.majority] || "?"}; ${track.length}, ${track.frames} of ${track.expected} frames${part}`;
    $("why").replaceChildren(...track.why.map((reason) => make("span", "", reason)));
    heard = Boolean(media.sound);
    if (heard) sound.src = media.sound; else sound.removeAttribute("src");
    say((media.problems || []).map((problem) => `${problem[0].toUpperCase()}${problem.slice(1)}.`).join(" "));
    terms(track);
    offer(track);
    if (visible.includes(number)) showPage(Math.floor(visible.indexOf(number) / PAGE));
    $("scrub").max = track.end;
    clock = 0;
    draw();
    film(track, media.pictures);
    numbers(track);
    show(0);
    $("detail").scrollTop = 0;
    if (focus && getComputedStyle($("detail")).position === "fixed") $("detail").focus();
    else rows[number].item.scrollIntoView({ block: "nearest", behavior: "instant" });
    history.replaceState(null, "", "#track=" + encodeURIComponent(track.id));
  };
  const close = () => {
    if (current < 0) return;
    pause();
    const row = rows[current];
    current = -1;
    plot = null;
    row.button.setAttribute("aria-current", "false");
    sound.removeAttribute("src");
    $("track").hidden = true;
    $("hint").hidden = false;
    $("browser").classList.remove("open");
    document.body.classList.remove("held");
    row.button.focus({ preventScroll: true });
    history.replaceState(null, "", "#tracks");
  };
  const move = (by) => {
    if (!visible.length) return;
    const place = visible.indexOf(current);
    const next = place < 0 ? (by > 0 ? 0 : visible.length - 1) : clamp(place + by, 0, visible.length - 1);
    open(visible[next], false);
    if (getComputedStyle($("detail")).position !== "fixed") rows[visible[next]].button.focus({ preventScroll: true });
  };

  $("values").append(...emotions.map((emotion, k) => {
    const item = make("li");
    item.append(make("span", "dot b" + k), make("span", "", emotion), make("span", "v"), make("span", "u"));
    item.addEventListener("mouseenter", () => {
      $("plot").classList.add("focus");
      for (const line of $("plot").querySelectorAll("polyline")) line.classList.toggle("on", +line.dataset.k === k);
    });
    item.addEventListener("mouseleave", () => $("plot").classList.remove("focus"));
    return item;
  }));
  const toTime = (event) => {
    const box = $("plot").getBoundingClientRect();
    return tracks[current].end * (event.clientX - box.left - plot.left) / (box.width - plot.left - plot.right);
  };
  $("plot").addEventListener("pointerdown", (event) => { if (plot) { $("plot").setPointerCapture(event.pointerId); seek(toTime(event)); } });
  $("plot").addEventListener("pointermove", (event) => { if (plot && event.buttons) seek(toTime(event)); });
  $("play").addEventListener("click", () => (playing ? pause() : play()));
  $("scrub").addEventListener("input", () => seek(+$("scrub").value));
  $("close").addEventListener("click", close);
  new ResizeObserver(() => { if (current >= 0 && plot && Math.abs(plot.width - $("plot").clientWidth) > 1) { draw(); show(now()); } }).observe($("plot"));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target, typing = field.matches("input[type=search], select");
    const inside = field === document.body || Boolean(field.closest && field.closest("#browser"));
    if (event.key === "/" && !typing) {
      event.preventDefault();
      $("search").focus();
      $("search").select();
    } else if (event.key === "Escape") {
      if (current >= 0) close();
      else if (field === $("search")) { $("search").value = ""; filter(); }
    } else if (!inside || field.matches("select")) {
      return;
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      // Without an open track, arrow keys scroll the page.
      if (field === document.body && current < 0) return;
      event.preventDefault();
      move(event.key === "ArrowDown" ? 1 : -1);
    } else if (current >= 0 && !typing && field !== $("scrub") && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      event.preventDefault();
      pause();
      seek((Math.floor(now() / step + 1e-6) + (event.key === "ArrowRight" ? 1 : -1)) * step);
    } else if (event.key === " " && current >= 0 && !typing && field.tagName !== "SUMMARY" && field !== $("close")) {
      event.preventDefault();
      if (playing) pause(); else play();
    }
  });

  setPlaying(false);
  $("browser").hidden = false;
  filter();
  const asked = (() => {
    try { return decodeURIComponent((location.hash.match(/^#track=(.*)$/) || ["", ""])[1]); } catch { return ""; }
  })();
  const first = tracks.findIndex((track) => track.id === asked);
  if (asked && first >= 0) { open(first, true); $("tracks").scrollIntoView(); }
})();
