// One request with the progress of its body, which fetch does not report.

import { Refused } from './api.js'

/** Send a body. Rejects with Refused(0) when there is no answer, and with the signal's reason when it was aborted. */
export function send(method, url, headers, body, { onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open(method, url)
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value)
    request.upload.onprogress = (event) => onProgress(event.loaded)
    request.onload = () => resolve({
      status: request.status, text: request.responseText, header: (name) => request.getResponseHeader(name),
    })
    request.onerror = () => reject(new Refused(0, 'The connection was lost.'))
    request.onabort = () => reject(signal.reason)
    signal?.throwIfAborted()
    signal?.addEventListener('abort', () => request.abort(), { once: true })
    request.send(body)
  })
}
