#!lua
-- Accepts a batch. Safe to repeat.
-- ARGV: 1 JSON {id, tenant, caller, name, total, refused, folder, webhook?, idempotency?, fingerprint?, max_open}
-- A full store refuses it, as it does generations.
-- Returns {'created' | 'replayed', id} | {'conflict'} | {'full', unfinished batches}
local asked = cjson.decode(ARGV[1])
local idempotency = asked.idempotency and (KEY.idempotency .. asked.tenant .. ':batch/' .. asked.idempotency)
local seen = idempotency and redis.call('GET', idempotency)
if seen then
  seen = cjson.decode(seen)
  if seen.fingerprint ~= asked.fingerprint then return { 'conflict' } end
  return { 'replayed', seen.ids[1] }
end
local key, at = KEY.batch .. asked.id, now_ms()
if redis.call('EXISTS', key) == 1 then return { 'replayed', asked.id } end
local open = 0
for _, id in ipairs(redis.call('ZREVRANGE', KEY.batches .. asked.tenant, 0, -1)) do
  local phase = redis.call('HGET', KEY.batch .. id, 'phase')
  if not phase then redis.call('ZREM', KEY.batches .. asked.tenant, id) end
  if phase and phase ~= 'over' then open = open + 1 end
end
if open >= asked.max_open then return { 'full', open } end
redis.call('HSET', key, 'id', asked.id, 'tenant', asked.tenant, 'caller', asked.caller, 'name', asked.name, 'total', asked.total,
  'refused', asked.refused, 'phase', 'submitting', 'cursor', 0, 'created_ms', integer(at))
if asked.webhook then redis.call('HSET', key, 'webhook', asked.webhook, 'webhook_moments', 'batch') end
redis.call('EXPIRE', key, LIFE.waiting)
redis.call('ZADD', KEY.batches .. asked.tenant, integer(at), asked.id)
redis.call('EXPIRE', KEY.batches .. asked.tenant, LIFE.history)
redis.call('ZADD', KEY.batch_turns, integer(at), asked.id)
redis.call('ZADD', KEY.expiring, integer(at + LIFE.waiting * 1000), asked.folder)
if idempotency then
  redis.call('SET', idempotency, cjson.encode({ fingerprint = asked.fingerprint, ids = { asked.id } }), 'EX', LIFE.idempotency)
end
return { 'created', asked.id }
