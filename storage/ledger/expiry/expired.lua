-- An object prefix whose time has come. For a while nobody else gets it; it stays listed until `forget` is called, so that a
-- deletion that failed is tried again.
-- ARGV: 1 ms that it is held
-- Returns {prefix, until when it is held}, or nothing
local at = now_ms()
local prefix = redis.call('ZRANGEBYSCORE', KEY.expiring, '-inf', integer(at), 'LIMIT', 0, 1)[1]
if not prefix then return {} end
local held = integer(at + tonumber(ARGV[1]))
redis.call('ZADD', KEY.expiring, held, prefix)
return { prefix, held }
