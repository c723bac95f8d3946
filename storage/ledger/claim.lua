-- queued -> processing, for the generation whose turn it is: queue by queue, round robin over tenants, then priority and age.
-- ARGV: 1 worker, 2 lease in ms, 3 how many queues are preferred, 4 patience of the others in ms, 5... queues
-- Returns {id, tenant, token, attempts, execution_limit_s, edit} or false when nothing waits.
local FIRST = 5

-- Who of a queue's next tenants has waited longest, in ms; 0 when nobody waits.
local function waited_ms(queue)
  local longest = 0
  for _, tenant in ipairs(redis.call('LRANGE', KEY.ring .. queue, 0, 15)) do
    local head = redis.call('ZRANGE', KEY.pending .. queue .. ':' .. tenant, 0, 0)[1]
    local created = head and redis.call('HGET', KEY.generation .. head, 'created_ms')
    if created then longest = math.max(longest, now_ms() - tonumber(created)) end
  end
  return longest
end

local function take(queue)
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
        if record.deadline_ms then
          redis.call('ZADD', KEY.deadlines, record.deadline_ms, record.id)
        else
          redis.call('ZREM', KEY.deadlines, record.id)
        end
        redis.call('ZADD', KEY.leases, integer(at + tonumber(ARGV[2])), record.id)
        emit('media_generation_started', record, 'processing', { 'attempts', attempts })
        return { record.id, tenant, token, attempts, record.execution_limit_s, record.edit }
      end
    end
    tenant = redis.call('LPOP', KEY.ring .. queue)
  end
  return false
end

local others = FIRST + tonumber(ARGV[3])
local impatient, longest = nil, tonumber(ARGV[4])
-- Longer than those of the preferred queues: under a backlog everybody waits, and changing for each would help nobody.
for i = FIRST, others - 1 do
  longest = math.max(longest, waited_ms(ARGV[i]) + tonumber(ARGV[4]))
end
for i = others, #ARGV do
  local waited = waited_ms(ARGV[i])
  if waited > longest then impatient, longest = ARGV[i], waited end
end
local taken = impatient and take(impatient)
for i = FIRST, #ARGV do
  taken = taken or take(ARGV[i])
end
return taken
