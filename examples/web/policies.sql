-- The policies that the page needs: signed-in users write to their own folder in bucket media, and read it and the
-- results of its files. Run it once, in Studio's SQL editor.

create policy "users add to their own folder" on storage.objects for insert to authenticated
with check (bucket_id = 'media' and (storage.foldername(name))[1] = (select auth.uid())::text);

create policy "users replace their own files" on storage.objects for update to authenticated
using (bucket_id = 'media' and (storage.foldername(name))[1] = (select auth.uid())::text);

create policy "users read their own files and results" on storage.objects for select to authenticated
using (
  bucket_id = 'media'
  and (select auth.uid())::text in (
    (storage.foldername(name))[1],
    case when (storage.foldername(name))[1] = 'processed' then (storage.foldername(name))[2] end
  )
);
