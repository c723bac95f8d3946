#!lua
-- Accepts all generations of a request, or none. Safe to repeat: a known id changes nothing.
-- ARGV: 1 the request as JSON {tenant, namespace, version, model, queue, priority, idempotency?, fingerprint?, fingerprints,
--       max_active, max_queued, max_bytes?, max_tickets, queue_ttl_ms, execution_limit_s, deadline_ms?, keep_ms?, chain?, group?, batch?, ignored?, month, budget?, reserve?,
--       inputs?, webhook_moments?, token?, trace?, fetched?, refused?: {code, message}, generations: [{id, submission, results}]}; `deadline_ms` counts from
--       now, `chain` names the queues it may wait on, `fingerprints` is the way fingerprints are made
-- With `refused` the generations are recorded as failed at once, for callers that want to learn of bad parameters late.
-- The one script that a full store refuses: without `allow-oom` it does not begin when there is no memory left.
-- Returns {'created' | 'replayed', cursor, ring, id...} | {'conflict'} | {'full', active} | {'crowded', queued} | {'heavy', bytes}
--   | {'overdrawn', liable} | {'spent'} where the browser token has not so many edits left | {'closed'} where the batch takes no more
local request = cjson.decode(ARGV[1])
local idempotency = request.idempotency and (KEY.idempotency .. request.tenant .. ':' .. request.idempotency)

if idempotency then
  local seen = redis.call('GET', idempotency)
  if seen then
    seen = cjson.decode(seen)
    -- One that a release before noted is made in another way, and tells nothing.
    if seen.fingerprints == request.fingerprints and seen.fingerprint ~= request.fingerprint then return { 'conflict' } end
    return { 'replayed', seen.cursor, 0, unpack(seen.ids) }
  end
end

local ids = {}
for i, generation in ipairs(request.generations) do ids[i] = generation.id end
local lines = request.batch and KEY.batch_lines .. request.batch
if redis.call('EXISTS', KEY.generation .. ids[1]) == 1 or lines and redis.call('SISMEMBER', lines, ids[1]) == 1 then
  return { 'replayed', last_cursor(), 0, unpack(ids) }
end

if redis.call('ZCARD', KEY.history .. request.tenant) == 0 then
  -- A record that ended with its time, and not by a move, was not counted off.
  redis.call('HDEL', KEY.bytes, request.tenant)
end
local bytes = 0
for _, generation in ipairs(request.generations) do bytes = bytes + #generation.submission + RECORD_BYTES end
local refused = refusal(request.tenant, #ids, request.max_active, request.max_queued)
  or too_heavy(request.tenant, bytes, request.max_bytes)
  or request.budget and not request.refused and overdraft(request.tenant, request.month, request.budget, #ids * request.reserve)
if refused then return refused end
if request.batch then
  if redis.call('HGET', KEY.batch .. request.batch, 'phase') ~= 'submitting' then return { 'closed' } end
  redis.call('HINCRBY', KEY.batch .. request.batch, 'submitted', #ids)
  redis.call('SADD', lines, unpack(ids))
  redis.call('EXPIRE', lines, LIFE.waiting)
end
local token = request.token and KEY.token .. request.token
if token then
  if tonumber(redis.call('HGET', token, 'left') or 0) < #ids then return { 'spent' } end
  redis.call('HINCRBY', token, 'left', -#ids)
  -- Its holder may see them.
  for _, id in ipairs(ids) do redis.call('HSET', token, 'id:' .. id, 1) end
end

local at = now_ms()
local cursor = last_cursor()
local keep_ms = at + LIFE.waiting * 1000
if request.inputs then
  redis.call('SET', KEY.input_uses .. request.inputs, #ids, 'EX', LIFE.waiting)
  redis.call('ZADD', KEY.expiring, integer(keep_ms), request.inputs)
end
for i, generation in ipairs(request.generations) do
  local record = {
    id = generation.id, tenant = request.tenant, model = request.model, queue = request.queue, status = 'queued',
    namespace = request.namespace, version = request.version, priority = request.priority,
    sequence = redis.call('INCR', KEY.sequence), attempts = 0, token = 0, created_ms = integer(at),
    queue_ttl_ms = integer(request.queue_ttl_ms), execution_limit_s = request.execution_limit_s, month = request.month,
    submission = generation.submission, results = generation.results, inputs = request.inputs, chain = request.chain,
    group = request.group, batch = request.batch, ignored = request.ignored, siblings = #ids > 1 and table.concat(ids, ' ') or nil,
    reserve = request.budget and not request.refused and request.reserve or nil,
    deadline_ms = request.deadline_ms and integer(at + request.deadline_ms) or nil,
    keep_ms = request.keep_ms and integer(request.keep_ms), idempotency = request.idempotency,
    bytes = #generation.submission + RECORD_BYTES, trace = request.trace, fetched = request.fetched,
    -- The first one's webhook speaks for all.
    webhook_moments = i == 1 and request.webhook_moments or nil,
  }
  local fields = {}
  for name, value in pairs(record) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  redis.call('HSET', KEY.generation .. record.id, unpack(fields))
  reserve(record, record.reserve or 0)
  counted_bytes(record, 1)
  redis.call('EXPIRE', KEY.generation .. record.id, LIFE.waiting)
  redis.call('ZADD', KEY.active .. record.tenant, record.sequence, record.id)
  redis.call('ZADD', KEY.history .. record.tenant, record.sequence, record.id)
  redis.call('ZADD', KEY.expiring, integer(keep_ms), generation.results)
  if request.refused then
    settle_failed(record, at, request.refused.code, request.refused.message)
  else
    enqueue(record, false)
    wait_until(record, at, request.queue_ttl_ms)
    emit('media_generation_queued', record, 'queued', { 'attempts', 0 })
  end
end
for _, id in ipairs(redis.call('ZRANGE', KEY.history .. request.tenant, 0, #ids + 7)) do
  -- The oldest outlive their records; with each arrival a few more go than come, so the index does not grow for ever.
  if redis.call('EXISTS', KEY.generation .. id) == 0 then redis.call('ZREM', KEY.history .. request.tenant, id) end
end
redis.call('EXPIRE', KEY.history .. request.tenant, LIFE.history)
if idempotency then
  local answer = cjson.encode({
    fingerprint = request.fingerprint, fingerprints = request.fingerprints, ids = ids, cursor = cursor,
  })
  redis.call('SET', idempotency, answer, 'EX', LIFE.idempotency)
end

local ring = not request.refused and redis.call('LLEN', KEY.broker .. request.queue) < request.max_tickets
return { 'created', cursor, ring and 1 or 0, unpack(ids) }
