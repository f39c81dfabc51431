// Whom the page works for. In your own front end, write your project's address, publishable key and bucket here, and let
// `session` give what your sign-in has; with supabase-js: (await supabase.auth.getSession()).data.session.

/** Return the project, once its settings are there. */
export async function open() {
  const settings = await (await fetch('project.json')).json()
  return {
    url: settings.url,
    key: settings.publishable_key,
    bucket: settings.bucket,
    /** Who is signed in. It is asked before each request, since tokens expire. */
    async session() {
      const token = settings.access_token
      const claims = JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')))
      return { token, userId: claims.sub }
    },
  }
}
