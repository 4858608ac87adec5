// What stands beside the board: colours and widths, who is here, and the connection.

const find = (selector) => document.querySelector(selector);
const NAMES = ["Otter", "Heron", "Badger", "Finch", "Lynx", "Newt", "Robin", "Vole", "Wren", "Hare"];
const INKS = ["black", "blue", "teal", "green", "yellow", "orange", "red", "violet", "rubber"];
const WIDTHS = [5, 12, 30];

function choices(place, labels, paint) {
  const buttons = labels.map((label, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.role = "radio";
    button.ariaLabel = label;
    button.addEventListener("click", () => choose(index));
    paint(button, index);
    return button;
  });
  const choose = (index) => buttons.forEach((button, n) => (button.ariaChecked = String(n === index)));
  place.append(...buttons);
  choose(1);
  return buttons;
}

const swatches = choices(find("#inks"), INKS, (button, index) => {
  button.style.setProperty("--this", `var(--ink-${index})`);
});
const widths = choices(find("#widths"), ["thin", "medium", "thick"], (button, index) => {
  button.style.setProperty("--width", `${WIDTHS[index]}px`);
});
const indexOf = (buttons) => buttons.findIndex((button) => button.ariaChecked === "true");

/** The colours as they are now: they differ between light and dark. */
export const inks = () => swatches.map((swatch) => getComputedStyle(swatch).color);

/** The ink and width to draw with. */
export function chosen() {
  const ink = indexOf(swatches);
  const width = WIDTHS[indexOf(widths)];
  return { ink, width: INKS[ink] === "rubber" ? width * 2.5 : width };
}

/** The name that was typed, or one of ours; remembered for the next time. */
export function whoAmI(typed = sessionStorage.getItem("name")) {
  const name = typed?.trim() || NAMES[Math.floor(Math.random() * NAMES.length)];
  sessionStorage.setItem("name", name);
  find("#name").value = name;
  return name;
}

export function showLink(state, text) {
  find("#link").dataset.state = state;
  find("#link").textContent = text;
}

export function refuse(error) {
  showLink("here", error.message);
}

const hueOf = (id) => (id * 137) % 360;

export function showPeople(people, me) {
  const rows = people.map(({ id, name, here }) => {
    const row = document.createElement("li");
    row.style.setProperty("--hue", hueOf(id));
    row.classList.toggle("away", !here);
    row.textContent = id === me ? `${name} (you)` : name;
    return row;
  });
  find("#people").replaceChildren(...rows);
}

/** The others' pointers, over the board; each keeps its element, so that it glides. */
export function showPointers(people, me, paper) {
  const place = find("#pointers");
  const left = new Map([...place.children].map((each) => [each.dataset.id, each]));
  for (const { id, name, at, here } of people) {
    if (id === me || !at || !here) continue;
    const pointer = left.get(String(id)) ?? document.createElement("span");
    left.delete(String(id));
    pointer.dataset.id = id;
    pointer.style.setProperty("--hue", hueOf(id));
    pointer.style.left = `${(100 * at[0]) / paper.size}%`;
    pointer.style.top = `${(100 * at[1]) / paper.size}%`;
    pointer.textContent = name;
    if (!pointer.isConnected) place.append(pointer);
  }
  for (const gone of left.values()) gone.remove();
}
