-- The objects below these prefixes are gone.
-- ARGV: prefixes
return redis.call('ZREM', KEY.expiring, unpack(ARGV))
