-- Which of those that a list told of are still as it says: archived, and to go then.
-- ARGV: 1 JSON [{tenant, id, sequence, until_ms, due_ms}], 2 'forget' for those that are gone from the object store, or ''
-- Returns 'gone', 'later' or 'due' for each
local found, at = {}, now_ms()
for i, one in ipairs(cjson.decode(ARGV[1])) do
  local entry = archive_entry_of(one)
  local is_so = entry and archived_until(entry, one.until_ms)
  found[i] = not is_so and 'gone' or one.due_ms > at and 'later' or 'due'
  if found[i] == 'due' and ARGV[2] == 'forget' then redis.call('ZREM', KEY.archive .. one.tenant, entry) end
end
return found
