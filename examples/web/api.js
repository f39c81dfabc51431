// The project's APIs, called as the signed-in user: their files, the jobs of each, and addresses to read them.

/** An error answer, or no answer (status 0). */
export class Refused extends Error {
  constructor(status, message, code) {
    super(message)
    this.status = status
    this.code = code
  }
}

/** Make a Refused of an error answer. Storage answers most errors with 400 and has the real status in the body. */
export function refusal(status, text) {
  try {
    const body = JSON.parse(text)
    return new Refused(Number(body.statusCode) || status, String(body.message ?? body.error ?? text), body.code)
  } catch {
    return new Refused(status, text.trim() || `HTTP ${status}`)
  }
}

export class Api {
  constructor(project) {
    this.project = project
  }

  async headers() {
    const { token } = await this.project.session()
    return { apikey: this.project.key, Authorization: `Bearer ${token}` }
  }

  /** The files in the user's folder, newest first. */
  async files() {
    const { userId } = await this.project.session()
    const body = { prefix: userId, limit: 100, sortBy: { column: 'created_at', order: 'desc' } }
    const rows = await this.#ask('POST', `/storage/v1/object/list/${encodeURIComponent(this.project.bucket)}`, body)
    return rows.filter((row) => row.id && row.metadata && row.name !== '.emptyFolderPlaceholder').map((row) => ({
      name: row.name,
      key: `${userId}/${row.name}`,
      size: Number(row.metadata.size),
      type: String(row.metadata.mimetype),
      created: row.created_at,
    }))
  }

  /** The jobs of the user's files, newest first; null if the project does not share them. */
  async status() {
    const query = new URLSearchParams({
      select: 'id,name,rule,kind,state,progress,reason,results', bucket_id: `eq.${this.project.bucket}`,
      order: 'created_at.desc', limit: '500',
    })
    try {
      return await this.#ask('GET', `/rest/v1/ittybit_files?${query}`)
    } catch (error) {
      if (error.code === 'PGRST205') return null
      throw error
    }
  }

  /** Signed addresses of a bucket's keys, by key, for an hour; keys that the user may not read are left out. */
  async sign(bucket, keys) {
    const path = `/storage/v1/object/sign/${encodeURIComponent(bucket)}`
    const rows = await this.#ask('POST', path, { expiresIn: 3600, paths: keys })
    return new Map(rows.filter((row) => row.signedURL).map((row) => [row.path, `${this.project.url}/storage/v1${row.signedURL}`]))
  }

  async #ask(method, path, body) {
    const headers = await this.headers()
    if (body) headers['Content-Type'] = 'application/json'
    let answer
    try {
      answer = await fetch(this.project.url + path, { method, headers, body: body && JSON.stringify(body) })
    } catch {
      throw new Refused(0, 'The project does not answer.')
    }
    if (!answer.ok) throw refusal(answer.status, await answer.text())
    return answer.json()
  }
}
