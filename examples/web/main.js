// The page: dropped files go into the queue, stored files into the list.

import { Api } from './api.js'
import { fileCard } from './card.js'
import { developer } from './developer.js'
import { element, say, show } from './dom.js'
import { Library } from './library.js'
import { open } from './project.js'
import { Queue } from './queue.js'
import { Signing } from './signing.js'
import { uploadLine } from './uploads.js'

const place = (id) => document.getElementById(id)

async function start() {
  const project = await open()
  const api = new Api(project)
  const queue = new Queue(api)
  const library = new Library(api)
  const tools = await developer(place('developer'), library)
  showFiles(library, queue, { signing: new Signing(api), bucket: project.bucket, why: tools?.why })
  queue.addEventListener('added', ({ detail: upload }) => place('uploads').prepend(uploadLine(queue, upload)))
  queue.addEventListener('stored', () => library.look())
  await queue.restore()
  takeFiles((file) => queue.add(file))
  library.look()
}

function takeFiles(add) {
  place('choose').addEventListener('change', ({ target }) => {
    for (const file of target.files) add(file)
    target.value = ''
  })
  const over = (isOver) => (event) => {
    event.preventDefault()
    document.body.classList.toggle('over', isOver)
  }
  addEventListener('dragover', over(true))
  addEventListener('dragleave', over(false))
  addEventListener('drop', over(false))
  addEventListener('drop', ({ dataTransfer }) => {
    const entries = [...dataTransfer.items].filter((item) => item.kind === 'file')
    const folders = entries.filter((item) => item.webkitGetAsEntry?.()?.isDirectory)
    complain(folders.length ? 'A folder cannot be uploaded as it is. Open it, and drop the files in it.' : '')
    for (const item of entries) if (!folders.includes(item)) add(item.getAsFile())
  })
}

function showFiles(library, queue, tools) {
  const cards = new Map()
  const list = place('files')
  const empty = element('li', { class: 'empty' }, 'No files yet. What you upload appears here.')

  library.addEventListener('change', () => {
    complain('')
    list.removeAttribute('aria-busy')
    for (const child of list.querySelectorAll('.skeleton')) child.remove()
    for (const [key, card] of cards) {
      if (!library.files.some((file) => file.key === key)) {
        card.element.remove()
        cards.delete(key)
      }
    }
    library.files.forEach((file, index) => {
      if (!cards.has(file.key)) cards.set(file.key, fileCard(file, tools))
      const card = cards.get(file.key)
      if (list.children[index] !== card.element) list.insertBefore(card.element, list.children[index] ?? null)
      card.update(file, library.isShared)
    })
    queue.forget(library.files.map((file) => file.key))
    if (library.files.length) empty.remove()
    else list.append(empty)
    const note = library.isShared ? '' : 'This project does not show users the state of their files. '
      + 'To change that, run ./deploy.sh database --share-status.'
    say(place('note'), note)
    show(place('note'), note !== '')
  })
  library.addEventListener('problem', ({ detail: error }) => {
    complain(`Your files cannot be loaded: ${error.message} The page tries again every few seconds.`)
  })
}

function complain(text) {
  say(place('problem'), text)
  show(place('problem'), text !== '')
}

start().catch((error) => complain(`The page cannot start: ${error.message}. Load it again.`))
