-- Parked generations of all tenants, newest first.
-- ARGV: 1 most
-- Returns {{field, value...}...}
local found = {}
for _, id in ipairs(redis.call('ZREVRANGE', KEY.parked, 0, tonumber(ARGV[1]) - 1)) do
  local record = redis.call('HGETALL', KEY.generation .. id)
  if #record == 0 then redis.call('ZREM', KEY.parked, id) else found[#found + 1] = record end
end
return found
