-- What waits, queue by queue, and how many tickets lie in the broker for it.
-- Returns {queue, pending, tickets, ...}
local depths = redis.call('HGETALL', KEY.depths)
local backlog = {}
for i = 1, #depths, 2 do
  backlog[#backlog + 1] = depths[i]
  backlog[#backlog + 1] = tonumber(depths[i + 1])
  backlog[#backlog + 1] = redis.call('LLEN', KEY.broker .. depths[i])
end
return backlog
