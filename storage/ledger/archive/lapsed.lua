-- What a list tells of that is still as it says, archived and to go now, is listed as expired, ahead of lists that came to be due
-- later. From here on it is deleted as all else is, unless a retry keeps it. What ends is known no more.
-- ARGV: 1 JSON [{tenant, id, sequence, until_ms, due_ms, prefixes, is_end, erase}]
-- Returns 'gone', 'later' or 'due' for each; those with `erase` stay as they are, for the caller to bring back
local found, at = {}, now_ms()
for i, one in ipairs(cjson.decode(ARGV[1])) do
  local entry = archive_entry_of(one)
  local is_so = entry and archived_until(entry, one.until_ms)
  found[i] = not is_so and 'gone' or one.due_ms > at and 'later' or 'due'
  if found[i] == 'due' and not one.erase then
    for _, prefix in ipairs(one.prefixes) do redis.call('ZADD', KEY.expiring, 'NX', integer(one.due_ms), prefix) end
    if one.is_end then redis.call('ZREM', KEY.archive .. one.tenant, entry) end
  end
end
return found
