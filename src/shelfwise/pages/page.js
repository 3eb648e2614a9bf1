(() => {
  "use strict";
  const all = (query, from) => [...(from || document).querySelectorAll(query)];
  const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text || "" });

  // The table of contents: folded on phones, and it says where the reader is.
  const contents = document.querySelector(".toc details");
  if (contents) {
    const narrow = matchMedia("(max-width: 60rem)");
    const fold = () => { contents.open = !narrow.matches; };
    narrow.addEventListener("change", fold);
    fold();
    const links = new Map(all("a", contents).map((link) => [link.hash.slice(1), link]));
    contents.addEventListener("click", (event) => {
      if (narrow.matches && event.target.closest("a")) contents.open = false;
    });
    const place = () => {
      let here = null;
      for (const id of links.keys()) {
        const part = document.getElementById(id);
        if (part && part.getBoundingClientRect().top < innerHeight * 0.35) here = id;
      }
      for (const [id, link] of links) {
        if (id === here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
      }
    };
    addEventListener("scroll", () => requestAnimationFrame(place), { passive: true });
    place();
  }

  // Tables: a button in every head sorts the rows; numbers by their full value.
  const value = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return "";
    return cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v === "" ? NaN : +cell.dataset.v;
  };
  for (const table of all("table.sort")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = make("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numeric = head.classList.contains("n");
        const now = head.getAttribute("aria-sort");
        const up = now ? now === "descending" : !numeric;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].filter((row) => !row.classList.contains("sum"));
        const order = (a, b) => {
          const [x, y] = [value(a, column), value(b, column)];
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
          const by = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
          return up ? by : -by;
        };
        body.append(...rows.sort(order));
      });
    });
  }

  // A filter above long tables and galleries.
  let number = 0;
  for (const holder of all("[data-filter]")) {
    const items = all("tbody tr, .card", holder);
    if (items.length < 8) continue;
    const line = make("div");
    line.className = "filter";
    const label = make("label", "Filter");
    const input = make("input");
    const said = make("output");
    input.type = "search";
    input.id = "filter-" + (number += 1);
    input.setAttribute("autocomplete", "off");
    input.placeholder = holder.dataset.filter;
    label.htmlFor = input.id;
    said.setAttribute("for", input.id);
    label.append(input);
    line.append(label, said);
    holder.prepend(line);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const item of items) {
        const text = item.textContent.toLowerCase();
        item.hidden = !words.every((word) => text.includes(word));
        shown += !item.hidden;
      }
      said.textContent = words.length ? shown + " of " + items.length : "";
    });
  }

  // Print the groups of a chapter that are folded, then fold them again; long tables stay as the reader left them.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details.group:not([open])");
    folded.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => { folded.forEach((part) => { part.open = false; }); });
})();
