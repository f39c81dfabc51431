// The developer's tools on the embedded stack: rules and a preview of each, pause and resume, explain, the doctor. They
// call local/page.py with the token of the printed address. Without a token, nothing is shown.

import { announce, element, say, show } from './dom.js'

const STORE = 'developer'

/** With a token, fill the section and return {why(file)}; without one, return null. */
export async function developer(section, library) {
  const call = caller()
  if (!call) return null
  section.append(await rulesPart(call, library), doctorPart(call))
  show(section, true)
  return { why: (file) => whyPart(call, file) }
}

/** Move the token from the address, and so from the history, to this tab; return a function for calls, or null. */
function caller() {
  const [, given] = /^#developer=([\w-]+)$/.exec(location.hash) ?? []
  if (given) {
    sessionStorage.setItem(STORE, given)
    history.replaceState(null, '', location.pathname)
  }
  const token = sessionStorage.getItem(STORE)
  return token && (async (method, path, body) => {
    const answer = await fetch(`developer/${path}`, {
      method, headers: { Authorization: `Bearer ${token}` }, body: body && JSON.stringify(body),
    })
    const content = await answer.json()
    if (!answer.ok) throw new Error(content.message)
    return content
  })
}

function whyPart(call, file) {
  const answers = element('ul', { class: 'facts' })
  const part = element('details', { class: 'why' }, element('summary', {}, 'Why?'), answers)
  part.addEventListener('toggle', async () => {
    if (!part.open) return
    const { rules } = await call('GET', `explain?${new URLSearchParams({ name: file.key })}`)
    answers.replaceChildren(...rules.map((rule) => element('li', {},
      element('strong', {}, rule.rule), ` ${rule.matches ? 'matches' : 'does not match'}: ${rule.because}`,
      rule.state ? ` (${[rule.state, rule.reason, rule.error].filter(Boolean).join(', ')})` : '')))
    if (!rules.length) answers.append(element('li', {}, 'There are no rules.'))
  })
  return part
}

async function rulesPart(call, library) {
  const starting = element('span', {})
  const switching = element('button', { type: 'button' })
  const rows = element('tbody')
  const problem = element('p', { class: 'problem', role: 'alert', hidden: true })
  let paused = false

  async function refresh() {
    const answer = await call('GET', 'rules')
    paused = answer.paused
    say(starting, `Starting: ${answer.starting}`)
    say(switching, paused ? 'Resume' : 'Pause')
    rows.replaceChildren(...answer.rules.map(ruleRow))
  }

  async function attempt(work) {
    try {
      await work()
      show(problem, false)
      await refresh()
    } catch (error) {
      say(problem, error.message)
      show(problem, true)
    }
  }

  function ruleRow(rule) {
    const toggle = element('input', {
      type: 'checkbox', role: 'switch', checked: rule.enabled, 'aria-label': `Rule ${rule.name}`,
      onchange: () => attempt(() => call('PATCH', `rules/${encodeURIComponent(rule.name)}`, { enabled: toggle.checked })),
    })
    return element('tr', {}, element('td', {}, toggle), element('th', { scope: 'row' }, rule.name),
      element('td', {}, rule.path), element('td', {}, rule.mimetype ?? 'any'), element('td', {}, rule.kind),
      element('td', {}, rule.destination ?? 'stays at ittybit'))
  }

  switching.addEventListener('click', () => attempt(() => call('POST', paused ? 'resume' : 'pause')))
  await refresh()
  return element('div', { class: 'card' },
    element('div', { class: 'row' }, starting, switching), problem,
    element('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Rules' },
      element('table', {},
        element('thead', {}, element('tr', {}, ...['On', 'Rule', 'Files', 'Type', 'Makes', 'Result'].map((name) => element('th', { scope: 'col' }, name)))),
        rows)),
    ruleForm(call, attempt, library))
}

/** The form of a new rule. While it is filled in, it shows which of the files here the rule would match. */
function ruleForm(call, attempt, library) {
  const field = (label, name, properties) => element('label', {}, label, element('input', { name, autocomplete: 'off', spellcheck: 'false', ...properties }))
  const choice = (label, name, values) => element('label', {}, label,
    element('select', { name }, ...Object.entries(values).map(([value, text]) => element('option', { value }, text))))
  const verdict = element('p', { class: 'meta', role: 'status' })
  const files = element('ul', { class: 'facts' })
  const form = element('form', { class: 'rule' },
    field('Name', 'name', { value: 'small', required: true }),
    field('Files', 'path', { value: '**', required: true }),
    choice('Type', 'mimetype', { 'image/*': 'pictures', 'video/*': 'videos', 'audio/*': 'sounds', '': 'any' }),
    choice('Makes', 'kind', { image: 'a picture', video: 'a video', audio: 'a sound' }),
    field('Options', 'options', { value: '{"width": 160}' }),
    field('Result', 'destination', { value: 's3://media/processed/{dir}{stem}-small.jpeg', class: 'wide' }),
    element('button', {}, 'Add the rule'))
  let timer

  function written() {
    const { name, path, mimetype, kind, options, destination } = Object.fromEntries(new FormData(form))
    return { name, path, mimetype: mimetype || null, kind, options: JSON.parse(options || '{}'), destination: destination || null }
  }

  async function tryOut() {
    try {
      const tried = (await call('POST', 'trial', written())).files
      const taken = tried.filter((file) => file.why_not === null)
      say(verdict, `It would match ${taken.length} of the ${tried.length} newest files here. Once added, it matches later uploads.`)
      files.replaceChildren(...tried.slice(0, 8).map((file) => element('li', { 'data-taken': String(file.why_not === null) },
        element('strong', {}, file.name.slice(file.name.indexOf('/') + 1)), ` ${file.why_not ?? `→ ${file.destination ?? 'stays at ittybit'}`}`)))
    } catch (error) {
      say(verdict, `It cannot be added like this: ${error.message}`)
      files.replaceChildren()
    }
  }

  function soon() {
    clearTimeout(timer)
    timer = setTimeout(tryOut, 250)
  }

  form.addEventListener('input', soon)
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    attempt(async () => {
      await call('POST', 'rules', written())
      announce('The rule was added.')
    }).then(soon)
  })
  const part = element('details', { class: 'new' }, element('summary', {}, 'Add a rule'), form, verdict, files)
  part.addEventListener('toggle', () => { if (part.open) tryOut() })
  let known = -1
  library.addEventListener('change', () => {
    if (part.open && known !== library.files.length) soon()
    known = library.files.length
  })
  return part
}

function doctorPart(call) {
  const lines = element('ul', { class: 'facts' })
  const part = element('details', { class: 'card doctor' }, element('summary', {}, 'Doctor'), lines)
  part.addEventListener('toggle', async () => {
    if (!part.open) return
    const answer = await call('GET', 'doctor')
    lines.replaceChildren(...answer.lines.map((line) => element('li', {},
      element('span', { class: 'chip', 'data-verdict': line.verdict }, line.verdict), element('strong', {}, line.check), ` ${line.saw}`,
      line.remedy && line.verdict !== 'ok' ? element('em', {}, ` ${line.remedy}`) : null)))
  })
  return part
}
