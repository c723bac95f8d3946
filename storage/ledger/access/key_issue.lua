-- Remembers a new API key and notes who made it.
-- ARGV: 1 id, 2 tenant, 3 the key as JSON {expires_ms?, ...}, 4 by whom
local name = KEY.api_key .. ARGV[1]
local expires = cjson.decode(ARGV[3]).expires_ms
redis.call('HSET', name, 'key', ARGV[3])
if expires and expires ~= cjson.null then
  redis.call('HSET', name, 'expires_ms', integer(expires))
  redis.call('PEXPIREAT', name, integer(expires))
end
redis.call('HSET', KEY.api_keys, ARGV[1], ARGV[2])
return key_noted('issued', ARGV[1], ARGV[2], ARGV[4])
