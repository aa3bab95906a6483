// Elements from tag, attributes and children. Text is always text: nothing here parses HTML.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// Replaces the children of `view`; what had the focus keeps it, else what has its name now.
export function redraw(view, ...children) {
  const active = document.activeElement;
  const held = view !== active && view.contains(active);
  view.replaceChildren(...children);
  if (!held) return;
  const parts = [...view.querySelectorAll("a, button, input, select, textarea, [tabindex]")];
  const again = view.contains(active) ? active : parts.find((part) => nameOf(part) === nameOf(active));
  again?.focus({ preventScroll: true });
}

const nameOf = (part) =>
  part.dataset.focus ?? part.getAttribute("aria-label") ?? part.getAttribute("href") ?? part.textContent.trim();

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

// A click that acts on what has another's place afterwards: the second of a double click does not.
export const single = (act) => (event) => {
  if (event.detail < 2) act(event);
};

export const hex = (color) => `#${color.toString(16).padStart(6, "0")}`;

export function rgb(color) {
  return [color >> 16, (color >> 8) & 255, color & 255];
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "";
  return value < 90 ? `${Math.max(1, Math.round(value))} s` : `${Math.round(value / 60)} min`;
}
