-- queued -> processing, for the generation whose turn it is: queue by queue, round robin over tenants, then priority and age.
-- ARGV: 1 worker, 2 lease in ms, 3... queues
-- Returns {id, tenant, token, attempts, execution_limit_s, edit} or false when nothing waits.
for i = 3, #ARGV do
  local queue = ARGV[i]
  local tenant = redis.call('LPOP', KEY.ring .. queue)
  while tenant do
    local pending = KEY.pending .. queue .. ':' .. tenant
    local next = redis.call('ZPOPMIN', pending)
    if redis.call('EXISTS', pending) == 1 then redis.call('RPUSH', KEY.ring .. queue, tenant) end
    if #next > 0 then
      one_less(queue)
      local record = record_of(next[1])
      if record.status == 'queued' then
        local key, at = KEY.generation .. record.id, now_ms()
        local token = redis.call('HINCRBY', key, 'token', 1)
        local attempts = redis.call('HINCRBY', key, 'attempts', 1)
        redis.call('HSET', key, 'status', 'processing', 'started_ms', integer(at), 'worker', ARGV[1], 'phase', 'preparing')
        redis.call('ZREM', KEY.deadlines, record.id)
        redis.call('ZADD', KEY.leases, integer(at + tonumber(ARGV[2])), record.id)
        emit('media_generation_started', record, 'processing', { 'attempts', attempts })
        return { record.id, tenant, token, attempts, record.execution_limit_s, record.edit }
      end
    end
    tenant = redis.call('LPOP', KEY.ring .. queue)
  end
end
return false
