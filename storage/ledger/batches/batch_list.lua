-- A tenant's batches, newest first.
-- ARGV: 1 tenant, 2 how many at the most
-- Returns {record as a flat list}...
local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', KEY.batches .. ARGV[1], 0, tonumber(ARGV[2]) - 1)) do
  local record = redis.call('HGETALL', KEY.batch .. id)
  if #record == 0 then redis.call('ZREM', KEY.batches .. ARGV[1], id) else found[#found + 1] = record end
end
return found
