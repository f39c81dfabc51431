// The list of uploads: for each a bar, its state and buttons.

import { announce, element, say, show } from './dom.js'
import { refusalInWords, sizeInWords } from './words.js'

const STATES = { waiting: 'Waiting', sending: 'Uploading', paused: 'Paused', absent: 'Paused', done: 'Stored', failed: 'Not stored' }

/** Return the line of an upload. */
export function uploadLine(queue, upload) {
  const state = element('span', { class: 'chip' })
  const bar = element('progress', { max: upload.size, 'aria-label': `Upload of ${upload.name}` })
  const amount = element('span', { class: 'meta' })
  const problem = element('p', { class: 'reason' })
  const button = (text, onclick) => element('button', { type: 'button', onclick }, text)
  const pause = button('Pause', () => queue.pause(upload))
  const resume = button('Resume', () => queue.resume(upload))
  const replace = button('Replace it', () => queue.resume(upload, true))
  const again = button('Try again', () => queue.resume(upload))
  const remove = button('Remove', () => queue.remove(upload))
  const choose = element('label', { class: 'button' },
    element('input', { type: 'file', class: 'hidden', onchange: (event) => chosen(event.target) }), 'Choose the file again')

  function chosen(input) {
    const [file] = input.files
    input.value = ''
    if (!file) return
    if (upload.isFor(file)) queue.add(file)
    else say(problem, `This is another file. The upload is of ${upload.name}, ${sizeInWords(upload.size)}.`), show(problem, true)
  }

  const line = element('li', { class: 'card upload' },
    element('div', { class: 'head' }, element('h3', {}, upload.name), state),
    upload.storedName === upload.name ? null
      : element('p', { class: 'note' }, `Stored as “${upload.storedName}”: the storage accepts unaccented letters, digits and a few signs.`),
    bar,
    element('div', { class: 'row' }, amount, element('span', { class: 'buttons' }, pause, resume, choose, replace, again, remove)),
    problem)

  function update() {
    line.dataset.state = upload.state
    state.dataset.state = upload.state
    if (STATES[upload.state] !== state.textContent && ['done', 'failed', 'paused'].includes(upload.state)) {
      announce(`${upload.name}: ${STATES[upload.state]}`)
    }
    say(state, STATES[upload.state])
    bar.value = upload.sent
    say(amount, upload.state === 'done' ? sizeInWords(upload.size)
      : `${sizeInWords(upload.sent)} of ${sizeInWords(upload.size)} · ${Math.floor(100 * upload.sent / (upload.size || 1))} %`)
    const words = upload.problem?.status === 'empty' ? 'This file is empty. Choose another one.'
      : upload.problem ? refusalInWords(upload.problem)
      : upload.state === 'absent' ? 'The page was closed meanwhile. Choose or drop the same file, and the upload resumes where it stopped.' : ''
    say(problem, words)
    show(problem, words !== '')
    say(remove, upload.state === 'done' ? 'Hide' : 'Remove')
    show(bar, !['done', 'failed'].includes(upload.state))
    show(pause, upload.isResumable && ['waiting', 'sending'].includes(upload.state))
    show(resume, upload.state === 'paused')
    show(choose, upload.state === 'absent')
    show(replace, upload.state === 'failed' && upload.problem.status === 409)
    show(again, upload.state === 'failed' && ![409, 413, 415, 'empty'].includes(upload.problem.status))
  }
  upload.addEventListener('change', update)
  upload.addEventListener('removed', () => line.remove())
  update()
  return line
}
