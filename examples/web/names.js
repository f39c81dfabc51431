// Names that Supabase Storage accepts: ASCII letters, digits and some signs.

const REFUSED = /[^A-Za-z0-9_!.*'() &$@=;:+,?-]/gu
const LONGEST = 180

/** Return a name that can be stored: accents are removed, other refused characters become underscores. */
export function storableName(name) {
  let clean = name.normalize('NFKD').replace(/\p{M}/gu, '').replace(REFUSED, '_').trim()
  if (/^\.*$/.test(clean)) clean = `file${clean.replaceAll('.', '_')}`
  if (clean.length > LONGEST) {
    const [extension] = clean.match(/\.[^.]{1,10}$/) ?? ['']
    clean = clean.slice(0, LONGEST - extension.length) + extension
  }
  return clean
}
