-- Whether a generation's record lies in the object store: what lies there without being known here is none.
-- ARGV: 1 tenant, 2 sequence, 3 id, 4 until when it lies there (ms since 1970), as the record says
local entry = archive_entry_of({ tenant = ARGV[1], sequence = ARGV[2], id = ARGV[3] })
return entry and archived_until(entry, tonumber(ARGV[4])) and 1 or 0
