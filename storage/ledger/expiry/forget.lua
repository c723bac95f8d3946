-- The objects below a prefix are gone, or somebody is to look again. Should it have been given more time since, it stays as it is.
-- ARGV: 1 prefix, 2 until when it was held, 3 when somebody is to look again (ms since 1970), or ''
local held = redis.call('ZSCORE', KEY.expiring, ARGV[1])
if not held or integer(held) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then return redis.call('ZREM', KEY.expiring, ARGV[1]) end
redis.call('ZADD', KEY.expiring, integer(ARGV[3]), ARGV[1])
return 1
