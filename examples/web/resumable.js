// Resumable uploads: the tus protocol (1.0.0) as Supabase Storage speaks it.

import { Refused, refusal } from './api.js'
import { send } from './transport.js'

const CHUNK = 6 * 1024 * 1024 // Supabase accepts only this size
const PAUSES = [1, 3, 5, 10]
const VERSION = { 'Tus-Resumable': '1.0.0' }

/**
 * Send a file, from where an earlier try stopped.
 * @param api the project's APIs
 * @param {{file: File, key: string, type: string, replace: boolean, location: string|null}} upload
 * @param {{onLocation: function(string|null), onProgress: function(number), signal: AbortSignal}} callbacks
 */
export async function sendResumable(api, upload, { onLocation, onProgress, signal }) {
  let location = upload.location
  let offset = location ? await offsetOf(api, location, signal) : null
  if (offset === null) {
    location = await create(api, upload, signal)
    offset = 0
    onLocation(location)
  }
  let failures = 0
  while (offset < upload.file.size) {
    onProgress(offset)
    const start = offset
    try {
      offset = await append(api, location, upload.file, start, (sent) => onProgress(start + sent), signal)
      failures = 0
    } catch (error) {
      if (signal.aborted || !passes(error) || failures === PAUSES.length) throw error
      await pause(PAUSES[failures++], signal)
      offset = (await offsetOf(api, location, signal).catch(() => start)) ?? start
    }
  }
  onLocation(null)
}

/** Whether an error may be temporary: no answer, a lock that is still held, a fault of the server. */
function passes({ status }) {
  return status === 0 || status === 409 || status === 423 || status >= 500
}

async function create(api, { file, key, type, replace }, signal) {
  const metadata = { bucketName: api.project.bucket, objectName: key, contentType: type, cacheControl: '3600' }
  const answer = await send('POST', `${api.project.url}/storage/v1/upload/resumable`, {
    ...await api.headers(), ...VERSION,
    'Upload-Length': String(file.size),
    'Upload-Metadata': Object.entries(metadata).map(([name, value]) => `${name} ${base64(value)}`).join(','),
    'x-upsert': String(replace),
  }, null, { signal })
  if (answer.status !== 201) throw refusal(answer.status, answer.text)
  return new URL(answer.header('Location'), api.project.url).href
}

async function append(api, location, file, offset, onProgress, signal) {
  const headers = {
    ...await api.headers(), ...VERSION,
    'Upload-Offset': String(offset),
    'Content-Type': 'application/offset+octet-stream',
  }
  const answer = await send('PATCH', location, headers, file.slice(offset, offset + CHUNK), { onProgress, signal })
  if (answer.status !== 204) throw refusal(answer.status, answer.text)
  return Number(answer.header('Upload-Offset'))
}

/** The number of bytes that have arrived, or null if the server no longer knows the upload. */
async function offsetOf(api, location, signal) {
  // The user's token is sent only to the project.
  if (new URL(location).origin !== new URL(api.project.url).origin) return null
  const answer = await send('HEAD', location, { ...await api.headers(), ...VERSION }, null, { signal })
  if (answer.status === 404 || answer.status === 410) return null
  if (answer.status !== 200) throw new Refused(answer.status, `HTTP ${answer.status}`)
  return Number(answer.header('Upload-Offset'))
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)))
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000)
    signal.addEventListener('abort', () => { clearTimeout(timer); reject(signal.reason) }, { once: true })
  })
}
