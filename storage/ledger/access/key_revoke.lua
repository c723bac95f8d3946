-- Ends an API key after a while, or earlier where it ends by itself, and notes who did it.
-- ARGV: 1 id, 2 by whom, 3 ms until then
-- Returns {name, value...} of its record, or nothing
local name = KEY.api_key .. ARGV[1]
local record = redis.call('HGETALL', name)
if #record == 0 then return {} end
local at = now_ms() + tonumber(ARGV[3])
local before = tonumber(named(record).expires_ms)
if before and before < at then at = before end
redis.call('HSET', name, 'expires_ms', integer(at))
record = redis.call('HGETALL', name)
redis.call('PEXPIREAT', name, integer(at))
key_noted('revoked', ARGV[1], redis.call('HGET', KEY.api_keys, ARGV[1]), ARGV[2])
return record
