// The user's files with their jobs, loaded every five seconds, and every second while a job is open.

const OPEN = ['queued', 'started']

/** Dispatches `change` after each load, and `problem` with the error when a load fails. */
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

  /** Load now, and again and again while the page is visible. */
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
