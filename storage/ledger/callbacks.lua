-- Webhooks that are due, held for a while by whoever calls them now.
-- ARGV: 1 ms they are held, 2 how many at the most
-- Returns {moment, tries so far, record as a flat list}...
local at = now_ms()
local found = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEY.callbacks, '-inf', integer(at), 'LIMIT', 0, ARGV[2])) do
  local id, moment = string.match(member, '^(.+)/(%a+)$')
  local flat = redis.call('HGETALL', KEY.generation .. id)
  if #flat == 0 or not named(flat).callback then
    redis.call('ZREM', KEY.callbacks, member)
  else
    redis.call('ZADD', KEY.callbacks, integer(at + tonumber(ARGV[1])), member)
    found[#found + 1] = { moment, tonumber(named(flat)['tries_' .. moment] or 0), flat }
  end
end
return found
