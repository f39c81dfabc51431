// Elements. Text from anywhere becomes text nodes and attribute values: nothing is ever read as HTML.

/** Make an element. Properties that start with `on` are listeners, `class` and the rest are attributes; false is left out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value)
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value === true ? '' : value)
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ''))
  return made
}

/** Set an element's text, and leave it alone where it is the same: screen readers and selections notice a change. */
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text
}

/** Show an element, or hide it. */
export function show(place, visible) {
  place.hidden = !visible
}

/** Tell screen readers. */
export function announce(text) {
  document.getElementById('announcer').textContent = text
}
