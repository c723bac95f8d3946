-- Generations that were agreed to be erased by now.
-- ARGV: 1 how many at the most
-- Returns {id, tenant}...
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.erasing, '-inf', integer(now_ms()), 'LIMIT', 0, ARGV[1])) do
  local tenant = redis.call('HGET', KEY.generation .. id, 'tenant')
  if tenant then
    found[#found + 1] = { id, tenant }
  else
    redis.call('ZREM', KEY.erasing, id)
  end
end
return found
