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
  const { emotions, step, levels, tracks } = data;
  const N = emotions.length;

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
    const last = track.index.length ? track.index[track.index.length - 1] : 0;
    const whole = track.rows.length === track.frames && track.seconds !== null;
    track.end = whole ? Math.max(track.seconds, (last + 0.5) * step) : (last + 1) * step;
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
    return `linear-gradient(90deg, ${parts.join(", ") || "transparent 0 100%"})`;
  };

  // List and filters.
  const rows = tracks.map((track, number) => {
    unpack(track);
    const item = make("li"), button = make("button");
    button.type = "button";
    const bar = make("span", "strip");
    bar.style.background = strip(track);
    const under = make("span", "under"), label = make("span");
    label.append(make("span", "dot b" + track.label), " " + (emotions[track.label] || "?"));
    under.append(label, make("span", "", track.split), make("span", "", seconds(track.end)));
    button.append(make("span", "id", track.id), bar, under);
    button.addEventListener("click", () => open(number, true));
    item.append(button);
    return { item, button, text: track.id.toLowerCase() };
  });
  $("list").append(...rows.map((row) => row.item));
  const people = [...new Set(tracks.map((track) => track.who))].sort();
  $("identity").append(...people.map((who) => { const o = make("option", "", who); o.value = who; return o; }));
  let wanted = -1, visible = [], current = -1;
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
      rows[i].item.hidden = !shown;
      if (shown) visible.push(i);
    });
    chips.forEach((chip, k) => {
      chip.setAttribute("aria-pressed", String(wanted === k));
      chip.disabled = !counts[k] && wanted !== k;
      chip.lastChild.textContent = counts[k];
    });
    $("count").textContent = `${visible.length} of ${tracks.length} shown`;
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

  // The open track: sound, clock and plot.
  const sound = new Audio();
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
    const here = Math.floor(t / step + 1e-6) === track.index[i] || t >= track.end;
    [...$("values").children].forEach((item, k) => {
      item.lastChild.textContent = here && track.rows[i] ? track.rows[i][k].toFixed(2) : "-";
      item.classList.toggle("most", here && track.top[i] === k);
    });
    for (const button of $("film").children) button.classList.toggle("on", +button.dataset.index === track.index[i]);
  };

  const draw = () => {
    const track = tracks[current];
    const width = Math.max($("plot").clientWidth, 240), height = 250;
    const left = 34, right = 8, top = 8, bottom = 196, stripTop = 206, stripHeight = 16;
    let low = 0, high = 1;
    for (const row of track.rows) for (const value of row) { low = Math.min(low, value); high = Math.max(high, value); }
    const span = 1.08 * (high - low);
    low -= 0.04 * span;
    high += 0.04 * span;
    const x = (t) => left + (width - left - right) * t / track.end;
    const y = (v) => bottom - (bottom - top) * (v - low) / span;
    const lengthOfTick = [1, 2, 5, 10, 20, 50, 100].find((size) => span / size <= 6) || 200;
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    const most = emotions.map((e, k) => [track.top.filter((v) => v === k).length, e]).sort((a, b) => b[0] - a[0]);
    svg.setAttribute("aria-label", `${N} logits over ${seconds(track.end)}; dominant: `
      + most.filter(([n]) => n).map(([n, e]) => `${e} in ${n} frames`).join(", "));
    const label = (text, tx, ty, anchor) => {
      const element = shape("text", { x: tx, y: ty, "text-anchor": anchor });
      element.textContent = text;
      svg.append(element);
    };
    for (let v = Math.ceil(low / lengthOfTick) * lengthOfTick; v <= high; v += lengthOfTick) {
      svg.append(shape("line", { x1: left, x2: width - right, y1: y(v), y2: y(v), class: v ? "grid" : "base" }));
      label(v, left - 6, y(v) + 4, "end");
    }
    const timeTick = [0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600].find((size) => track.end / size <= (width - 60) / 55) || 1800;
    for (let t = 0; t <= track.end + 1e-6; t += timeTick) label(t + (t ? "" : " s"), x(t), height - 8, t ? "middle" : "start");
    // A line stops at a gap: no face was seen there.
    emotions.forEach((_, k) => {
      let points = [];
      const flush = () => {
        if (points.length) {
          if (points.length === 1) points.push([points[0][0] + 2, points[0][1]]);
          svg.append(shape("polyline", { points: points.map((p) => p.map((c) => c.toFixed(1)).join()).join(" "), class: "s" + k, "data-k": k }));
        }
        points = [];
      };
      track.index.forEach((index, i) => {
        if (i && index !== track.index[i - 1] + 1) flush();
        points.push([x(index * step), y(track.rows[i][k])]);
      });
      flush();
    });
    let i = 0;
    while (i < track.index.length) {
      let j = i;
      while (j + 1 < track.index.length && track.top[j + 1] === track.top[i] && track.index[j + 1] === track.index[j] + 1) j += 1;
      const from = x(track.index[i] * step), to = x(Math.min((track.index[j] + 1) * step, track.end));
      const block = shape("rect", { x: from, y: stripTop, width: to - from, height: stripHeight, class: "e" + track.top[i] });
      const title = shape("title", {});
      title.textContent = emotions[track.top[i]];
      block.append(title);
      svg.append(block);
      i = j + 1;
    }
    for (const [k, index, logit] of track.peaks) {
      if (index * step < track.end) svg.append(shape("circle", { cx: x(index * step), cy: y(logit), r: 4, class: `peak s${k}` }));
    }
    const cursor = shape("g", { class: "cursor" });
    cursor.append(shape("line", { y1: top, y2: stripTop + stripHeight, class: "cursor" }));
    svg.append(cursor);
    $("plot").replaceChildren(svg);
    plot = { x, cursor, left, right, width };
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
    table.append(make("caption", "", `Logits of ${track.id}, one row each ${Math.round(1000 * step)} ms`), thead, body);
    for (const name of ["time, s", ...emotions]) { const th = make("th", "", name); th.scope = "col"; head.append(th); }
    thead.append(head);
    track.rows.forEach((row, i) => {
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
    const stored = $("media-" + number), media = stored ? JSON.parse(stored.textContent) : { sound: null, pictures: {} };
    rows.forEach((row, i) => row.button.setAttribute("aria-current", String(i === number)));
    $("hint").hidden = true;
    $("track").hidden = false;
    $("browser").classList.add("open");
    document.body.classList.add("held");
    $("name").textContent = track.id;
    const length = track.seconds === null ? seconds(track.end) + " of frames" : seconds(track.seconds);
    const part = track.rows.length < track.frames ? ` (first ${track.rows.length} shown)` : "";
    $("meta").textContent = `${track.split}, label ${emotions[track.label] || "?"}; ${length}, ${track.frames} of ${track.expected} frames${part}`;
    $("why").replaceChildren(...track.why.map((reason) => make("span", "", reason)));
    heard = Boolean(media.sound);
    if (heard) sound.src = media.sound; else sound.removeAttribute("src");
    say(heard ? "" : data.media ? "No sound for this track." : "");
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
    item.append(make("span", "dot b" + k), make("span", "", emotion), make("span", "v"));
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
