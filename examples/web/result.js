// One picture, video or sound, with its size, its duration and a download.

import { element, say } from './dom.js'
import { durationInWords, sizeInWords, typeOf } from './words.js'

const TAGS = { picture: 'img', video: 'video', sound: 'audio' }

/** Return a figure that shows the result at an address such as s3://bucket/key. */
export function resultFigure(signing, address, title) {
  const name = nameOf(address)
  const facts = element('span', { class: 'meta' })
  const known = { pixels: '', duration: '', size: '' }
  const place = element('div', { class: 'media' })
  const caption = element('figcaption', {}, element('strong', {}, title), facts)
  let tries = 0

  function tell(more) {
    Object.assign(known, more)
    say(facts, Object.values(known).filter(Boolean).join(' · '))
  }

  async function load() {
    const source = await signing.address(address)
    if (!source) {
      place.replaceChildren(element('p', {}, 'You may not read this result.'))
      return
    }
    const tag = TAGS[typeOf(name)]
    if (tag) place.replaceChildren(medium(tag, source))
    else place.replaceChildren(element('p', {}, name))
    if (!tries) {
      caption.append(element('a', { href: asDownload(address, source, name), rel: 'noopener noreferrer', download: name }, 'Download'))
      if (address.startsWith('s3://')) tellSize(source) // Another host may not let a page read its answers.
    }
  }

  async function tellSize(source) {
    const answer = await fetch(source, { method: 'HEAD' }).catch(() => null)
    if (answer?.ok) tell({ size: sizeInWords(Number(answer.headers.get('content-length'))) })
  }

  function medium(tag, source) {
    const made = element(tag, {
      // A video shows one of its first pictures, not a black one.
      src: tag === 'video' ? `${source}#t=0.1` : source, alt: tag === 'img' && `${title}: ${name}`, 'aria-label': tag !== 'img' && `${title}: ${name}`,
      controls: tag !== 'img', preload: tag !== 'img' && 'metadata',
    })
    made.addEventListener('load', () => tell({ pixels: `${made.naturalWidth} × ${made.naturalHeight}` }))
    made.addEventListener('loadedmetadata', () => tell({
      pixels: made.videoWidth ? `${made.videoWidth} × ${made.videoHeight}` : '', duration: durationInWords(made.duration),
    }))
    made.addEventListener('error', () => {
      // A signed address expires after an hour: try once more, with a new one.
      if (tries++) place.replaceChildren(element('p', {}, 'Your browser cannot show this. Download it.'))
      else load()
    })
    return made
  }

  load()
  return element('figure', { 'data-type': typeOf(name) }, place, caption)
}

function nameOf(address) {
  const path = address.startsWith('s3://') ? address : pathOf(address)
  return path.slice(path.lastIndexOf('/') + 1)
}

/** The path of an address, or the whole text if it is invalid: one bad result must not hide the others. */
function pathOf(address) {
  try {
    return decodeURI(new URL(address).pathname)
  } catch {
    return address
  }
}

/** The address of a download. Storage then sends the file as an attachment, which is never opened as a page. */
function asDownload(address, source, name) {
  return address.startsWith('s3://') ? `${source}&download=${encodeURIComponent(name)}` : source
}
