-- queued -> processing, for the generation whose turn it is: queue by queue, round robin over tenants, then priority and age.
-- ARGV: 1 worker, 2 its GPU type, 3 its region, 4 lease in ms, 5 how many queues are preferred, 6 patience of the others in ms,
--       7 how many of the last queues are deferred, 8 for how long in ms, 9 the newest version of records that it reads, 10... queues
-- Returns {id, tenant, token, attempts, execution_limit_s, edit, ms it waited, queue}, or {'deferred', queue} when only deferred work
-- waits, or false when nothing does.
local FIRST = 10
-- Of a tenant's pending generations, for one that the worker can read.
local LOOKED_AT = 64
local newest = tonumber(ARGV[9])

-- Who of a queue's next tenants has waited longest, in ms; 0 when nobody waits.
local function waited_ms(queue)
  local longest = 0
  for _, tenant in ipairs(redis.call('LRANGE', KEY.ring .. queue, 0, 15)) do
    local head = redis.call('ZRANGE', KEY.pending .. queue .. ':' .. tenant, 0, 0)[1]
    local since = head and redis.call('HMGET', KEY.generation .. head, 'queued_ms', 'created_ms')
    if since and since[2] then longest = math.max(longest, now_ms() - tonumber(since[1] or since[2])) end
  end
  return longest
end

-- The first of a tenant's that this worker can read. What a newer API wrote is left to newer workers.
local function first_readable(pending)
  for _, id in ipairs(redis.call('ZRANGE', pending, 0, LOOKED_AT - 1)) do
    local version = redis.call('HGET', KEY.generation .. id, 'version')
    if tonumber(version or 1) <= newest then return id end
  end
end

local function take(queue)
  -- Once around the ring; more often only while what was found turns out to be over.
  local left = redis.call('LLEN', KEY.ring .. queue)
  while left > 0 do
    left = left - 1
    local tenant = redis.call('LPOP', KEY.ring .. queue)
    local pending = KEY.pending .. queue .. ':' .. tenant
    local id = first_readable(pending)
    if id then redis.call('ZREM', pending, id) end
    if redis.call('EXISTS', pending) == 1 then redis.call('RPUSH', KEY.ring .. queue, tenant) end
    if id then
      left = redis.call('LLEN', KEY.ring .. queue)
      one_less(queue)
      local record = record_of(id)
      if record.status == 'queued' then
        local key, at = KEY.generation .. record.id, now_ms()
        local token = redis.call('HINCRBY', key, 'token', 1)
        local attempts = redis.call('HINCRBY', key, 'attempts', 1)
        redis.call('HSET', key, 'status', 'processing', 'started_ms', integer(at), 'worker', ARGV[1], 'phase', 'preparing',
          'gpu_type', ARGV[2], 'region', ARGV[3])
        if record.chain then redis.call('ZREM', KEY.chained, record.id) end
        if record.deadline_ms then
          redis.call('ZADD', KEY.deadlines, record.deadline_ms, record.id)
        else
          redis.call('ZREM', KEY.deadlines, record.id)
        end
        redis.call('ZADD', KEY.leases, integer(at + tonumber(ARGV[4])), record.id)
        emit('media_generation_started', record, 'processing', { 'attempts', attempts })
        local waited = integer(math.max(0, at - tonumber(record.queued_ms or record.created_ms)))
        return { record.id, tenant, token, attempts, record.execution_limit_s, record.edit, waited, queue }
      end
    end
  end
  return false
end

local others, deferred = FIRST + tonumber(ARGV[5]), #ARGV - tonumber(ARGV[7]) + 1
local impatient, longest = nil, tonumber(ARGV[6])
-- Longer than those of the preferred queues: under a backlog everybody waits, and changing for each would help nobody.
for i = FIRST, others - 1 do
  longest = math.max(longest, waited_ms(ARGV[i]) + tonumber(ARGV[6]))
end
for i = others, #ARGV do
  local waited = waited_ms(ARGV[i])
  if waited > longest and (i < deferred or waited >= tonumber(ARGV[8])) then impatient, longest = ARGV[i], waited end
end
local taken = impatient and take(impatient)
for i = FIRST, #ARGV do
  -- Somebody else has the model loaded, and is given a moment to take it.
  if i < deferred or (not taken and waited_ms(ARGV[i]) >= tonumber(ARGV[8])) then taken = taken or take(ARGV[i]) end
end
if taken then return taken end
for i = deferred, #ARGV do
  if redis.call('EXISTS', KEY.ring .. ARGV[i]) == 1 then return { 'deferred', ARGV[i] } end
end
return false
