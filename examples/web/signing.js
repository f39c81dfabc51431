// Addresses of results that a browser can load. Those requested at the same time are signed in one call per bucket.

export class Signing {
  #api
  #waiting = new Map()

  constructor(api) {
    this.#api = api
  }

  /** Return an address to load a result from, or null if the user may not read it. */
  address(result) {
    const [, bucket, key] = /^s3:\/\/([^/]+)\/(.+)$/s.exec(result) ?? []
    if (!bucket) return Promise.resolve(/^https?:\/\//i.test(result) ? result : null)
    return new Promise((resolve) => {
      if (!this.#waiting.size) setTimeout(() => this.#sign())
      if (!this.#waiting.has(bucket)) this.#waiting.set(bucket, [])
      this.#waiting.get(bucket).push({ key, resolve })
    })
  }

  async #sign() {
    const waiting = this.#waiting
    this.#waiting = new Map()
    for (const [bucket, wanted] of waiting) {
      const signed = await this.#api.sign(bucket, wanted.map(({ key }) => key)).catch(() => new Map())
      for (const { key, resolve } of wanted) resolve(signed.get(key) ?? null)
    }
  }
}
