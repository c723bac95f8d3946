-- Forgets a generation: its record with prompt and parameters, its events, webhooks and idempotency key. An unfinished one is
-- cancelled first. A caller deletes the objects; they are listed as soon expired, so that they go whatever becomes of it.
-- What was agreed to be erased by now is listed as expired: nobody else deletes it.
-- ARGV: 1 id, 2 tenant, 3 'events' to look for its events, too, 4 'due' for one that was agreed to be erased by now
-- Returns {'missing'} | {'erased', events, archived record, results prefix, inputs prefix or ''}
local record = record_of(ARGV[1])
if record.tenant ~= ARGV[2] then return { 'missing' } end
if ARGV[4] == 'due' then
  -- It may have been retried since it was listed.
  local due = redis.call('ZSCORE', KEY.erasing, record.id)
  if not due or tonumber(due) > now_ms() then return { 'missing' } end
end
local key, at = KEY.generation .. record.id, now_ms()
local spare_ms = ARGV[4] == 'due' and 0 or 10000
local events = 0
local function forget(stream, until_ms)
  events = events + forget_events(stream, record.created_ms, until_ms, 'id', record.id)
end
if ARGV[3] == 'events' then
  -- The last is its end.
  local until_ms = record.completed_ms and integer(tonumber(record.completed_ms) + 1000) or '+'
  forget(KEY.events .. record.tenant, until_ms)
  forget(KEY.live_events, until_ms)
  forget(KEY.webhook_log .. record.tenant, '+')
end
local is_unfinished = record.status == 'queued' or record.status == 'processing'
if is_unfinished then
  cancel(record, at)
end
local inputs = record.inputs or ''
if inputs ~= '' then
  -- Generations of one request share them; one that was cancelled is counted off already.
  local uses = KEY.input_uses .. inputs
  if not is_unfinished and record.status ~= 'cancelled' then redis.call('DECR', uses) end
  if tonumber(redis.call('GET', uses) or 0) > 0 then
    inputs = ''
  else
    redis.call('DEL', uses)
    redis.call('ZADD', KEY.expiring, integer(at + spare_ms), inputs)
  end
end
-- The others of its request go on without it: the first of them speaks for all.
local left = {}
for sibling in string.gmatch(record.siblings or '', '%S+') do
  if sibling ~= record.id and redis.call('EXISTS', KEY.generation .. sibling) == 1 then left[#left + 1] = sibling end
end
for _, sibling in ipairs(left) do
  -- It may have been passed over because this one was unfinished.
  local completed = redis.call('HGET', KEY.generation .. sibling, 'completed_ms')
  if completed then redis.call('ZADD', KEY.archiving, 'NX', completed, sibling) end
  if #left > 1 then
    redis.call('HSET', KEY.generation .. sibling, 'siblings', table.concat(left, ' '))
  else
    redis.call('HDEL', KEY.generation .. sibling, 'siblings')
  end
end
if left[1] and record.webhook_moments then
  -- What was told of its start is not told again, and tries go on where they were.
  local moments = record.started_ms and string.gsub(record.webhook_moments, 'start,?', '') or record.webhook_moments
  redis.call('HSET', KEY.generation .. left[1], 'webhook_moments', moments, 'tries_completed', record.tries_completed or 0)
  local due = redis.call('ZSCORE', KEY.webhooks .. record.tenant, record.id .. '/completed')
  if due then webhook_at(record.tenant, left[1] .. '/completed', tonumber(due)) end
end
redis.call('ZADD', KEY.expiring, integer(at + spare_ms), record.results)
-- Its record may have been written to the object store: once, or just now, which is not over yet.
if not redis.call('ZSCORE', KEY.expiring, archived_at(record)) then redis.call('ZADD', KEY.expiring, integer(at), archived_at(record)) end
-- Both once more, when what is under way has come: a worker may be about to store a result, or an archiver the record, and may die
-- before it removes it again. Under names of their own, since what is there by now does not wait for that.
if (tonumber(record.token) or 0) > 0 then
  local late_ms = (tonumber(record.execution_limit_s) or 0) * 1000 + STORING_MS
  redis.call('ZADD', KEY.expiring, integer(at + late_ms), (string.gsub(record.results, '/$', '')))
end
if record.completed_ms then
  redis.call('ZADD', KEY.expiring, integer(at + STORING_MS), (string.gsub(archived_at(record), '%.json$', '')))
end
counted_bytes(record, -1)
redis.call('DEL', key)
redis.call('ZREM', KEY.history .. record.tenant, record.id)
redis.call('ZREM', KEY.parked, record.id)
redis.call('ZREM', KEY.erasing, record.id)
redis.call('ZREM', KEY.archiving, record.id)
webhook_gone(record.tenant, record.id .. '/start')
webhook_gone(record.tenant, record.id .. '/completed')
-- What is left of its request is still to be found by its key, which may have been used again since, for another request.
local noted = record.idempotency and KEY.idempotency .. record.tenant .. ':' .. record.idempotency
local seen = noted and redis.call('GET', noted)
if seen and string.find(seen, record.id, 1, true) then
  seen = cjson.decode(seen)
  local ids = {}
  for _, id in ipairs(seen.ids) do
    if id ~= record.id then ids[#ids + 1] = id end
  end
  if ids[1] then
    seen.ids = ids
    redis.call('SET', noted, cjson.encode(seen), 'KEEPTTL')
  else
    redis.call('DEL', noted)
  end
end
return { 'erased', events, archived_at(record), record.results, inputs }
