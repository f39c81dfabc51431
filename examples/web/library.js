// The user's files with the work on each, looked at again and again: often while something goes on.

const OPEN = ['queued', 'started']

/** Dispatches `change` when it has looked, `problem` with an error when it could not. */
export class Library extends EventTarget {
  files = null
  isShared = true
  #api
  #timer
  #looking = false

  constructor(api) {
    super()
    this.#api = api
    document.addEventListener('visibilitychange', () => { if (!document.hidden) this.look() })
  }

  /** Look now, and from now on. */
  async look() {
    clearTimeout(this.#timer)
    if (this.#looking) return
    this.#looking = true
    try {
      const [files, jobs] = await Promise.all([this.#api.files(), this.#api.status()])
      this.isShared = jobs !== null
      const ofFile = grouped(jobs ?? [])
      this.files = files.map((file) => ({ ...file, jobs: (ofFile.get(file.key) ?? []).sort((a, b) => a.rule.localeCompare(b.rule)) }))
      this.dispatchEvent(new Event('change'))
    } catch (error) {
      this.dispatchEvent(new CustomEvent('problem', { detail: error }))
    } finally {
      this.#looking = false
    }
    const isBusy = this.files?.some((file) => file.jobs.some((job) => OPEN.includes(job.state)))
    if (!document.hidden) this.#timer = setTimeout(() => this.look(), isBusy ? 1000 : 5000)
  }
}

function grouped(jobs) {
  const groups = new Map()
  for (const job of jobs) groups.set(job.name, [...groups.get(job.name) ?? [], job])
  return groups
}
