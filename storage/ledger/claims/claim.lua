-- queued -> processing, for the generation whose turn it is: queue by queue, round robin over tenants, then priority and age.
-- ARGV: 1 worker, 2 its GPU type, 3 its region, 4 lease in ms, 5 how many queues are preferred, 6 patience of the others in ms,
--       7 how many of the last queues are deferred, 8 for how long in ms, 9 the newest version of records that it reads,
--       10 JSON list of the tenants whose generations with fetched pictures are left to others, 11... queues
-- Returns {id, tenant, token, attempts, execution_limit_s, submission, ms it waited, queue, trace}, or {'deferred', queue} when only deferred work
-- waits, or false when nothing does.
local FIRST = 11
-- Records too new for this worker that are passed over in all: a script must not block Redis for long (these take 5 ms); and of
-- a tenant whose fetched pictures are slow.
local PASSED_OVER, PASSED_OVER_OF_SLOW = 2000, 100
local IDS, TENANTS = 100, 16
local newest, passed_over, first = tonumber(ARGV[9]), 0, {}

local is_slow = {}
for _, tenant in ipairs(cjson.decode(ARGV[10])) do is_slow[tenant] = true end

-- What an operator holds back.
local paused = named(redis.call('HGETALL', KEY.paused))
local models = {}
for name in pairs(paused) do
  local model = string.match(name, '^model:(.+)$')
  if model then models[#models + 1] = 'edits.' .. model .. '.' end
end
local function is_paused(queue)
  if paused['queue:' .. queue] then return true end
  for _, prefix in ipairs(models) do
    if string.sub(queue, 1, #prefix) == prefix then return true end
  end
  return false
end

local function is_for_others(id, tenant)
  local version, is_fetched = unpack(redis.call('HMGET', KEY.generation .. id, 'version', 'fetched'))
  return tonumber(version or 1) > newest or is_fetched and is_slow[tenant]
end

-- The first of a tenant's waiting generations that this worker can read, or false. What a newer API wrote is left to newer workers.
local function first_readable(queue, tenant)
  local pending = KEY.pending .. queue .. ':' .. tenant
  if first[pending] ~= nil then return first[pending] end
  first[pending] = false
  local from, ids = 0, redis.call('ZRANGE', pending, 0, 0)
  -- Whatever was passed over, everybody's first one is looked at.
  while #ids > 0 and (from == 0 or passed_over < PASSED_OVER) and not (is_slow[tenant] and from > PASSED_OVER_OF_SLOW) do
    for _, id in ipairs(ids) do
      if not is_for_others(id, tenant) then
        first[pending] = id
        return id
      end
    end
    from, passed_over = from + #ids, passed_over + #ids
    ids = redis.call('ZRANGE', pending, from, from + IDS - 1)
  end
  return false
end

-- Who of a queue's tenants has something readable and is accepted, in their turn, and what it is; nil when none.
local function in_turn(queue, is_accepted)
  local from, tenants = 0, nil
  if is_paused(queue) then return end
  repeat
    tenants = redis.call('LRANGE', KEY.ring .. queue, from, from + TENANTS - 1)
    for _, tenant in ipairs(tenants) do
      local id = not paused['tenant:' .. tenant] and first_readable(queue, tenant)
      if id and (not is_accepted or is_accepted(id)) then return tenant, id end
    end
    from = from + TENANTS
  until #tenants < TENANTS
end

-- Who of a queue's next tenants has waited longest, in ms; 0 when nobody waits.
local function waited_ms(queue)
  local longest, looked_at = 0, 0
  in_turn(queue, function(id)
    local since = redis.call('HMGET', KEY.generation .. id, 'queued_ms', 'created_ms')
    if since[2] then longest = math.max(longest, now_ms() - tonumber(since[1] or since[2])) end
    looked_at = looked_at + 1
    return looked_at == TENANTS
  end)
  return longest
end

local function take(queue)
  -- Tenants with nothing readable keep their place: workers that read what they sent serve them in their turn.
  local tenant, id = in_turn(queue)
  if not tenant then return false end
  local pending = KEY.pending .. queue .. ':' .. tenant
  first[pending] = nil
  redis.call('ZREM', pending, id)
  redis.call('LREM', KEY.ring .. queue, 1, tenant)
  if redis.call('EXISTS', pending) == 1 then redis.call('RPUSH', KEY.ring .. queue, tenant) end
  one_less(queue)
  local record = record_of(id)
  if record.status ~= 'queued' then return take(queue) end
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
  -- A reply ends at the first nil: what is damaged comes whole, and is refused where it is read.
  return { record.id, tenant, token, attempts, record.execution_limit_s or '', record.submission or record.edit or '', waited, queue,
    record.trace or '' }
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
  if in_turn(ARGV[i]) then return { 'deferred', ARGV[i] } end
end
return false
