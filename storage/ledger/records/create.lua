#!lua
-- Accepts all generations of a request, or none. Safe to repeat: a known id changes nothing.
-- ARGV: 1 the request as JSON {tenant, namespace, version, model, queue, priority, idempotency?, fingerprint?, max_active, max_queued,
--       max_tickets, queue_ttl_ms, execution_limit_s, deadline_ms?, chain?, month, budget?, reserve?, inputs?, callback?, callback_moments?, refused?: {code, message},
--       generations: [{id, edit, submitted, results}]}; `deadline_ms` counts from now, `chain`
--       names the queues it may wait on
-- With `refused` the generations are recorded as failed at once, for callers that want to learn of bad parameters late.
-- The one script that a full store refuses: without `allow-oom` it does not begin when there is no memory left.
-- Returns {'created' | 'replayed', cursor, ring, id...} | {'conflict'} | {'full', active} | {'crowded', queued} | {'overdrawn', liable}
local request = cjson.decode(ARGV[1])
local idempotency = request.idempotency and (KEY.idempotency .. request.tenant .. ':' .. request.idempotency)

if idempotency then
  local seen = redis.call('GET', idempotency)
  if seen then
    seen = cjson.decode(seen)
    if seen.fingerprint ~= request.fingerprint then return { 'conflict' } end
    return { 'replayed', seen.cursor, 0, unpack(seen.ids) }
  end
end

local ids = {}
for i, generation in ipairs(request.generations) do ids[i] = generation.id end
if redis.call('EXISTS', KEY.generation .. ids[1]) == 1 then return { 'replayed', last_cursor(), 0, unpack(ids) } end

local refused = refusal(request.tenant, #ids, request.max_active, request.max_queued)
  or request.budget and not request.refused and overdraft(request.tenant, request.month, request.budget, #ids * request.reserve)
if refused then return refused end

local at = now_ms()
local cursor = last_cursor()
local keep_ms = at + LIFE.waiting * 1000
if request.inputs then
  redis.call('SET', KEY.input_uses .. request.inputs, #ids, 'EX', LIFE.waiting)
  redis.call('ZADD', KEY.expiring, integer(keep_ms), request.inputs)
end
for i, generation in ipairs(request.generations) do
  local sequence = redis.call('INCR', KEY.sequence)
  local record = {
    id = generation.id, tenant = request.tenant, model = request.model, queue = request.queue,
    priority = request.priority, sequence = sequence, results = generation.results, inputs = request.inputs,
    siblings = #ids > 1 and table.concat(ids, ' ') or nil, deadline_ms = request.deadline_ms and at + request.deadline_ms,
    chain = request.chain, month = request.month, reserve = request.budget and not request.refused and request.reserve or nil,
  }
  redis.call('HSET', KEY.generation .. record.id,
    'id', record.id, 'tenant', record.tenant, 'model', record.model, 'queue', record.queue, 'status', 'queued',
    'namespace', request.namespace, 'version', request.version,
    'priority', record.priority, 'queue_ttl_ms', integer(request.queue_ttl_ms), 'execution_limit_s', request.execution_limit_s,
    'sequence', sequence, 'attempts', 0, 'token', 0, 'created_ms', integer(at),
    'edit', generation.edit, 'submitted', generation.submitted, 'results', generation.results)
  if request.inputs then redis.call('HSET', KEY.generation .. record.id, 'inputs', request.inputs) end
  for _, name in ipairs({ 'chain', 'month', 'reserve' }) do
    if record[name] then redis.call('HSET', KEY.generation .. record.id, name, record[name]) end
  end
  reserve(record, record.reserve or 0)
  if record.siblings then redis.call('HSET', KEY.generation .. record.id, 'siblings', record.siblings) end
  if record.deadline_ms then redis.call('HSET', KEY.generation .. record.id, 'deadline_ms', integer(record.deadline_ms)) end
  if request.callback and i == 1 then
    redis.call('HSET', KEY.generation .. record.id, 'callback', request.callback, 'callback_moments', request.callback_moments)
  end
  redis.call('EXPIRE', KEY.generation .. record.id, LIFE.waiting)
  redis.call('ZADD', KEY.active .. record.tenant, sequence, record.id)
  redis.call('ZADD', KEY.history .. record.tenant, sequence, record.id)
  redis.call('ZADD', KEY.expiring, integer(keep_ms), generation.results)
  if request.refused then
    settle_failed(record, at, request.refused.code, request.refused.message)
  else
    enqueue(record, false)
    wait_until(record, at, request.queue_ttl_ms)
    emit('media_generation_queued', record, 'queued', { 'attempts', 0 })
  end
end
for _, id in ipairs(redis.call('ZRANGE', KEY.history .. request.tenant, 0, 7)) do
  -- The oldest outlive their records; a few go with each arrival, so the index does not grow for ever.
  if redis.call('EXISTS', KEY.generation .. id) == 0 then redis.call('ZREM', KEY.history .. request.tenant, id) end
end
redis.call('EXPIRE', KEY.history .. request.tenant, LIFE.history)
if idempotency then
  local answer = cjson.encode({ fingerprint = request.fingerprint, ids = ids, cursor = cursor })
  redis.call('SET', idempotency, answer, 'EX', LIFE.idempotency)
end

local ring = not request.refused and redis.call('LLEN', KEY.broker .. request.queue) < request.max_tickets
return { 'created', cursor, ring and 1 or 0, unpack(ids) }
