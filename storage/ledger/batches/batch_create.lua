#!lua
-- Accepts a batch. Safe to repeat.
-- ARGV: 1 JSON {id, tenant, caller, name, total, refused, webhook?, idempotency?, fingerprint?, max_open}
-- A full store refuses it, as it does generations.
-- Returns {'created' | 'replayed', id} | {'conflict'} | {'full', unfinished batches}
local KEPT, GONE = 10000, 8
local asked = cjson.decode(ARGV[1])
-- Where the release before noted it; a generation's key could be the same.
local function noted_before()
  local noted = redis.call('GET', KEY.idempotency .. asked.tenant .. ':batch/' .. asked.idempotency)
  return noted and redis.call('EXISTS', KEY.batch .. cjson.decode(noted).ids[1]) == 1 and noted or nil
end
-- No tenant's name has a slash: a generation's key cannot be the same.
local idempotency = asked.idempotency and (KEY.idempotency .. 'batch/' .. asked.tenant .. ':' .. asked.idempotency)
local seen = idempotency and (redis.call('GET', idempotency) or noted_before())
if seen then
  seen = cjson.decode(seen)
  if seen.fingerprint ~= asked.fingerprint then return { 'conflict' } end
  return { 'replayed', seen.ids[1] }
end
local key, at = KEY.batch .. asked.id, now_ms()
if redis.call('EXISTS', key) == 1 then return { 'replayed', asked.id } end
local open = 0
for _, id in ipairs(redis.call('SMEMBERS', KEY.open_batches .. asked.tenant)) do
  local phase = redis.call('HGET', KEY.batch .. id, 'phase')
  if phase and phase ~= 'over' then
    open = open + 1
  else
    redis.call('SREM', KEY.open_batches .. asked.tenant, id)
  end
end
if open >= asked.max_open then return { 'full', open } end
-- The oldest are forgotten; their generations and manifests stay for as long as ever.
local more = redis.call('ZCARD', KEY.batches .. asked.tenant) - KEPT
for _, id in ipairs(more < 0 and {} or redis.call('ZRANGE', KEY.batches .. asked.tenant, 0, math.min(GONE, more))) do
  local phase = redis.call('HGET', KEY.batch .. id, 'phase')
  if phase == 'over' or not phase then
    redis.call('DEL', KEY.batch .. id)
    redis.call('ZREM', KEY.batches .. asked.tenant, id)
  end
end
batch_opened(asked.tenant, asked.id)
redis.call('HSET', key, 'id', asked.id, 'tenant', asked.tenant, 'caller', asked.caller, 'name', asked.name, 'total', asked.total,
  'refused', asked.refused, 'phase', 'submitting', 'cursor', 0, 'created_ms', integer(at))
if asked.webhook then redis.call('HSET', key, 'webhook', asked.webhook, 'webhook_moments', 'batch') end
redis.call('EXPIRE', key, LIFE.waiting)
redis.call('ZADD', KEY.batches .. asked.tenant, integer(at), asked.id)
redis.call('EXPIRE', KEY.batches .. asked.tenant, LIFE.history)
redis.call('ZADD', KEY.batch_turns, integer(at), asked.id)
if idempotency then
  redis.call('SET', idempotency, cjson.encode({ fingerprint = asked.fingerprint, ids = { asked.id } }), 'EX', LIFE.idempotency)
end
return { 'created', asked.id }
