-- An API key by its id; notes that it is used, to the minute, when it was shown.
-- ARGV: 1 id, 2 'shown' or ''
-- Returns {name, value...} of its record, or nothing
local name = KEY.api_key .. ARGV[1]
local used = redis.call('HGET', name, 'used_ms')
if redis.call('EXISTS', name) == 0 then return {} end
if ARGV[2] == 'shown' and (not used or now_ms() - tonumber(used) > 60000) then
  redis.call('HSET', name, 'used_ms', integer(now_ms()))
end
return redis.call('HGETALL', name)
