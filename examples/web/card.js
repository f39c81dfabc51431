// One file with its jobs and results, updated in place, so that a player goes on playing.

import { announce, element, say, show } from './dom.js'
import { resultFigure } from './result.js'
import { kindInWords, sizeInWords, stateInWords, timeInWords, typeOf } from './words.js'

/** Return {element, update(file, isShared)} for a file. */
export function fileCard(file, { signing, bucket, why }) {
  const jobs = new Map()
  const meta = element('p', { class: 'meta' })
  const list = element('ul', { class: 'jobs' })
  const nothing = element('p', { class: 'meta' }, 'Files like this one are not processed.')
  const results = element('div', { class: 'results' })
  const card = element('li', { class: 'card file' },
    element('div', { class: 'head' }, element('h3', {}, file.name)),
    meta, list, nothing, results, why ? why(file) : null)
  let original = null

  function update(file, isShared) {
    say(meta, `${sizeInWords(file.size)} · ${file.type} · ${timeInWords(file.created)}`)
    for (const [id, line] of jobs) {
      if (!file.jobs.some((job) => job.id === id)) {
        line.remove()
        jobs.delete(id)
      }
    }
    for (const job of file.jobs) {
      if (!jobs.has(job.id)) jobs.set(job.id, jobLine(file, job, signing, list, results))
      jobs.get(job.id).update(job)
    }
    show(nothing, isShared && !file.jobs.length)
    const isDone = file.jobs.some((job) => job.state === 'succeeded' && job.results?.length)
    if (typeOf(file.name) === 'picture' && isDone && !original) {
      original = resultFigure(signing, `s3://${bucket}/${file.key}`, 'Before')
      results.prepend(original)
    }
  }
  return { element: card, update }
}

/** Put the line of a job into the list; return {update(job), remove()}. */
function jobLine(file, job, signing, list, results) {
  const state = element('span', { class: 'chip' })
  const bar = element('progress', { max: 100, 'aria-label': `${job.rule} of ${file.name}` })
  const reason = element('p', { class: 'reason' })
  const line = element('li', {}, element('div', { class: 'row' }, element('span', {}, kindInWords(job)), state), bar, reason)
  const shown = new Map()
  let former = null
  list.append(line)

  function update(job) {
    if (former && former !== job.state) announce(`${file.name}, ${job.rule}: ${stateInWords(job)}. ${job.reason ?? ''}`)
    former = job.state
    state.dataset.state = job.state
    line.dataset.state = job.state
    say(state, stateInWords(job))
    if (job.progress === null) bar.removeAttribute('value')
    else bar.value = job.progress
    show(bar, job.state === 'started')
    say(reason, job.reason ?? '')
    show(reason, Boolean(job.reason))
    for (const address of job.state === 'succeeded' ? job.results ?? [] : []) {
      if (!shown.has(address)) {
        const title = typeOf(file.name) === 'picture' && typeOf(address) === 'picture' ? `After · ${job.rule}` : job.rule
        shown.set(address, resultFigure(signing, address, title))
        results.append(shown.get(address))
      }
    }
  }
  return { update, remove: () => [line, ...shown.values()].forEach((gone) => gone.remove()) }
}
