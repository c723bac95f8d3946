-- Objects below a prefix are kept for a while, then deleted.
-- ARGV: 1 prefix, 2 ms
redis.call('ZADD', KEY.expiring, integer(now_ms() + tonumber(ARGV[2])), ARGV[1])
return 1
