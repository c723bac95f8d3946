-- Put before every script, after what `storage/keys.py` names: the server's clock, the event log, and the moves several transitions share.

local SAMPLES_KEPT = 200
local DAY_MS = 86400000
-- What a worker takes at the most, after an edit's time is over, to store a result and find that nobody wants it.
local STORING_MS = 300000
-- What a record takes beside its submission, with its places in the indexes.
local RECORD_BYTES = 2048

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function integer(n)
  return string.format('%.0f', n)
end

-- A flat reply or hash as a table by name.
local function named(flat)
  local result = {}
  for i = 1, #flat, 2 do result[flat[i]] = flat[i + 1] end
  return result
end

local function record_of(id)
  return named(redis.call('HGETALL', KEY.generation .. id))
end

-- Tells two states of a record apart.
local function stamp(record)
  local names = {}
  for name in pairs(record) do names[#names + 1] = name end
  table.sort(names)
  local parts = {}
  for _, name in ipairs(names) do
    parts[#parts + 1] = #name .. ' ' .. #record[name] .. ' ' .. name .. record[name]
  end
  return redis.sha1hex(table.concat(parts))
end

-- The object that a record goes to.
local function archived_at(record)
  return 'records/' .. record.tenant .. '/' .. record.id .. '.json'
end

-- A value as it stands in the archive's index: lists compare with it.
local function archive_digest(value)
  return (value or '') == '' and '' or string.sub(redis.sha1hex(value), 1, 6)
end

local function archive_entry(record, until_ms)
  local namespace = record.namespace ~= record.tenant and record.namespace or ''
  return table.concat({
    record.id, string.sub(record.status, 1, 1), string.format('%x', math.ceil(until_ms / 1000)),
    archive_digest(record.model), archive_digest(namespace), archive_digest(record.group),
  }, '|')
end

-- Whether an entry of the archive's index is of what lies there until then.
local function archived_until(entry, until_ms)
  local seconds = string.match(entry, '^[^|]*|%a|(%x+)|')
  return seconds and tonumber(seconds, 16) == math.ceil(until_ms / 1000)
end

-- What the archive's index has of a generation, given its tenant, id and sequence; nil when it is not archived.
local function archive_entry_of(one)
  local entry = redis.call('ZRANGEBYSCORE', KEY.archive .. one.tenant, one.sequence, one.sequence)[1]
  return entry and string.sub(entry, 1, #one.id + 1) == one.id .. '|' and entry or nil
end

-- Whether all lines of a batch came to something.
local function batch_is_over(batch)
  local over = tonumber(batch.succeeded or 0) + tonumber(batch.failed or 0) + tonumber(batch.cancelled or 0)
  return over >= tonumber(batch.total) - tonumber(batch.refused)
end

-- Somebody is to look at a batch, as soon as nobody does.
local function batch_woken(id)
  local held = tonumber(redis.call('HGET', KEY.batch .. id, 'held') or 0)
  if held <= now_ms() then redis.call('ZADD', KEY.batch_turns, integer(now_ms()), id) end
end

-- Prefix of a batch's objects.
local function batch_folder(tenant, id)
  return 'batches/' .. tenant .. '/' .. id .. '/'
end

-- It counts among its tenant's unfinished ones, and its objects are kept.
local function batch_opened(tenant, id)
  redis.call('ZADD', KEY.expiring, integer(now_ms() + LIFE.waiting * 1000), batch_folder(tenant, id))
  redis.call('SADD', KEY.open_batches .. tenant, id)
  redis.call('EXPIRE', KEY.open_batches .. tenant, LIFE.history)
end

-- One more of a batch's generations, or with `by` -1 one less, came to this.
local function batch_counted(record, status, by)
  local key = record.batch and KEY.batch .. record.batch
  if not key or redis.call('EXISTS', key) == 0 then return end
  redis.call('HINCRBY', key, status, by)
  local batch = named(redis.call('HGETALL', key))
  if by < 0 and batch.phase == 'over' then
    redis.call('HSET', key, 'phase', 'running')
    redis.call('HDEL', key, 'completed_ms', 'stopped')
    redis.call('EXPIRE', key, LIFE.waiting)
    batch_opened(record.tenant, record.batch)
  elseif batch_is_over(batch) then
    batch_woken(record.batch)
  end
end

-- A record comes (1) or goes (-1): its bytes count to its tenant's. One of a release before was not counted.
local function counted_bytes(record, sign)
  if not record.bytes then return end
  if redis.call('HINCRBY', KEY.bytes, record.tenant, sign * tonumber(record.bytes)) <= 0 then
    redis.call('HDEL', KEY.bytes, record.tenant)
  end
end

-- Why so many more bytes of a tenant's are not taken, as a reply; nil when they are.
local function too_heavy(tenant, more, most)
  local bytes = tonumber(redis.call('HGET', KEY.bytes, tenant) or 0)
  if most and bytes + more > most then return { 'heavy', bytes } end
end

-- When a webhook may ask to be called.
local MOMENT = {
  media_generation_started = 'start', media_generation_completed = 'completed', media_generation_cancelled = 'completed',
}

-- When a tenant's first webhook is due it has a turn, and keeps the one it waits for; with none left it has none.
local function webhook_turn(tenant)
  local first = redis.call('ZRANGE', KEY.webhooks .. tenant, 0, 0, 'WITHSCORES')
  if not first[2] then
    redis.call('ZREM', KEY.webhook_turns, tenant)
    return
  end
  local at, due = now_ms(), tonumber(first[2])
  local turn = tonumber(redis.call('ZSCORE', KEY.webhook_turns, tenant))
  -- One that was served a moment ago has its turn a millisecond from now.
  local has_one = turn and turn <= at + 1 and due <= at
  if not has_one then redis.call('ZADD', KEY.webhook_turns, integer(due > at and due or at), tenant) end
end

local function webhook_at(tenant, member, at_ms)
  redis.call('ZADD', KEY.webhooks .. tenant, integer(at_ms), member)
  webhook_turn(tenant)
end

local function webhook_gone(tenant, member)
  if redis.call('ZREM', KEY.webhooks .. tenant, member) == 1 then webhook_turn(tenant) end
end

-- Whether a generation is not over. One that was erased is.
local function is_unfinished(id)
  local key = KEY.generation .. id
  return redis.call('EXISTS', key) == 1 and redis.call('HEXISTS', key, 'completed_ms') == 0
end

-- Of several generations of one request the first one's webhook speaks for all: it starts with the first, ends with the last.
local function webhook_due(record, moment)
  local speaker = record.siblings and string.match(record.siblings, '%S+') or record.id
  local known = redis.call('HMGET', KEY.generation .. speaker, 'webhook_moments', 'callback_moments')
  -- The second is what records of versions 1 and 2 have.
  local moments = known[1] or known[2]
  if not moments or not string.find(moments, moment, 1, true) then return end
  if moment == 'start' and speaker ~= record.id then return end
  for sibling in string.gmatch(moment == 'completed' and record.siblings or '', '%S+') do
    if is_unfinished(sibling) then return end
  end
  -- One that lost its worker starts again; that is told once.
  if moment == 'start' and redis.call('HEXISTS', KEY.generation .. speaker, 'told_start') == 1 then return end
  local at = now_ms()
  if moment == 'completed' and redis.call('HEXISTS', KEY.generation .. speaker, 'tries_start') == 0 then
    -- Not before the start was told, be it without success: `called` has it told then.
    at = math.max(at, tonumber(redis.call('ZSCORE', KEY.webhooks .. record.tenant, speaker .. '/start') or 0))
  end
  webhook_at(record.tenant, speaker .. '/' .. moment, at)
end

-- Progress goes to the live stream only: a reader that comes back wants what happened, not how far it once was.
local function emit(type, record, status, extra)
  if MOMENT[type] then webhook_due(record, MOMENT[type]) end
  local entry = { 'type', type, 'id', record.id, 'tenant', record.tenant, 'model', record.model, 'status', status }
  for _, value in ipairs(extra or {}) do entry[#entry + 1] = value end
  local cursor = redis.call('XADD', KEY.live_events, 'MAXLEN', '~', LOG_LENGTH, '*', unpack(entry))
  redis.call('EXPIRE', KEY.live_events, LIFE.events)
  if type ~= 'media_generation_progress' then
    local log = KEY.events .. record.tenant
    redis.call('XADD', log, 'MAXLEN', '~', LOG_LENGTH, cursor, unpack(entry))
    redis.call('EXPIRE', log, LIFE.events)
  end
  return cursor
end

-- Deletes the entries of a stream that are about something: a page at a time, for previews of pictures are among them.
local PAGE = 200
local function forget_events(stream, from, to, field, value)
  local deleted = 0
  repeat
    local page = redis.call('XRANGE', stream, from, to, 'COUNT', PAGE)
    for _, entry in ipairs(page) do
      if named(entry[2])[field] == value then deleted = deleted + redis.call('XDEL', stream, entry[1]) end
      from = '(' .. entry[1]
    end
  until #page < PAGE
  return deleted
end

-- Notes what was done to an API key, and by whom.
local function key_noted(action, id, tenant, by)
  redis.call('XADD', KEY.audit, 'MAXLEN', '~', LOG_LENGTH, '*', 'action', action, 'key', id, 'tenant', tenant, 'by', by)
  redis.call('EXPIRE', KEY.audit, LIFE.audit)
  return 1
end

-- Remembers an API key; `key` is JSON {expires_ms?, ...}.
local function key_issued(id, tenant, key, by)
  local name, expires = KEY.api_key .. id, cjson.decode(key).expires_ms
  redis.call('HSET', name, 'key', key)
  if expires and expires ~= cjson.null then
    redis.call('HSET', name, 'expires_ms', integer(expires))
    redis.call('PEXPIREAT', name, integer(expires))
  end
  redis.call('HSET', KEY.api_keys, id, tenant)
  return key_noted('issued', id, tenant, by)
end

-- Ends an API key after so many ms, or earlier where it ends by itself. Returns its record as a flat list, empty where it is none.
local function key_ended(id, after_ms, by)
  local name = KEY.api_key .. id
  local record = redis.call('HGETALL', name)
  if #record == 0 then return {} end
  local at = now_ms() + after_ms
  local before = tonumber(named(record).expires_ms)
  if before and before < at then at = before end
  redis.call('HSET', name, 'expires_ms', integer(at))
  record = redis.call('HGETALL', name)
  redis.call('PEXPIREAT', name, integer(at))
  key_noted('revoked', id, redis.call('HGET', KEY.api_keys, id), by)
  return record
end

-- A cursor just before whatever is emitted next.
local function last_cursor()
  local last = redis.call('XREVRANGE', KEY.live_events, '+', '-', 'COUNT', 1)
  if #last > 0 then return last[1][1] end
  return integer(now_ms() - 1) .. '-0'
end

-- Why so many more generations of a tenant are not accepted, as a reply; nil when they are.
local function refusal(tenant, more, max_active, max_queued)
  local active = redis.call('ZCARD', KEY.active .. tenant)
  if active + more > max_active then return { 'full', active } end
  local queued = 0
  for _, depth in ipairs(redis.call('HVALS', KEY.depths)) do queued = queued + tonumber(depth) end
  if queued + more > max_queued then return { 'crowded', queued } end
end

-- Until when it may wait in the queue: so long from `at_ms`, but not beyond the request's own deadline.
local function wait_until(record, at_ms, queue_ttl_ms)
  local until_ms = at_ms + tonumber(queue_ttl_ms)
  redis.call('ZADD', KEY.deadlines, integer(math.min(until_ms, tonumber(record.deadline_ms) or until_ms)), record.id)
end

-- A generation's place among those of its tenant: as if it had arrived ten minutes later for each step of its priority, and not
-- after its deadline. Counted from 2024, so that what arrives in the same millisecond keeps its order.
local PRIORITY_MS, FROM_MS = 600000, 1704067200000
local function place(record)
  local at = tonumber(record.placed_ms or record.created_ms) + tonumber(record.priority) * PRIORITY_MS
  if record.deadline_ms then at = math.min(at, tonumber(record.deadline_ms)) end
  return math.max(0, at - FROM_MS) * 10000 + tonumber(record.sequence) % 10000
end

-- Into the pending ring. `first` puts a tenant that had nothing pending at the head: recovered work does not queue up anew.
local function enqueue(record, first)
  local pending = KEY.pending .. record.queue .. ':' .. record.tenant
  if redis.call('EXISTS', pending) == 0 then
    redis.call(first and 'LPUSH' or 'RPUSH', KEY.ring .. record.queue, record.tenant)
  end
  redis.call('ZADD', pending, integer(place(record)), record.id)
  redis.call('HINCRBY', KEY.depths, record.queue, 1)
  if record.chain then redis.call('ZADD', KEY.chained, integer(now_ms()), record.id) end
end

local function one_less(queue)
  if redis.call('HINCRBY', KEY.depths, queue, -1) <= 0 then redis.call('HDEL', KEY.depths, queue) end
end

-- processing -> queued, at once or after a rest. `depths` counts what can be claimed, so the resting are not in it.
local function requeue(record, rest_ms)
  redis.call('ZREM', KEY.leases, record.id)
  redis.call('HSET', KEY.generation .. record.id, 'status', 'queued', 'queued_ms', integer(now_ms() + rest_ms))
  redis.call('HDEL', KEY.generation .. record.id, 'started_ms', 'step', 'worker', 'phase', 'gpu_type', 'region')
  webhook_gone(record.tenant, record.id .. '/start')
  if rest_ms > 0 then
    redis.call('ZADD', KEY.due, integer(now_ms() + rest_ms), record.id)
  else
    enqueue(record, true)
  end
  -- It waits anew: what it waited before the first claim is not held against it.
  wait_until(record, now_ms() + rest_ms, record.queue_ttl_ms)
  emit('media_generation_queued', record, 'queued', { 'attempts', record.attempts })
end

-- Out of the pending ring or the resting, for good.
local function unqueue(record)
  if redis.call('ZREM', KEY.due, record.id) == 1 then return end
  local pending = KEY.pending .. record.queue .. ':' .. record.tenant
  redis.call('ZREM', pending, record.id)
  if redis.call('EXISTS', pending) == 0 then redis.call('LREM', KEY.ring .. record.queue, 1, record.tenant) end
  one_less(record.queue)
end

local function count(record, what)
  redis.call('HINCRBY', KEY.tally .. record.tenant, record.model .. ':' .. what, 1)
  redis.call('EXPIRE', KEY.tally .. record.tenant, LIFE.history)
end

-- What an execution was like, for its target's statistics.
local function note_sample(target, sample)
  redis.call('LPUSH', KEY.samples .. target, sample)
  redis.call('LTRIM', KEY.samples .. target, 0, SAMPLES_KEPT - 1)
  redis.call('EXPIRE', KEY.samples .. target, LIFE.samples)
  redis.call('SADD', KEY.targets, target)
  redis.call('EXPIRE', KEY.targets, LIFE.samples)
end

-- Millionths of a dollar that a tenant's month is held liable for until a generation is over.
local function reserve(record, amount)
  if not record.reserve or amount == 0 then return end
  redis.call('HINCRBY', KEY.usage .. record.tenant .. ':' .. record.month, 'reserved', integer(amount))
  redis.call('EXPIRE', KEY.usage .. record.tenant .. ':' .. record.month, LIFE.usage)
end

-- What a month would come to beyond its budget, as a reply; nil when it would not.
local function overdraft(tenant, month, budget, more)
  local known = redis.call('HMGET', KEY.usage .. tenant .. ':' .. month, 'spent', 'reserved')
  local liable = tonumber(known[1] or 0) + tonumber(known[2] or 0)
  if liable + more > budget then return { 'overdrawn', liable } end
end

-- All of a request is erased so long after the last of its generations is over, where less than the usual time was agreed.
local function erase_later(record, at_ms)
  local ids = {}
  for id in string.gmatch(record.siblings or record.id, '%S+') do
    local key = KEY.generation .. id
    if redis.call('EXISTS', key) == 1 then
      if redis.call('HEXISTS', key, 'completed_ms') == 0 then return end
      ids[#ids + 1] = id
    end
  end
  for _, id in ipairs(ids) do redis.call('ZADD', KEY.erasing, integer(at_ms + tonumber(record.keep_ms)), id) end
end

-- any unfinished state -> a terminal one; `delete_ms` is when its stored result, if any, is to be removed.
local function settle(record, status, at_ms, delete_ms, fields)
  local key = KEY.generation .. record.id
  redis.call('HSET', key, 'status', status, 'completed_ms', integer(at_ms), unpack(fields))
  redis.call('EXPIRE', key, LIFE.record)
  count(record, status)
  batch_counted(record, status, 1)
  reserve(record, -1 * tonumber(record.reserve or 0))
  redis.call('ZREM', KEY.leases, record.id)
  redis.call('ZREM', KEY.deadlines, record.id)
  if record.chain then redis.call('ZREM', KEY.chained, record.id) end
  redis.call('ZREM', KEY.active .. record.tenant, record.id)
  redis.call('ZADD', KEY.archiving, integer(at_ms), record.id)
  if record.keep_ms then erase_later(record, at_ms) end
  if status ~= 'succeeded' and record.status == 'processing' then
    -- Its worker may be about to store a result, and may die before it removes it again.
    delete_ms = math.max(delete_ms, at_ms + (tonumber(record.execution_limit_s) or 0) * 1000 + STORING_MS)
  end
  redis.call('ZADD', KEY.expiring, integer(delete_ms), record.results)
  if record.inputs then
    local unused = status == 'cancelled' and redis.call('DECR', KEY.input_uses .. record.inputs) <= 0
    redis.call('EXPIRE', KEY.input_uses .. record.inputs, LIFE.waiting)
    redis.call('ZADD', KEY.expiring, integer(unused and at_ms or at_ms + LIFE.record * 1000), record.inputs)
  end
end

-- Out of the queue for good, or off its worker, which is told.
local function stop(record)
  if record.status == 'queued' then
    unqueue(record)
  else
    redis.call('PUBLISH', KEY.stopped, record.id)
  end
end

-- queued | processing -> cancelled.
local function cancel(record, at_ms)
  stop(record)
  settle(record, 'cancelled', at_ms, at_ms, {})
  emit('media_generation_cancelled', record, 'cancelled', {})
end

local function settle_failed(record, at_ms, code, message)
  settle(record, 'failed', at_ms, at_ms, { 'error_code', code, 'error_message', message })
  emit('media_generation_completed', record, 'failed', { 'error_code', code, 'error_message', message })
end

-- Kept apart for an operator to look at.
local function park(record, at_ms)
  redis.call('ZADD', KEY.parked, integer(at_ms), record.id)
  redis.call('EXPIRE', KEY.parked, LIFE.parked)
end

-- failed -> queued, attempts counted from zero, because somebody asks for it.
local function revive(record, queue_ttl_ms)
  local key, at = KEY.generation .. record.id, now_ms()
  record.attempts = 0
  record.queue_ttl_ms = queue_ttl_ms
  redis.call('HSET', key, 'attempts', 0, 'losses', 0, 'unreadable', 0, 'queue_ttl_ms', queue_ttl_ms)
  record.deadline_ms = nil
  -- Among what waits it is as if it came now.
  record.placed_ms = integer(at)
  redis.call('HSET', key, 'placed_ms', record.placed_ms)
  redis.call('ZREM', KEY.erasing, record.id)
  redis.call('ZREM', KEY.archiving, record.id)
  redis.call('HDEL', key, 'completed_ms', 'error_code', 'error_message', 'error_details', 'drained', 'deadline_ms')
  -- What was to be told of its end is not true any more, and what was told of it is told anew, as another.
  local speaker = string.match(record.siblings or '', '%S+') or record.id
  webhook_gone(record.tenant, speaker .. '/completed')
  redis.call('HDEL', KEY.generation .. speaker, 'tries_completed')
  redis.call('HDEL', key, 'told_start', 'tries_start')
  if redis.call('EXISTS', KEY.generation .. speaker) == 1 then redis.call('HINCRBY', KEY.generation .. speaker, 'revived', 1) end
  redis.call('EXPIRE', key, LIFE.waiting)
  redis.call('ZADD', KEY.active .. record.tenant, record.sequence, record.id)
  redis.call('ZADD', KEY.expiring, integer(at + LIFE.waiting * 1000), record.results)
  if record.inputs then redis.call('ZADD', KEY.expiring, integer(at + LIFE.waiting * 1000), record.inputs) end
  count(record, 'retried')
  batch_counted(record, 'failed', -1)
  reserve(record, tonumber(record.reserve or 0))
  requeue(record, 0)
end
