-- A tenant's generations, newest first, from one of its two indexes.
-- ARGV: 1 tenant, 2 'active' or 'history', 3 sequence to continue below or '+inf', 4 most records, 5 words that the prompt has
--       or '', 6... field, value to match
-- Returns {sequence to continue below or '', {field, value...}...}
local SCAN = 1000
-- Bytes of prompts that one call looks through: others wait for it.
local MOST_SEARCHED = 1000000
local searched = 0
local index = (ARGV[2] == 'active' and KEY.active or KEY.history) .. ARGV[1]
local below = ARGV[3] == '+inf' and '+inf' or '(' .. ARGV[3]
local function matches(record)
  for i = 6, #ARGV, 2 do
    if record[ARGV[i]] ~= ARGV[i + 1] then return false end
  end
  if ARGV[5] == '' then return true end
  local text = record.submission or record.edit or ''
  searched = searched + #text
  local is_read, known = pcall(cjson.decode, text)
  local edit = is_read and (record.submission and known.edit or known)
  return type(edit) == 'table' and type(edit.prompt) == 'string' and string.find(string.lower(edit.prompt), ARGV[5], 1, true) ~= nil
end
local entries = redis.call('ZREVRANGEBYSCORE', index, below, '-inf', 'WITHSCORES', 'LIMIT', 0, SCAN)
local page, continue = { '' }, ''
for i = 1, #entries, 2 do
  if #page - 1 == tonumber(ARGV[4]) or searched > MOST_SEARCHED then
    continue = entries[i - 1]
    break
  end
  local record = redis.call('HGETALL', KEY.generation .. entries[i])
  local r = named(record)
  if not r.id then
    redis.call('ZREM', index, entries[i])
  elseif matches(r) then
    page[#page + 1] = record
  end
end
if continue == '' and #entries == SCAN * 2 then continue = entries[#entries] end
page[1] = continue
return page
