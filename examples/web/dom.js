// Elements. All text becomes text nodes and attribute values, never HTML.

/** Make an element. Properties with `on` in front are listeners, all others attributes; false and null are left out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value)
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value === true ? '' : value)
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ''))
  return made
}

/** Set an element's text, but only if it differs: a change disturbs screen readers and selections. */
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text
}

/** Show an element, or hide it. */
export function show(place, visible) {
  place.hidden = !visible
}

/** Have screen readers read out a text. */
export function announce(text) {
  document.getElementById('announcer').textContent = text
}
