-- An API key by its id; notes that it is used, to the minute.
-- ARGV: 1 id, 2 'used' or '', 3 the digest that it is used by or ''
-- Returns {name, value...} of its record, or nothing
local name = KEY.api_key .. ARGV[1]
local used = redis.call('HGET', name, 'used_ms')
if redis.call('EXISTS', name) == 0 then return {} end
local is_own = ARGV[3] == '' or cjson.decode(redis.call('HGET', name, 'key')).digest == ARGV[3]
if ARGV[2] == 'used' and is_own and (not used or now_ms() - tonumber(used) > 60000) then
  redis.call('HSET', name, 'used_ms', integer(now_ms()))
end
return redis.call('HGETALL', name)
