// Uses the functions of docs/front-end.md, which the test puts in front of this script. Prints what it has seen.

const heard = []
await new Promise((resolve) => listen((file) => heard.push(file), resolve))
const foreign = supabase.channel(`ittybit:${SOMEBODY_ELSE}`, { config: { private: true } })
const refusal = await new Promise((resolve) => foreign.subscribe((status, error) => {
  if (status !== 'CLOSED') resolve(`${status} ${error?.message ?? ''}`)
}))

await upload(new Blob([await readFile(PICTURE)], { type: 'image/png' }), 'lake.png')
const sent = []
await uploadResumable(await readFile(SOUND), 'long.wav', 'audio/wav', (bytes) => sent.push(bytes))

let file
do {
  await new Promise((resolve) => setTimeout(resolve, 200))
  ;[file] = await files()
} while (!['succeeded', 'failed'].includes(file.state))
const [address] = await addresses(file.results)
const result = Buffer.from(await (await fetch(address)).arrayBuffer())
await supabase.removeAllChannels()

console.log(JSON.stringify({
  file, refusal, result: result.toString('latin1', 8, 12), parts: sent.length,
  heard: heard.map(({ state }) => state), last: heard.at(-1),
}))
