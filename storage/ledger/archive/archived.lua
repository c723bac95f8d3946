-- Requests lie in the object store: their records leave, except those that changed since they were read. What was written of
-- those, or too late, is to be deleted.
-- ARGV: 1 JSON {lists: [{key, due_ms}], requests: [[{tenant, id, sequence, stamp, until_ms}]], held, events_ms}; `held` is until
--       when they were held, `until_ms` when all of it goes, `lists` the objects that tell what goes when, `events_ms` how long events
--       are kept
-- Returns 1 or 0 for each request
local asked = cjson.decode(ARGV[1])
local at, moved, tenants = now_ms(), {}, {}

-- Whether what was written is not being deleted: its deletion holds it, too.
local function is_held(key)
  local due = redis.call('ZSCORE', KEY.expiring, key)
  return due and integer(due) == asked.held and tonumber(due) > at
end

local function unchanged(request)
  local records = {}
  for i, one in ipairs(request) do
    local record = record_of(one.id)
    if not record.id or stamp(record) ~= one.stamp or not is_held(archived_at(record)) then return nil end
    records[i] = record
  end
  return records
end

-- What is to be deleted later than now is told by the lists from here on.
local function listed(prefix)
  local due = tonumber(redis.call('ZSCORE', KEY.expiring, prefix))
  if due and due > at then redis.call('ZREM', KEY.expiring, prefix) end
end

-- What was written of a generation that did not move: it stays where its record is here, which goes another time.
local function left_over(one)
  local key = archived_at(one)
  local completed = redis.call('HGET', KEY.generation .. one.id, 'completed_ms')
  if completed and is_held(key) then
    redis.call('ZREM', KEY.expiring, key)
    redis.call('ZADD', KEY.archiving, 'XX', completed, one.id)
  elseif is_held(key) or redis.call('EXISTS', KEY.generation .. one.id) == 0 and not archive_entry_of(one) then
    redis.call('ZADD', KEY.expiring, integer(at), key)
  end
end

local all_held = true
for _, list in ipairs(asked.lists) do all_held = all_held and is_held(list.key) end
-- One that is not held may have been deleted before it was written.
for _, list in ipairs(asked.lists) do redis.call('ZADD', KEY.expiring, integer(list.due_ms), list.key) end
for i, request in ipairs(asked.requests) do
  local records = all_held and unchanged(request)
  moved[i] = records and 1 or 0
  for _, one in ipairs(records and {} or request) do left_over(one) end
  for n, record in ipairs(records or {}) do
    redis.call('DEL', KEY.generation .. record.id)
    redis.call('ZREM', KEY.history .. record.tenant, record.id)
    redis.call('ZREM', KEY.archiving, record.id)
    redis.call('ZREM', KEY.erasing, record.id)
    redis.call('ZREM', KEY.parked, record.id)
    redis.call('ZREM', KEY.expiring, archived_at(record))
    listed(record.results)
    if record.inputs then
      redis.call('DEL', KEY.input_uses .. record.inputs)
      listed(record.inputs)
    end
    redis.call('ZADD', KEY.archive .. record.tenant, record.sequence, archive_entry(record, request[n].until_ms))
    counted_bytes(record, -1)
    tenants[record.tenant] = true
  end
end
for tenant in pairs(tenants) do
  redis.call('EXPIRE', KEY.archive .. tenant, LIFE.history)
  redis.call('XTRIM', KEY.events .. tenant, 'MINID', '~', integer(at - asked.events_ms))
end
return moved
