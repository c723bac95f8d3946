-- One generation, and how many will be served before it while it is queued.
-- ARGV: 1 id, 2 tenant
-- Returns false | {position or -1, field, value...}
local record = redis.call('HGETALL', KEY.generation .. ARGV[1])
local r = named(record)
if r.tenant ~= ARGV[2] then return false end
local ahead = -1
if r.status == 'queued' then
  local rank = redis.call('ZRANK', KEY.pending .. r.queue .. ':' .. r.tenant, r.id) or 0
  ahead = rank
  local before_us = 1
  for _, tenant in ipairs(redis.call('LRANGE', KEY.ring .. r.queue, 0, -1)) do
    if tenant == r.tenant then
      before_us = 0
    else
      local waiting = redis.call('ZCARD', KEY.pending .. r.queue .. ':' .. tenant)
      ahead = ahead + math.min(waiting, rank + before_us)
    end
  end
end
table.insert(record, 1, ahead)
return record
