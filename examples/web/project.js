// The project and its user. In your own front end, write your project's address, publishable key and bucket here, and
// let `session` return your sign-in's session; with supabase-js: (await supabase.auth.getSession()).data.session.

/** Load the settings and return the project. */
export async function open() {
  const settings = await (await fetch('project.json')).json()
  return {
    url: settings.url,
    key: settings.publishable_key,
    bucket: settings.bucket,
    /** The signed-in user. Called before each request, because tokens expire. */
    async session() {
      const token = settings.access_token
      const claims = JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')))
      return { token, userId: claims.sub }
    },
  }
}
