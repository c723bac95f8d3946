-- How things stand in all, for monitoring.
-- ARGV: 1 tenants that are looked at on each queue
-- Returns {count, how much, ...}, then {queue, queued, ms that the first of a tenant has waited at the most, ...}
local at = now_ms()
local overdue = redis.call('ZCOUNT', KEY.expiring, '-inf', integer(at))
local bytes, most = 0, 0
for _, one in ipairs(redis.call('HVALS', KEY.bytes)) do
  bytes = bytes + tonumber(one)
  most = math.max(most, tonumber(one))
end
local counts = {
  'processing', redis.call('ZCARD', KEY.leases), 'resting', redis.call('ZCARD', KEY.due), 'parked', redis.call('ZCARD', KEY.parked),
  'archivable', redis.call('ZCARD', KEY.archiving), 'deletions_overdue', overdue,
  'webhook_tenants', redis.call('ZCOUNT', KEY.webhook_turns, '-inf', integer(at)), 'batches', redis.call('ZCARD', KEY.batch_turns),
  'paused', redis.call('HLEN', KEY.paused), 'record_bytes', bytes, 'record_bytes_of_one_tenant', most,
}
local queues = {}
local depths = redis.call('HGETALL', KEY.depths)
for i = 1, #depths, 2 do
  local waited = 0
  for _, tenant in ipairs(redis.call('LRANGE', KEY.ring .. depths[i], 0, tonumber(ARGV[1]) - 1)) do
    local first = redis.call('ZRANGE', KEY.pending .. depths[i] .. ':' .. tenant, 0, 0)[1]
    local queued, created = unpack(first and redis.call('HMGET', KEY.generation .. first, 'queued_ms', 'created_ms') or {})
    local since = tonumber(queued or created or at)
    if at - since > waited then waited = at - since end
  end
  queues[#queues + 1] = depths[i]
  queues[#queues + 1] = tonumber(depths[i + 1])
  queues[#queues + 1] = waited
end
return { counts, queues }
