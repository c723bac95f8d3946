-- Takes back what silent workers held: to the queue, or to failed when its attempts are used up.
-- When this sweep itself was silent (Redis stalled, restarted, was unreachable), healthy workers could not renew either:
-- everyone is granted one more lease first.
-- ARGV: 1 lease in ms, 2 silence of ours that grants grace in ms, 3 attempts at the most, 4 losses of a worker at the most,
--       5 most generations
-- Returns {id, 'queued' | 'failed', ...}
-- Leases: a worker's may be set to more than ours.
local LONGEST = 10
local at = now_ms()
local swept = named(redis.call('HGETALL', KEY.swept))
-- The clock may have been ahead, as one of another primary may be: what it wrote is not waited for longer than is usual.
local grace = math.min(tonumber(swept.grace or 0), at + tonumber(ARGV[1]))
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.leases, integer(at + LONGEST * tonumber(ARGV[1])), '+inf', 'LIMIT', 0, ARGV[5])) do
  redis.call('ZADD', KEY.leases, integer(at + tonumber(ARGV[1])), id)
end
if at - tonumber(swept.at or at) > tonumber(ARGV[2]) then grace = at + tonumber(ARGV[1]) end
redis.call('HSET', KEY.swept, 'at', integer(at), 'grace', integer(grace))
redis.call('EXPIRE', KEY.swept, LIFE.swept)
if at < grace then return {} end

local recovered = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.leases, '-inf', integer(at), 'LIMIT', 0, ARGV[5])) do
  local record = record_of(id)
  if record.status ~= 'processing' then
    redis.call('ZREM', KEY.leases, id)
  else
    -- Counted apart from attempts: a payload that kills its worker must not tour the fleet. A claim whose worker never said that it
    -- has it was lost on its way there.
    local losses = redis.call('HINCRBY', KEY.generation .. id, 'losses', record.beaten == record.token and 1 or 0)
    -- Nobody is to wait for what it had loaded. If it lives it says so again in a moment.
    redis.call('DEL', KEY.alive .. record.worker)
    if record.gpu_type then
      local lost = cjson.encode({ at_ms = at, outcome = 'worker_lost' })
      note_sample(record.model .. '|' .. record.gpu_type .. '|' .. record.region, lost)
    end
    local state = 'queued'
    if losses < tonumber(ARGV[4]) and tonumber(record.attempts) < tonumber(ARGV[3]) then
      requeue(record, 0)
    else
      state = 'failed'
      settle_failed(record, at, 'worker_lost', 'The worker was lost ' .. math.max(1, losses) .. ' times, the last time while ' .. record.phase)
      park(record, at)
    end
    recovered[#recovered + 1] = id
    recovered[#recovered + 1] = state
  end
end
return recovered
