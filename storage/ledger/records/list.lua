-- A tenant's generations, newest first, from one of its two indexes; with the history those whose records are archived, too.
-- ARGV: 1 tenant, 2 'active' or 'history', 3 sequence to continue below or '+inf', 4 most records, 5 words that the prompt has
--       or '', 6... field, value to match
-- Returns {sequence to continue below or '', {field, value...} or {id} of an archived one that may match...}; a page may be short,
--   or empty, and have a next all the same
-- All others wait for it: so many records are looked at, so many bytes of prompts searched, so many bytes returned.
local SCAN = 1000
local MOST_SEARCHED = 1000000
local MOST_RETURNED = 4000000
local searched, returned = 0, 0
-- Where nothing is asked for, no more are looked at than are returned, and one to know whether there are more.
local most = #ARGV == 5 and ARGV[5] == '' and math.min(SCAN, tonumber(ARGV[4]) + 1) or SCAN
local tenant, below = ARGV[1], ARGV[3] == '+inf' and '+inf' or '(' .. ARGV[3]
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

-- What the archive's index has of the fields that are asked for. Others are looked at in the object store.
local wanted = {}
for i = 6, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if name == 'status' then wanted[2] = string.sub(value, 1, 1) end
  if name == 'model' then wanted[4] = archive_digest(value) end
  if name == 'namespace' then wanted[5] = archive_digest(value ~= tenant and value or '') end
  if name == 'group' then wanted[6] = archive_digest(value) end
end

local function may_match(entry)
  local place = 0
  for part in string.gmatch(entry .. '|', '([^|]*)|') do
    place = place + 1
    if wanted[place] and wanted[place] ~= part then return false end
  end
  return true
end

local function entries_of(index)
  return redis.call('ZREVRANGEBYSCORE', index .. tenant, below, '-inf', 'WITHSCORES', 'LIMIT', 0, most)
end

local here = entries_of(ARGV[2] == 'active' and KEY.active or KEY.history)
local archived = ARGV[2] == 'active' and {} or entries_of(KEY.archive)
local page, continue = { '' }, ''
local h, a, looked, last = 1, 1, 0, nil
while h < #here or a < #archived do
  if #page - 1 == tonumber(ARGV[4]) or searched > MOST_SEARCHED or returned > MOST_RETURNED or looked == most then
    continue = last
    break
  end
  looked = looked + 1
  if a > #archived or h < #here and tonumber(here[h + 1]) > tonumber(archived[a + 1]) then
    local id, key = here[h], KEY.generation .. here[h]
    last, h = here[h + 1], h + 2
    local is_one = matches(key)
    if is_one == nil then
      redis.call('ZREM', KEY.active .. tenant, id)
      redis.call('ZREM', KEY.history .. tenant, id)
    elseif is_one then
      local record = redis.call('HGETALL', key)
      for _, value in ipairs(record) do returned = returned + #value end
      page[#page + 1] = record
    end
  else
    if may_match(archived[a]) then page[#page + 1] = { string.match(archived[a], '^[^|]*') } end
    last, a = archived[a + 1], a + 2
  end
end
if continue == '' and looked == most then continue = last end
page[1] = continue
return page
