-- Whether a prefix is still to be deleted, by whoever held it until then.
-- ARGV: 1 prefix, 2 until when it is held
local held = redis.call('ZSCORE', KEY.expiring, ARGV[1])
return held and integer(held) == ARGV[2] and 1 or 0
