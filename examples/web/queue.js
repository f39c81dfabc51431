// The uploads: three at a time. Resumable ones are remembered, to resume them after the page was closed.

import { refusal } from './api.js'
import { storableName } from './names.js'
import { sendResumable } from './resumable.js'
import { send } from './transport.js'

const AT_ONCE = 3
const RESUMABLE_FROM = 6 * 1024 * 1024
const STORE = 'uploads'

/**
 * One upload. `state` is waiting, sending, paused, absent (its file has to be chosen again), done or failed.
 * Dispatches `change`.
 */
export class Upload extends EventTarget {
  state = 'waiting'
  problem = null
  sent = 0
  replace = false
  location = null
  file = null

  constructor(name, size, lastModified, type) {
    super()
    Object.assign(this, { name, size, lastModified, type, storedName: storableName(name) })
  }

  get isResumable() {
    return this.size > RESUMABLE_FROM
  }

  /** Whether the file is that of this upload, as far as a page can tell. */
  isFor(file) {
    return this.name === file.name && this.size === file.size && this.lastModified === file.lastModified
  }

  set(changes) {
    Object.assign(this, changes)
    this.dispatchEvent(new Event('change'))
  }
}

/** Dispatches `added` with an upload, and `stored` when one is stored. */
export class Queue extends EventTarget {
  #api
  #uploads = []
  #aborting = new Map()

  constructor(api) {
    super()
    this.#api = api
    addEventListener('pagehide', () => this.#keep())
  }

  /** Restore the unfinished uploads of an earlier visit. */
  async restore() {
    const { userId } = await this.#api.project.session()
    this.userId = userId
    for (const kept of this.#kept()) {
      const upload = new Upload(kept.name, kept.size, kept.lastModified, kept.type)
      this.#add(Object.assign(upload, { state: 'absent', sent: kept.sent, location: kept.location, replace: kept.replace }))
    }
  }

  add(file) {
    const known = this.#uploads.find((upload) => upload.isFor(file) && !['done', 'failed'].includes(upload.state))
    if (known?.state === 'absent') known.set({ file, state: 'waiting' })
    if (!known) {
      const upload = new Upload(file.name, file.size, file.lastModified, file.type || 'application/octet-stream')
      upload.file = file
      if (!file.size) Object.assign(upload, { state: 'failed', problem: { status: 'empty' } })
      this.#add(upload)
    }
    this.#next()
  }

  pause(upload) {
    this.#aborting.get(upload)?.abort('paused')
    if (upload.state === 'waiting') upload.set({ state: 'paused' })
  }

  resume(upload, replace = upload.replace) {
    upload.set({ state: 'waiting', problem: null, replace })
    this.#next()
  }

  /** Remove stored uploads that are among these files, except those that were stored under another name. */
  forget(keys) {
    for (const upload of this.#uploads) {
      if (upload.state === 'done' && upload.name === upload.storedName && keys.includes(this.#key(upload))) this.remove(upload)
    }
  }

  remove(upload) {
    this.#aborting.get(upload)?.abort('removed')
    this.#uploads = this.#uploads.filter((other) => other !== upload)
    if (upload.location && upload.state !== 'done') {
      this.#api.headers()
        .then((headers) => send('DELETE', upload.location, { ...headers, 'Tus-Resumable': '1.0.0' }))
        .catch(() => {}) // The server deletes it by itself after a day.
    }
    this.#keep()
    this.#next()
    upload.dispatchEvent(new Event('removed'))
  }

  #add(upload) {
    this.#uploads.unshift(upload)
    this.dispatchEvent(new CustomEvent('added', { detail: upload }))
  }

  #next() {
    const waiting = this.#uploads.filter((upload) => upload.state === 'waiting').reverse()
    for (const upload of waiting.slice(0, Math.max(0, AT_ONCE - this.#aborting.size))) this.#send(upload)
  }

  async #send(upload) {
    const aborting = new AbortController()
    this.#aborting.set(upload, aborting)
    upload.set({ state: 'sending' })
    const callbacks = {
      signal: aborting.signal,
      onProgress: (sent) => upload.set({ sent }),
      onLocation: (location) => { upload.location = location; this.#keep() },
    }
    try {
      await (upload.isResumable ? this.#sendResumable(upload, callbacks) : this.#sendAtOnce(upload, callbacks))
      upload.set({ state: 'done', sent: upload.size })
      this.dispatchEvent(new CustomEvent('stored', { detail: upload }))
    } catch (error) {
      if (aborting.signal.reason === 'paused') upload.set({ state: 'paused' })
      else if (!aborting.signal.aborted) upload.set({ state: error.status === 0 && upload.isResumable ? 'paused' : 'failed', problem: error })
    } finally {
      this.#aborting.delete(upload)
      this.#keep()
      this.#next()
    }
  }

  #sendResumable(upload, callbacks) {
    return sendResumable(this.#api, { ...upload, key: this.#key(upload) }, callbacks)
  }

  async #sendAtOnce(upload, { onProgress, signal }) {
    const path = [this.#api.project.bucket, ...this.#key(upload).split('/')].map(encodeURIComponent).join('/')
    const headers = { ...await this.#api.headers(), 'Content-Type': upload.type, 'x-upsert': String(upload.replace) }
    const answer = await send('POST', `${this.#api.project.url}/storage/v1/object/${path}`, headers, upload.file, { onProgress, signal })
    if (answer.status !== 200) throw refusal(answer.status, answer.text)
  }

  #key(upload) {
    return `${this.userId}/${upload.storedName}`
  }

  #kept() {
    try {
      return JSON.parse(localStorage.getItem(STORE) ?? '[]').filter((kept) => kept.userId === this.userId)
    } catch {
      return []
    }
  }

  #keep() {
    const open = this.#uploads.filter((upload) => upload.location && upload.state !== 'done')
    const kept = open.map(({ name, size, lastModified, type, sent, location, replace }) => (
      { userId: this.userId, name, size, lastModified, type, sent, location, replace }
    ))
    try {
      localStorage.setItem(STORE, JSON.stringify(kept))
    } catch {
      // Without local storage, an upload cannot be resumed after the page is closed.
    }
  }
}
