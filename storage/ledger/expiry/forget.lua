-- The objects below this prefix are gone. Should it have been given more time since, more will be there.
-- ARGV: 1 prefix
local at = redis.call('ZSCORE', KEY.expiring, ARGV[1])
if not at or tonumber(at) > now_ms() then return 0 end
return redis.call('ZREM', KEY.expiring, ARGV[1])
