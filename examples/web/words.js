// Numbers and states in words.

const STATES = { queued: 'Waiting', started: 'Working', succeeded: 'Done', failed: 'Failed', skipped: 'Skipped' }
const KINDS = {
  video: 'Video', image: 'Picture', audio: 'Sound', adaptive_video: 'Video for streaming', automation: 'Automation', run: 'Workflow',
}
const TYPES = {
  picture: ['jpg', 'jpeg', 'png', 'webp', 'gif', 'avif'],
  video: ['mp4', 'webm', 'mov', 'm4v'],
  sound: ['mp3', 'm4a', 'aac', 'wav', 'ogg', 'opus', 'flac'],
}

export function sizeInWords(bytes) {
  if (bytes < 1000) return `${bytes} bytes`
  const units = ['kB', 'MB', 'GB', 'TB']
  const power = Math.min(Math.floor(Math.log10(bytes) / 3), units.length)
  return `${(bytes / 1000 ** power).toFixed(bytes / 1000 ** power < 10 ? 1 : 0)} ${units[power - 1]}`
}

export function durationInWords(seconds) {
  const whole = Math.round(seconds)
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')} min`
}

export function timeInWords(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
}

export function stateInWords(job) {
  if (job.state === 'started') return job.progress === null ? 'Working' : `Working, ${job.progress} %`
  return STATES[job.state] ?? job.state
}

export function kindInWords(job) {
  return `${KINDS[job.kind] ?? job.kind} · ${job.rule}`
}

/** The type that a name's ending suggests: picture, video, sound or other. */
export function typeOf(name) {
  const extension = name.slice(name.lastIndexOf('.') + 1).toLowerCase()
  return Object.keys(TYPES).find((type) => TYPES[type].includes(extension)) ?? 'other'
}

/** Why an upload was refused, and what to do. */
export function refusalInWords({ status, message }) {
  switch (status) {
    case 0: return 'The connection was lost. Resume when it is back: what has arrived is not sent again.'
    case 401: case 403: return 'You may not store files here. Sign in again.'
    case 409: return 'There is a file with this name already. Replace it, or give this one another name.'
    case 413: return 'This file is too large for this project. Choose a smaller one.'
    case 415: return 'Files of this type are not accepted here. Choose another one.'
    default: return `The storage refused it (${status}): ${message}`
  }
}
