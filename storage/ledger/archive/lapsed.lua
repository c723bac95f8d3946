-- Which of those that a list told of are still as it says: archived, and to go then.
-- ARGV: 1 JSON [{tenant, id, sequence, until_ms}], 2 'forget' for those that are gone from the object store, or ''
-- Returns 1 or 0 for each
local found = {}
for i, one in ipairs(cjson.decode(ARGV[1])) do
  local entry = archive_entry_of(one)
  local goes = string.match(entry or '', '|%a|(%x+)|')
  found[i] = goes and tonumber(goes, 16) == math.ceil(one.until_ms / 1000) and 1 or 0
  if found[i] == 1 and ARGV[2] == 'forget' then redis.call('ZREM', KEY.archive .. one.tenant, entry) end
end
return found
