(() => {
  "use strict";
  const find = (query, from) => (from || document).querySelector(query);
  const all = (query, from) => [...(from || document).querySelectorAll(query)];
  const keep = (name, first) => ({
    get on() { try { return (localStorage.getItem(name) || first) !== "off"; } catch { return first !== "off"; } },
    set on(value) { try { localStorage.setItem(name, value ? "on" : "off"); } catch { /* not kept */ } },
  });
  const kept = keep("shelfwise.keys", "on");
  const warm = keep("shelfwise.heat", "off");

  // Dialogs: the keys, and the photo enlarged.
  const STEPS = 3;
  const pan = find(".pan");
  const zoom = (by, at) => {
    const step = Math.max(0, Math.min(STEPS, +(pan.dataset.step || 0) + by));
    pan.dataset.step = step;
    const [x, y] = at || [0.5, 0.5];
    pan.scrollTo(pan.scrollWidth * x - pan.clientWidth / 2, pan.scrollHeight * y - pan.clientHeight / 2);
  };
  const open = (name, from) => {
    const dialog = find("#" + name);
    if (dialog.open) return;
    if (name === "zoom") {
      find("#zoomed").src = from.href;
      find("#zoomed").alt = find("img", from).alt;
      pan.dataset.step = 0;
    }
    dialog.showModal();
    if (name === "zoom") pan.focus();
  };
  const single = find("#single-keys");
  single.checked = kept.on;
  single.addEventListener("change", () => { kept.on = single.checked; });
  pan.addEventListener("click", (event) => {
    if (+pan.dataset.step) { pan.dataset.step = 0; return; }
    const image = find("#zoomed"), box = image.getBoundingClientRect();
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    const across = (event.clientX - box.left - box.width / 2) / (image.naturalWidth * scale);
    const down = (event.clientY - box.top - box.height / 2) / (image.naturalHeight * scale);
    zoom(2, [0.5 + across, 0.5 + down]);
  });
  document.addEventListener("click", (event) => {
    const opens = event.target.closest("[data-opens]");
    if (opens && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      open(opens.dataset.opens, opens);
    }
    const step = event.target.closest("[data-zoom]");
    if (step) zoom(+step.dataset.zoom);
    if (event.target.matches("dialog")) event.target.close();
  });

  // Keys: a letter presses the button or follows the link that shows it.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
    const field = event.target.closest("input:not([type=checkbox]), select, textarea");
    if (field) {
      if (event.key === "Escape" && !event.defaultPrevented) field.blur();
      return;
    }
    const dialog = find("dialog[open]");
    if (!kept.on && !dialog && event.key !== "?") return;
    const key = event.key === "=" ? "+" : event.key.toLowerCase();
    const same = all("[data-key]", dialog || document).filter((part) => part.dataset.key === key && (dialog || !part.closest("dialog")));
    const found = same.find((part) => part.getClientRects().length) || same[0];
    if (!found) return;
    event.preventDefault();
    if (found.matches("input:not([type=checkbox])")) { found.focus(); found.select(); }
    else if (found.matches("summary")) {
      found.click();
      const first = find("select", found.parentElement);
      if (found.parentElement.open && first) first.focus();
    } else found.click();
  });

  // The photo plain or under its heat, as it was chosen last.
  const heated = () => {
    const box = find("#heat");
    if (!box) return;
    box.checked = warm.on;
    box.addEventListener("change", () => { warm.on = box.checked; });
  };
  heated();

  // The values as one types: a list under the field, in place of the browser's own.
  const MOST = 8;
  const enhance = () => {
    const input = find("input[list]");
    if (!input) return;
    const list = Object.assign(document.createElement("ul"), { id: "value-list", hidden: true });
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Values");
    input.after(list);
    const values = all("option", input.list).map((part) => part.value);
    input.removeAttribute("list");
    for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id })) {
      input.setAttribute(name, value);
    }
    let at = -1;
    const options = () => all("[role=option]", list);
    const mark = (place) => {
      at = place;
      options().forEach((part, number) => { part.setAttribute("aria-selected", number === at); });
      const chosen = options()[at];
      if (chosen) { input.setAttribute("aria-activedescendant", chosen.id); chosen.scrollIntoView({ block: "nearest" }); }
      else input.removeAttribute("aria-activedescendant");
    };
    const show = (on) => {
      list.hidden = !on;
      input.setAttribute("aria-expanded", String(on));
      if (!on) mark(-1);
    };
    const fill = () => {
      const typed = input.value.trim().toLowerCase();
      const rank = (value) => {
        const text = value.toLowerCase();
        return text === typed ? 0 : text.startsWith(typed) ? 1 : text.split(/[\s/-]+/).some((word) => word.startsWith(typed)) ? 2 : text.includes(typed) ? 3 : 9;
      };
      const found = values.map((value, number) => [rank(value), number, value]).filter(([by]) => by < 9).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      list.replaceChildren(...found.slice(0, MOST).map(([, , value], number) => {
        const part = Object.assign(document.createElement("li"), { id: "value-" + number, textContent: value });
        part.setAttribute("role", "option");
        part.dataset.value = value;
        return part;
      }));
      if (found.length > MOST) {
        const more = Object.assign(document.createElement("li"), { className: "more", textContent: "and " + (found.length - MOST) + " more: type on" });
        more.setAttribute("role", "presentation");
        list.append(more);
      }
      show(found.length > 0);
      mark(typed && found.length ? 0 : -1);
    };
    const take = (part) => { input.value = part.dataset.value; show(false); input.form.requestSubmit(); };
    input.addEventListener("input", fill);
    input.addEventListener("focus", fill);
    input.addEventListener("blur", () => show(false));
    list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const part = event.target.closest("[role=option]");
      if (part) take(part);
    });
    input.addEventListener("keydown", (event) => {
      const last = options().length - 1;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        if (list.hidden) fill();
        mark(event.key === "ArrowDown" ? (at >= last ? 0 : at + 1) : at <= 0 ? last : at - 1);
      } else if (event.key === "Enter" && at >= 0 && !list.hidden) {
        event.preventDefault();
        take(options()[at]);
      } else if (event.key === "Escape" && !list.hidden && at >= 0) {
        event.preventDefault();
        show(false);
      }
    });
  };
  enhance();

  // Requests: the part of the page that changed is put in place; what was not answered is sent again.
  const AGAIN = [429, 502, 503, 504];
  const lost = find("#lost");
  let wait = 400;
  let waiting = null;
  const resend = (form, button) => {
    lost.textContent = "The server does not answer. Your verdict is kept here and sent again; leave this page open.";
    lost.hidden = false;
    waiting = form;
    setTimeout(() => {
      waiting = null;
      if (form.isConnected) form.requestSubmit(button);
    }, wait);
    wait = Math.min(wait * 2, 5000);
  };
  const unanswered = (event) => {
    const { elt, requestConfig } = event.detail;
    const button = requestConfig.triggeringEvent && requestConfig.triggeringEvent.submitter;
    if (elt.matches("form")) resend(elt, button || null);
  };
  const body = document.body;
  body.addEventListener("htmx:beforeRequest", (event) => { if (waiting) event.preventDefault(); });
  body.addEventListener("htmx:sendError", unanswered);
  body.addEventListener("htmx:timeout", unanswered);
  body.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (AGAIN.includes(xhr.status)) { event.detail.shouldSwap = false; unanswered(event); }
    else if (!/id="work"/.test(xhr.responseText)) {
      event.detail.shouldSwap = false;
      lost.textContent = "The server refused this (" + xhr.status + "). Load the page again.";
      lost.hidden = false;
    }
  });
  body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id !== "work") return;
    lost.hidden = true;
    wait = 400;
    heated();
    enhance();
    scrollTo(0, 0);
    const head = find("#work h1");
    if (head) head.focus({ preventScroll: true });
  });
})();
