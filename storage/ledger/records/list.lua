-- A tenant's generations, newest first, from one of its two indexes.
-- ARGV: 1 tenant, 2 'active' or 'history', 3 sequence to continue below or '+inf', 4 most records, 5 words that the prompt has
--       or '', 6... field, value to match
-- Returns {sequence to continue below or '', {field, value...}...}; a page may be short, or empty, and have a next all the same
-- All others wait for it: so many records are looked at, so many bytes of prompts searched, so many bytes returned.
local SCAN = 1000
local MOST_SEARCHED = 1000000
local MOST_RETURNED = 4000000
local searched, returned = 0, 0
local index = (ARGV[2] == 'active' and KEY.active or KEY.history) .. ARGV[1]
local below = ARGV[3] == '+inf' and '+inf' or '(' .. ARGV[3]
local fields = { 'id' }
for i = 6, #ARGV, 2 do fields[#fields + 1] = ARGV[i] end

-- Whether a record is one of those that are asked for; nil when it is gone. Its fields are read before the whole of it.
local function matches(key)
  local values = redis.call('HMGET', key, unpack(fields))
  if not values[1] then return nil end
  for i = 2, #values do
    if values[i] ~= ARGV[2 * i + 3] then return false end
  end
  if ARGV[5] == '' then return true end
  local texts = redis.call('HMGET', key, 'submission', 'edit')
  local text = texts[1] or texts[2] or ''
  searched = searched + #text
  local is_read, known = pcall(cjson.decode, text)
  local edit = is_read and (texts[1] and known.edit or known)
  return type(edit) == 'table' and type(edit.prompt) == 'string' and string.find(string.lower(edit.prompt), ARGV[5], 1, true) ~= nil
end

local entries = redis.call('ZREVRANGEBYSCORE', index, below, '-inf', 'WITHSCORES', 'LIMIT', 0, SCAN)
local page, continue = { '' }, ''
for i = 1, #entries, 2 do
  if #page - 1 == tonumber(ARGV[4]) or searched > MOST_SEARCHED or returned > MOST_RETURNED then
    continue = entries[i - 1]
    break
  end
  local key = KEY.generation .. entries[i]
  local is_one = matches(key)
  if is_one == nil then
    redis.call('ZREM', index, entries[i])
  elseif is_one then
    local record = redis.call('HGETALL', key)
    for _, value in ipairs(record) do returned = returned + #value end
    page[#page + 1] = record
  end
end
if continue == '' and #entries == SCAN * 2 then continue = entries[#entries] end
page[1] = continue
return page
